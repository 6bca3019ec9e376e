"""Commands of a batch system: asked with patience, but not for ever."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress


async def said(*command: str, seconds: float, stdin: str | None = None) -> tuple[int, str, str]:
    """Exit status of a command, what it wrote as a result, and what as an error.

    ``stdin`` is what it reads; ``None`` for nothing.

    Raises
    ------
    TimeoutError
        If it did not end in time; it is killed then. What it asked for may be done all the same.
    OSError
        If there is no such command.
    """
    process = await asyncio.create_subprocess_exec(
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
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    return process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")
