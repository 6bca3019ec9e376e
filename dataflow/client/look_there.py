"""Look there: what a login host has for an agent, without starting one."""

from __future__ import annotations

import base64
import json
import shlex
import time
from dataclasses import dataclass, field

from dataflow.client.ssh import SshReach
from dataflow.client.words import there

#: What the line with the answer begins with, whatever a login prints beside it.
MARK = "dataflow-look: "

_PROGRAM = f"""
import json, sys, time
said = {{"time": time.time(), "python": sys.version.split()[0]}}
try:
    from dataflow.versions import versions
    said["versions"] = dict(versions())
except Exception as error:
    said["missing"] = str(error) or type(error).__name__
else:
    try:
        from pathlib import Path
        import psutil
        if len(sys.argv) > 1:
            from dataflow.config import read_site_file
            found = read_site_file(sys.argv[1])
            said["site"] = found.me
            state = Path(sys.argv[2]) if len(sys.argv) > 2 else found.state
            try:
                told = json.loads((state / "agent.json").read_text())
                said["runs"] = psutil.pid_exists(int(told["pid"]))
            except (OSError, ValueError, KeyError):
                said["runs"] = False
    except Exception as error:
        said["wrong"] = str(error) or type(error).__name__
said["end"] = time.time()
print({MARK!r} + json.dumps(said))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class There:
    """What was found on the host.

    Attributes
    ----------
    complaint
        Why there is no answer, in the words of the shell there; empty if there is one.
    python
        Version of the interpreter.
    missing
        Why dataflow could not be imported; empty if it could.
    wrong
        What is wrong with the site file; empty if nothing, or if none was asked about.
    versions
        As :func:`dataflow.versions.versions` there.
    site
        Name of the site in that file.
    runs
        Whether its agent runs now.
    ahead
        Least and most seconds by which the clock there is ahead of ours.
    """

    complaint: str = ""
    python: str = ""
    missing: str = ""
    wrong: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    site: str | None = None
    runs: bool = False
    ahead: tuple[float, float] = (0.0, 0.0)


def look_command(python: str, *paths: str) -> str:
    """What is run on the host, whatever shell the account has.

    Parameters
    ----------
    python
        The interpreter there.
    paths
        None, or the site file, or the site file and the state directory.
    """
    # On one line and without marks that mean something to a shell: csh is a login shell, too.
    packed = base64.b64encode(_PROGRAM.encode()).decode()
    program = f'import base64; exec(base64.b64decode("{packed}"))'
    return " ".join([there(python), "-c", shlex.quote(program), *map(there, paths)])


async def look_there(reach: SshReach, python: str, *paths: str, seconds: float) -> There:
    """Ask a host to which :meth:`SshReach.login` has connected.

    Raises
    ------
    SiteUnreachable
        If the connection breaks, or the answer takes longer than ``seconds``.
    """
    sent = time.time()
    _, out, complaint = await reach.run(look_command(python, *paths), seconds=seconds)
    received = time.time()
    line = next((line for line in out.splitlines() if line.startswith(MARK)), None)
    if line is None:
        words = (complaint.strip() or out.strip() or "it said nothing").splitlines()[-1]
        return There(complaint=words)
    said = json.loads(line.removeprefix(MARK))
    return There(
        python=said["python"],
        missing=said.get("missing", ""),
        wrong=said.get("wrong", ""),
        versions=said.get("versions", {}),
        site=said.get("site"),
        runs=bool(said.get("runs")),
        # It began after we had asked, and ended before we had the answer.
        ahead=(said["end"] - received, said["time"] - sent),
    )
