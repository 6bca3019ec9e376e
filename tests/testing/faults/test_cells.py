"""The matrix says of every cell whether it makes sense, and when its end is due."""

from __future__ import annotations

import pytest

from dataflow.config.backend_records import Sge
from dataflow.config.records import Federation
from dataflow.testing.faults import cells
from dataflow.testing.faults.cells import KINDS, PARTS, PHASES, QUICK, Cell, chosen
from dataflow.testing.faults.table import counted, line_of, table
from dataflow.testing.faults.trial import Seen


def test_the_whole_matrix_and_its_parts() -> None:
    whole = chosen([])
    assert len(whole) == len(set(whole)) == len(PARTS) * len(KINDS) * len(PHASES) == 160
    assert {cell.part for cell in chosen(["agent"])} == {"agent"}
    assert [cell.name for cell in chosen(["hang:s3:writing"])] == ["s3:hang:writing"]
    assert chosen(["s3", "s3:hang"]) == chosen(["s3"])
    with pytest.raises(ValueError, match="'sshh'"):
        chosen(["sshh"])


def test_the_diagonal_has_every_part_kind_and_phase() -> None:
    assert {cell.part for cell in QUICK} == set(PARTS)
    assert {cell.kind for cell in QUICK} == set(KINDS)
    assert {cell.phase for cell in QUICK} == set(PHASES)
    assert not any(cell.senseless for cell in QUICK)


def test_what_is_knowable_follows_the_product() -> None:
    assert Federation.__dataclass_fields__["lost_after"].default == cells.SILENCE
    assert Sge().silence == cells.BATCH_SILENCE
    assert Cell("worker", "kill", "running").knowable == 0


def test_the_table_hides_nothing() -> None:
    row = chosen(["worker:kill"])
    right = Seen(Cell("worker", "kill", "running"), end="right", seconds=4.2, looks=9)
    wrong = Seen(
        Cell("worker", "kill", "writing"), end="right", seconds=3.0, wrong=["doubled: two of them"]
    )
    text = table(row, [right, wrong])
    assert "right 4 s" in text
    assert "! right 3 s" in text
    assert "! worker:kill:writing: doubled: two of them" in text
    assert "not tried" in text  # committing
    assert "worker, planning: no worker lives" in text
    said = counted(row, [right, wrong])
    assert said.startswith("1 of 2 cells hold (2 ended right), 2 make no sense; 0 lost, 1 doubled")
    assert line_of(wrong)["holds"] is False
