"""Cells of notebooks that run: whole lines, in order, to their owner."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dataflow.backends.programs import OURS
from dataflow.errors import UnknownJob
from dataflow.execution.invitation import CELLS_FILE, PYTHON_FILE, Invitation, write_invitation
from dataflow.participant.notebooks import Cells, Notebooks

RUN = "0123456789ab-ba9876543210"


def invited(folder: Path) -> Path:
    directory = folder / RUN
    write_invitation(
        Invitation(site="uva", job="j", order="o", user="anna"), directory, "/o'hare/python"
    )
    return directory / OURS


def test_only_whole_lines_are_told(tmp_path: Path) -> None:
    file = invited(tmp_path) / CELLS_FILE
    notebooks = Notebooks("uva", [tmp_path / "none", tmp_path])
    assert notebooks.owner(RUN) == "anna"
    assert asyncio.run(notebooks.cells(RUN, 0, 0)) == Cells()
    file.write_text('{"index": 0}\n{"index"')
    assert asyncio.run(notebooks.cells(RUN, 0, 0)) == Cells(lines=('{"index": 0}\n',), next=13)
    assert asyncio.run(notebooks.cells(RUN, 13, 0)) == Cells(next=13)


def test_long_ones_come_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataflow.participant.notebooks.PAGE_NBYTES", 10)
    lines = [f"{'é' * n}\n" for n in range(1, 30)]
    (invited(tmp_path) / CELLS_FILE).write_text("".join(lines))
    notebooks, found, since = Notebooks("uva", [tmp_path]), [], 0
    while page := asyncio.run(notebooks.cells(RUN, since, 0)).lines:
        found += page
        since += sum(len(line.encode()) for line in page)
    assert found == lines


def test_who_waits_hears_of_the_next(tmp_path: Path) -> None:
    file = invited(tmp_path) / CELLS_FILE

    async def story() -> Cells:
        waiting = asyncio.create_task(Notebooks("uva", [tmp_path]).cells(RUN, 0, 60))
        await asyncio.sleep(0)
        file.write_text("{}\n")
        return await waiting

    assert asyncio.run(story()).lines == ("{}\n",)


@pytest.mark.parametrize("run", ["", "..", "../../etc", RUN.upper(), "f" * 12 + "-" + "f" * 12])
def test_what_is_no_run_is_not_known(tmp_path: Path, run: str) -> None:
    invited(tmp_path)
    with pytest.raises(UnknownJob):
        Notebooks("uva", [tmp_path]).owner(run)


def test_an_invitation_is_for_its_account_alone(tmp_path: Path) -> None:
    ours = invited(tmp_path)
    assert all(not path.stat().st_mode & 0o077 for path in (ours, *ours.iterdir()))
    assert (ours / PYTHON_FILE).read_text().endswith("exec '/o'\\''hare/python' \"$@\"\n")
