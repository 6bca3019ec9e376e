"""What came of cells is kept, and read again by a run that goes on."""

from __future__ import annotations

from pathlib import Path

from dataflow.testing.faults.cells import Cell, chosen
from dataflow.testing.faults.matrix import Results
from dataflow.testing.faults.table import markdown
from dataflow.testing.faults.trial import Seen

CELL = Cell("s3", "cut", "writing")


def test_the_last_line_of_a_cell_counts(tmp_path: Path) -> None:
    results = Results(tmp_path / "build" / "faults.jsonl")
    assert results.read() == {}
    results.add(Seen(CELL, wrong=["lost: a result"], looks=3, tried_at=5.0))
    other = Seen(Cell("agent", "hang", "running"), end="right", seconds=9.5, took=44.0, tried_at=6)
    results.add(other)
    assert not results.read()[CELL].holds
    results.add(Seen(CELL, end="site-unreachable", seconds=40.0, text="gone", tried_at=7.0))
    with results.path.open("a") as file:
        file.write('{"figure": "agent:hang:running", "end": "rig')  # broken off
    found = results.read()
    assert found[CELL].holds
    assert found[CELL].text == "gone"
    assert found[other.cell] == other


def test_a_page_says_what_does_not_hold() -> None:
    cells = chosen(["s3"])
    text = markdown(cells, [Seen(CELL, end="right", seconds=3.2, wrong=["lost: a result"])])
    assert "| S3 | cut | - | not tried | not tried | ! right 3 s | not tried |" in text
    assert "- `s3:cut:writing`: lost: a result" in text
    assert "planning reads the catalog and no store" in text


def test_workers_are_kept_where_nothing_of_theirs_is_hurt() -> None:
    assert {cell.part for cell in chosen([]) if cell.warm} == {
        "coordinator",
        "kernel",
        "sshd",
        "s3",
    }
