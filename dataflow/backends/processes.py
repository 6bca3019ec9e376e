"""Programs as processes of this host, beside the workers: for what waits more than it computes.

A notebook orders work and waits for it. In a worker it would take the place of what it waits for.
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from dataflow.backends.commands import started
from dataflow.backends.gridengine import Accounted
from dataflow.backends.programs import OURS, AskedFor, ProgramOrder, Turn

#: Seconds between the request to end and the end.
GRACE_SECONDS = 2.0

#: Seconds that what was killed may take to be gone.
_GONE_SECONDS = 10.0
_LOOK_SECONDS = 0.02

#: Seconds that the directory of a run is kept that did not end well.
KEPT_SECONDS = 7 * 86_400.0

#: What a program does not get to see of this process's environment.
_SECRETS = "DATAFLOW_CREDENTIALS"


class ProcessPrograms:
    """What :class:`~dataflow.backends.programs.RunsPrograms` asks for, by processes of this host.

    Parameters
    ----------
    runs
        Directory below which runs lie.
    """

    def __init__(self, runs: Path) -> None:
        self.runs = runs

    def asked_for(self, order: ProgramOrder) -> AskedFor:
        """Nobody grants anything here; the walltime is kept."""
        return AskedFor(cores=order.cores, memory=order.memory, walltime=order.walltime or None)

    async def run_programs(self, order: ProgramOrder, tell: Callable[[int, Turn], None]) -> None:
        """Run programs to their end; see the protocol. What an earlier process left running ends."""
        async with asyncio.TaskGroup() as group:
            for place, directory in enumerate(order.directories):
                group.create_task(_run(directory, order.walltime, place, tell))

    async def accounting(self, batch: str) -> Accounted | None:
        """Nobody keeps accounts of processes."""
        del batch
        return None


async def _run(
    directory: Path, walltime: float, place: int, tell: Callable[[int, Turn], None]
) -> None:
    ours = directory / OURS
    mark = ours / "process"
    await asyncio.to_thread(_end_earlier, mark)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_SECRETS)}
    with (ours / "stdout").open("wb") as stdout, (ours / "stderr").open("wb") as stderr:
        process = await started(
            "/bin/sh",
            str(ours / "command"),
            cwd=directory,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
    began = time.time()
    running = Turn(status="running", batch="", host=platform.node(), since=began)
    overtime = False
    try:
        mark.write_text(f"{process.pid} {_created(process.pid)}\n")
        tell(place, running)
        try:
            async with asyncio.timeout(walltime or None):
                status = await process.wait()
        except TimeoutError:
            overtime, status = True, -signal.SIGKILL
    finally:
        await _ended(process)
    tell(
        place,
        Turn(
            status="ended",
            batch="",
            host=running.host,
            since=began,
            until=time.time(),
            exit_status=status if status >= 0 else None,
            reason="it was killed" if overtime else _words(status),
            overtime=overtime,
        ),
    )


def _words(status: int) -> str:
    return f"it was ended by signal {signal.Signals(-status).name}" if status < 0 else ""


async def _ended(process: asyncio.subprocess.Process) -> None:
    """End a process and all that it started; returns when it is gone, also if this is cancelled."""
    under = _under(process.pid) if process.returncode is None else set()
    try:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE_SECONDS):
                    await process.wait()
    finally:
        _kill(process.pid, under)
    await process.wait()
    end = time.monotonic() + _GONE_SECONDS
    while any(_alive(one) for one in under) and time.monotonic() < end:
        await asyncio.sleep(_LOOK_SECONDS)


def _end_earlier(mark: Path) -> None:
    """End what an earlier agent started in this directory: two would write the same files."""
    number = _running(mark)
    if number is None:
        return
    under = _under(number)
    with suppress(psutil.Error):
        under.add(psutil.Process(number))
    _kill(number, under)
    end = time.monotonic() + _GONE_SECONDS
    while any(_alive(one) for one in under) and time.monotonic() < end:
        time.sleep(_LOOK_SECONDS)


def _under(pid: int) -> set[psutil.Process]:
    """All that a process started, also in sessions of their own, as kernels are."""
    try:
        return set(psutil.Process(pid).children(recursive=True))
    except psutil.Error:
        return set()


def _kill(group: int, under: set[psutil.Process]) -> None:
    """Kill a group and what was started below it, with what that has started meanwhile."""
    for one in list(under):
        with suppress(psutil.Error):
            under |= set(one.children(recursive=True))
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    for one in under:
        with suppress(psutil.Error):  # which never mistakes another process for it
            one.kill()


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() not in (
            psutil.STATUS_ZOMBIE,
            psutil.STATUS_DEAD,
        )
    except psutil.Error:
        return False


def _running(mark: Path) -> int | None:
    """The process that a mark tells of, if it is still there."""
    try:
        number, created = mark.read_text().split()
        return int(number) if _created(int(number)) == created else None
    except (OSError, ValueError):
        return None


def _created(pid: int) -> str:
    """When a process began: numbers are used again."""
    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return "gone"


def tidy_runs(runs: Path) -> None:
    """Remove directories of runs that nobody has touched for a week and in which nothing runs."""
    with suppress(OSError):
        for directory in runs.iterdir():
            with suppress(OSError):
                old = time.time() - directory.stat().st_mtime > KEPT_SECONDS
                if old and _running(directory / OURS / "process") is None:
                    shutil.rmtree(directory, ignore_errors=True)
