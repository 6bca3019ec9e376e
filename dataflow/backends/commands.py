"""Commands of a batch system: asked with patience, but not for ever."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from typing import Any

#: How long to wait for the pipes of a command that was killed (s).
_PIPE_SECONDS = 2.0


async def said(*command: str, seconds: float, stdin: str | None = None) -> tuple[int, str, str]:
    """Exit status of a command, what it wrote as a result, and what as an error.

    ``stdin`` is what it reads; ``None`` for nothing.

    Raises
    ------
    TimeoutError
        If it did not end in time; it is killed then, with what it has started. What it asked for may
        be done all the same.
    OSError
        If there is no such command.
    """
    process = await started(
        *command,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
    )
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate(None if stdin is None else stdin.encode())
    except BaseException:
        await _killed(process)
        raise
    return process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")


async def started(*command: str, **how: Any) -> asyncio.subprocess.Process:
    """Start a command in a session of its own; who is cancelled meanwhile leaves nothing running.

    What asyncio does then is to end the command alone, and to wait until those that it has started close
    their pipes.
    """
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(*command, start_new_session=True, **how)
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        with suppress(OSError):  # there was nothing to start
            await _killed(await starting)
        raise


async def _killed(process: asyncio.subprocess.Process) -> None:
    """End a process that :func:`started` gave, with all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):  # a pipe ends with the last that holds it, and may be elsewhere
        async with asyncio.timeout(_PIPE_SECONDS):
            await process.communicate()
