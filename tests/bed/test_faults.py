"""Some cells of the fault matrix: real sites, real jobs, one reader who looks all the time.

`make faults ARGS=--quick` runs the whole diagonal, and `make faults` the matrix.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow.testing.bed import Bed
from dataflow.testing.faults.cells import QUICK
from dataflow.testing.faults.matrix import tried
from dataflow.testing.faults.table import table

#: An agent, and a store.
CELLS = QUICK[3::3]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the reader's own libraries
def test_parts_may_fail_in_some_phase(bed: Bed, tmp_path: Path) -> None:
    found = list(tried(bed, CELLS, tmp_path / "faults"))
    print(table(CELLS, found))
    assert {seen.cell for seen in found} == set(CELLS)
    assert [f"{seen.cell.name}: {text}" for seen in found for text in seen.wrong] == []
    assert all(seen.looks for seen in found)
