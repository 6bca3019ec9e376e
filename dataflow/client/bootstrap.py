"""Bootstrap: the environment of a login host that has none, made in the account's own directory.

What is installed there is the version that runs here, from a wheel that is made here and carried
over the connection. What it needs comes from an index, by uv or pip as the account has them set
up; from a directory of wheels at the site; or, with ``copy``, from here too, for a site without
the internet and of the same platform.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path, PurePosixPath
from typing import Any

import structlog

from dataflow.client.wheels import OURS, closure, make_wheel
from dataflow.client.words import there
from dataflow.config.records import SshAccess
from dataflow.errors import ConfigError, SiteUnreachable

log = structlog.get_logger(__name__)

#: Seconds in which the environment must have been made, and files carried over.
SECONDS = 1800.0

#: Where wheels and the script are put at the site, from the home directory.
FOLDER = "dataflow/wheels"

_SCRIPT = """\
set -eu
umask 077
environment=$1 python=$2 what=$3
shift 3
uv=$(command -v uv || true)
for one in "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv"; do
    if [ -z "$uv" ] && [ -x "$one" ]; then uv=$one; fi
done
if [ -n "$uv" ]; then
    "$uv" venv --quiet --allow-existing --python "$python" "$environment"
    "$uv" pip install --quiet --python "$environment/bin/python" "$@" "$what"
elif command -v "python$python" >/dev/null; then
    "python$python" -m venv "$environment"
    # Compiled as it is used, as with uv: all of it at once takes longer than all else here.
    "$environment/bin/python" -m pip install \
        --quiet --disable-pip-version-check --no-compile "$@" "$what"
else
    echo "neither uv nor python$python is there" >&2
    exit 3
fi
"""

Run = Callable[[str, float], Awaitable[tuple[int, str, str]]]


def environment_of(access: SshAccess) -> str:
    """The environment of which ``access.python`` is to be the interpreter, from the home directory.

    Raises
    ------
    ConfigError
        If no environment has its interpreter there.
    """
    path = PurePosixPath(access.python.removeprefix("~/"))
    if path.parent.name != "bin" or len(path.parts) < 3:
        raise ConfigError(f"bootstrap: python: {access.python} is not ENVIRONMENT/bin/python")
    return str(path.parent.parent)


async def bootstrap(site: str, connection: Any, run: Run, access: SshAccess) -> None:
    """Make the environment at the other end of an SSH connection.

    Raises
    ------
    ConfigError
        If ``access`` does not say where.
    SiteUnreachable
        If it cannot be made, with the last words of what failed.
    """
    environment = environment_of(access)
    log.info("bootstrap", site=site, environment=environment, by=access.bootstrap)
    with tempfile.TemporaryDirectory(prefix="dataflow-wheels-") as name:
        own = await asyncio.to_thread(_wheels, access, Path(name))
        try:
            async with asyncio.timeout(SECONDS):
                await _carry(connection, Path(name))
        except (TimeoutError, OSError, _errors()) as error:
            reason = f"wheels could not be carried there: {error or type(error).__name__}"
            raise SiteUnreachable(site, reason) from error
    more = ["--find-links", there(FOLDER)]
    if access.bootstrap == "copy":
        more = ["--no-index", *more]
    elif access.wheels is not None:
        more = ["--no-index", *more, "--find-links", there(access.wheels)]
    words = [
        "/bin/sh",
        there(f"{FOLDER}/bootstrap.sh"),
        there(environment),
        f"{sys.version_info.major}.{sys.version_info.minor}",
        there(f"{FOLDER}/{own}[{','.join(access.extras)}]"),
        *more,
    ]
    status, out, complaint = await run(" ".join(words), SECONDS)
    if status:
        said = "\n".join((complaint.strip() or out.strip() or "nothing").splitlines()[-5:])
        raise SiteUnreachable(
            site,
            f"no environment could be made at {environment} (status {status}): {said}\n"
            "What you can do: give uv or pip there an index that answers (UV_INDEX_URL), say "
            "wheels: with a directory there that has what is missing, or bootstrap: copy",
        )


def _wheels(access: SshAccess, folder: Path) -> str:
    """What is to be carried there, in ``folder``; the name of our own wheel."""
    names = closure(OURS, access.extras) if access.bootstrap == "copy" else [OURS]
    for name in names:
        make_wheel(name, folder)
    (folder / "bootstrap.sh").write_text(_SCRIPT)
    return make_wheel(OURS, folder).name


async def _carry(connection: Any, folder: Path) -> None:
    """Put files at the site that are not there already."""
    async with connection.start_sftp_client() as sftp:
        await sftp.makedirs(FOLDER, exist_ok=True)
        known = set(await sftp.listdir(FOLDER))
        for file in sorted(folder.iterdir()):
            # Ours may have changed without its version; what was cut off has the other name.
            if file.name in known and not file.name.startswith(("jupyter_dataflow", "bootstrap")):
                continue
            await sftp.put(str(file), f"{FOLDER}/{file.name}.part")
            await sftp.posix_rename(f"{FOLDER}/{file.name}.part", f"{FOLDER}/{file.name}")


def _errors() -> type[Exception]:
    import asyncssh

    found: type[Exception] = asyncssh.Error
    return found
