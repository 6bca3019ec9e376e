"""Cells of notebooks that run: whole lines, in order, to their owner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from dataflow.backends.programs import OURS
from dataflow.errors import NotGranted, UnknownJob
from dataflow.execution.events import Order, SegmentOrder
from dataflow.execution.invitation import (
    CELLS_FILE,
    PYTHON_FILE,
    Invitation,
    run_of,
    write_invitation,
)
from dataflow.graph.operation import shell
from dataflow.participant.notebooks import Cells, Notebooks

GRAPH = shell("true {output:a}", name="notebook")()
ORDER = SegmentOrder(
    id="o",
    job="j",
    plan="p",
    site="uva",
    steps=tuple(GRAPH.steps.values()),
    inputs={},
    datasets={},
    extents={},
    outputs=GRAPH.outputs,
    user="anna",
)
RUN = run_of("o", GRAPH.key)


def notebooks_of(
    *runs: Path, look: Callable[[SegmentOrder], None] = lambda order: None
) -> Notebooks:
    orders: dict[str, Order] = {"o": ORDER}
    return Notebooks("uva", runs, orders.get, look)


def invited(folder: Path, run: str = RUN) -> Path:
    directory = folder / run
    write_invitation(
        Invitation(site="uva", job="j", order="o", user="anna"), directory, "/o'hare/python"
    )
    return directory / OURS


def test_only_whole_lines_are_told(tmp_path: Path) -> None:
    file = invited(tmp_path) / CELLS_FILE
    notebooks = notebooks_of(tmp_path / "none", tmp_path)
    assert notebooks.owner(RUN) == "anna"
    assert asyncio.run(notebooks.cells(RUN, 0, 0)) == Cells()
    file.write_text('{"index": 0}\n{"index"')
    assert asyncio.run(notebooks.cells(RUN, 0, 0)) == Cells(lines=('{"index": 0}\n',), next=13)
    assert asyncio.run(notebooks.cells(RUN, 13, 0)) == Cells(next=13)


def test_what_is_run_anew_is_told_anew(tmp_path: Path) -> None:
    file = invited(tmp_path) / CELLS_FILE
    notebooks = notebooks_of(tmp_path)
    file.write_text('{"index": 10}\n')
    fresh = Cells(lines=('{"index": 10}\n',), next=14)
    for stale in (5, 15, 1000):
        assert asyncio.run(notebooks.cells(RUN, stale, 0)) == fresh
    assert asyncio.run(notebooks.cells(RUN, 14, 0)) == Cells(next=14)


def test_the_gate_is_asked_each_time(tmp_path: Path) -> None:
    file = invited(tmp_path) / CELLS_FILE
    file.write_text("{}\n")
    asked: list[str] = []

    def look(order: SegmentOrder) -> None:
        asked.append(order.id)
        if len(asked) > 1:
            raise NotGranted({"uva": "withdrawn"})

    notebooks = notebooks_of(tmp_path, look=look)
    assert asyncio.run(notebooks.cells(RUN, 0, 0)).lines
    with pytest.raises(NotGranted):
        asyncio.run(notebooks.cells(RUN, 0, 0))
    asked.clear()
    with pytest.raises(NotGranted):  # also while he waits
        asyncio.run(notebooks.cells(RUN, 3, 60))


def test_what_a_notebook_writes_into_its_invitation_is_not_believed(tmp_path: Path) -> None:
    other = run_of("another", GRAPH.key)
    (invited(tmp_path, other) / CELLS_FILE).write_text("{}\n")
    with pytest.raises(UnknownJob):
        asyncio.run(notebooks_of(tmp_path).cells(other, 0, 0))


def test_long_ones_come_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataflow.participant.notebooks.PAGE_NBYTES", 10)
    lines = [f"{'é' * n}\n" for n in range(1, 30)]
    (invited(tmp_path) / CELLS_FILE).write_text("".join(lines))
    notebooks, found, since = notebooks_of(tmp_path), [], 0
    while page := asyncio.run(notebooks.cells(RUN, since, 0)).lines:
        found += page
        since += sum(len(line.encode()) for line in page)
    assert found == lines


def test_who_waits_hears_of_the_next(tmp_path: Path) -> None:
    file = invited(tmp_path) / CELLS_FILE

    async def story() -> Cells:
        waiting = asyncio.create_task(notebooks_of(tmp_path).cells(RUN, 0, 60))
        await asyncio.sleep(0)
        file.write_text("{}\n")
        return await waiting

    assert asyncio.run(story()).lines == ("{}\n",)


@pytest.mark.parametrize("run", ["", "..", "../../etc", RUN.upper(), "f" * 12 + "-" + "f" * 12])
def test_what_is_no_run_is_not_known(tmp_path: Path, run: str) -> None:
    invited(tmp_path)
    with pytest.raises(UnknownJob):
        notebooks_of(tmp_path).owner(run)


def test_an_invitation_is_for_its_account_alone(tmp_path: Path) -> None:
    ours = invited(tmp_path)
    assert all(not path.stat().st_mode & 0o077 for path in (ours, *ours.iterdir()))
    assert (ours / PYTHON_FILE).read_text().endswith("exec '/o'\\''hare/python' \"$@\"\n")
