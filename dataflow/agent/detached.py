"""An agent that outlives whoever starts it: found if it runs, else started; then where it answers.

This is what a connection by SSH runs on a login host. What it prints is one line that begins with
:data:`MARK`, so that whatever a login prints beside it does no harm.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psutil

from dataflow.agent.auth import first_token
from dataflow.errors import SiteUnreachable
from dataflow.versions import versions

#: Where a running agent says how to reach it, in its state directory, and its tokens.
ADDRESS_FILE, TOKEN_FILE = "agent.json", "tokens"

#: What the line with the answer begins with.
MARK = "dataflow-agent: "

#: Seconds for an agent to come up, imports from a cold network file system included.
START_SECONDS = 60.0
#: Seconds that an agent which does not answer any more gets to end.
ENDING_SECONDS = 10.0

LOG_FILE, LOCK_FILE, SOCKET_FILE = "agent.log", "agent.lock", "agent.sock"


def ensure_agent(site: str, state: Path, arguments: list[str], tokens: Path | None) -> str:
    """Start the agent of a state directory unless one runs there; the line to print.

    Parameters
    ----------
    arguments
        Of ``dataflow agent`` for the process to be started.

    Raises
    ------
    SiteUnreachable
        If it does not come up, with the end of its log.
    """
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(state / LOCK_FILE):
        found = _running(state)
        started = found is None
        if found is None:
            found = _start(site, state, arguments)
    document = {
        **found,
        "token": first_token(tokens or state / TOKEN_FILE),
        "started": started,
        "versions": dict(versions()),
    }
    return MARK + json.dumps(document)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Two connections at once start one agent."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _running(state: Path) -> Mapping[str, Any] | None:
    """What the agent of this directory says of itself, if its process is alive."""
    limit = time.monotonic() + ENDING_SECONDS
    while True:
        try:
            found = dict(json.loads((state / ADDRESS_FILE).read_text()))
            host, pid, address = found.get("host", ""), int(found["pid"]), str(found["address"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if host and host != socket.gethostname():
            raise SiteUnreachable(
                str(found.get("site", "")),
                f"its agent runs on {host}, and this is {socket.gethostname()}: say ssh://{host}, or "
                f"remove {state / ADDRESS_FILE} if nothing runs there any more",
            )
        if _answers(address):
            return found
        # It may be about to end; a number alone says nothing, as it may be another's by now.
        if not psutil.pid_exists(pid) or time.monotonic() > limit:
            return None
        time.sleep(0.1)


def _answers(address: str) -> bool:
    """Whether somebody listens there."""
    parts = urlsplit(address)
    try:
        if parts.scheme == "unix":
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as attempt:
                attempt.settimeout(2.0)
                attempt.connect(unquote(parts.path))
        else:
            where = (parts.hostname or "127.0.0.1", parts.port or 80)
            socket.create_connection(where, timeout=2.0).close()
    except OSError:
        return False
    return True


def _start(site: str, state: Path, arguments: list[str]) -> Mapping[str, Any]:
    log = state / LOG_FILE
    before = log.stat().st_size if log.exists() else 0
    with log.open("ab") as out, Path(os.devnull).open("rb") as nothing:
        process = subprocess.Popen(
            [sys.executable, "-m", "dataflow", "agent", *arguments],
            stdin=nothing,
            stdout=out,
            stderr=out,
            start_new_session=True,
            cwd=state,
        )
    limit = time.monotonic() + START_SECONDS
    while time.monotonic() < limit:
        found = _running(state)
        if found is not None and found["pid"] == process.pid:
            return found
        if process.poll() is not None:
            reason = f"its agent ended at once: {_said(log, before)}"
            raise SiteUnreachable(site, reason)
        time.sleep(0.02)
    process.terminate()
    reason = f"its agent did not come up in {START_SECONDS:g} s: {_said(log, before)}"
    raise SiteUnreachable(site, reason)


def _said(log: Path, since: int) -> str:
    """The last line of a log that was written after a position."""
    with log.open("rb") as file:
        file.seek(since)
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
