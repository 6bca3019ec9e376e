"""Programs as processes beside the workers: they end, or are ended, with all that they started."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from dataflow.backends.processes import ProcessPrograms
from dataflow.backends.programs import OURS, ProgramOrder, RunsPrograms, Turn


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


def test_what_an_earlier_process_left_running_ends(tmp_path: Path) -> None:
    asked = order(tmp_path, "sleep 602")

    async def story() -> Any:
        first = await asyncio.create_subprocess_exec("sleep", "603", start_new_session=True)
        import psutil

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


def gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return not os.path.exists(f"/proc/{pid}")
