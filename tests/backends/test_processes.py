"""Programs as processes beside the workers: they end, or are ended, with all that they started."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from dataflow.backends.processes import KEPT_SECONDS, ProcessPrograms, tidy_runs
from dataflow.backends.programs import OURS, ProgramOrder, RunsPrograms, Turn
from tests.backends.ends import gone


def order(folder: Path, *commands: str, walltime: float = 0.0) -> ProgramOrder:
    directories = []
    for number, command in enumerate(commands):
        directory = folder / f"run-{number}"
        (directory / OURS).mkdir(parents=True, exist_ok=True)
        (directory / OURS / "command").write_text(command)
        directories.append(directory)
    return ProgramOrder(name="x", directories=tuple(directories), walltime=walltime)


def run(folder: Path, *commands: str, walltime: float = 0.0) -> dict[int, Turn]:
    programs, turns = ProcessPrograms(folder), {}
    assert isinstance(programs, RunsPrograms)

    def tell(place: int, turn: Turn) -> None:
        turns[place] = turn

    asyncio.run(programs.run_programs(order(folder, *commands, walltime=walltime), tell))
    return turns


def test_status_and_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATAFLOW_CREDENTIALS_X", "secret")
    turns = run(tmp_path, "echo said; env", "echo blamed >&2; exit 7", "kill -KILL $$")
    assert [turns[n].exit_status for n in range(3)] == [0, 7, None]
    assert turns[2].reason == "it was ended by signal SIGKILL"
    stdout = (tmp_path / "run-0" / OURS / "stdout").read_text()
    assert stdout.startswith("said\n")
    assert "secret" not in stdout
    assert (tmp_path / "run-1" / OURS / "stderr").read_text() == "blamed\n"


def test_walltime(tmp_path: Path) -> None:
    (turn,) = run(tmp_path, "sleep 600", walltime=0.2).values()
    assert turn.overtime
    assert turn.exit_status is None


def test_who_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    asked = order(tmp_path, "sleep 601 & echo $! > child; wait")

    async def story() -> int:
        begun = asyncio.Event()

        def tell(place: int, turn: Turn) -> None:
            begun.set()

        running = asyncio.create_task(ProcessPrograms(tmp_path).run_programs(asked, tell))
        await begun.wait()
        child = asked.directories[0] / "child"
        while not (child.exists() and child.read_text().strip()):
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return int(child.read_text())

    assert gone(asyncio.run(story()))


SESSION = (
    "import os, time; os.setsid(); open('child', 'w').write(str(os.getpid())); time.sleep(604)"
)


def test_a_kernel_ends_with_its_notebook(tmp_path: Path) -> None:
    """Kernels begin sessions of their own, which a signal to the group of the program passes by."""
    asked = order(tmp_path, f'"{sys.executable}" -c "{SESSION}" & wait')
    child = asked.directories[0] / "child"

    async def story() -> int:
        running = asyncio.create_task(
            ProcessPrograms(tmp_path).run_programs(asked, lambda place, turn: None)
        )
        while not (child.exists() and child.read_text()):
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return int(child.read_text())

    assert gone(asyncio.run(story()))


def test_old_directories_go_unless_something_runs_there(tmp_path: Path) -> None:
    created = psutil.Process().create_time()
    for name, mark in (("old", ""), ("runs", f"{os.getpid()} {created:.2f}\n"), ("young", "")):
        (tmp_path / name / OURS).mkdir(parents=True)
        (tmp_path / name / OURS / "process").write_text(mark)
    before = time.time() - KEPT_SECONDS - 60
    for name in ("old", "runs"):
        os.utime(tmp_path / name, (before, before))
    tidy_runs(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "young"]


def test_what_an_earlier_process_left_running_ends(tmp_path: Path) -> None:
    asked = order(tmp_path, "sleep 602")

    async def story() -> Any:
        first = await asyncio.create_subprocess_exec("sleep", "603", start_new_session=True)
        created = f"{psutil.Process(first.pid).create_time():.2f}"
        (asked.directories[0] / OURS / "process").write_text(f"{first.pid} {created}\n")
        running = asyncio.create_task(
            ProcessPrograms(tmp_path).run_programs(asked, lambda place, turn: None)
        )
        status = await first.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return status

    assert asyncio.run(story()) == -9
