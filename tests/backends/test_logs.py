"""Logs of ended batch jobs do not pile up."""

from __future__ import annotations

import os
from pathlib import Path

from dataflow.backends.logs import tidy_logs


def test_the_newest_stay_and_those_of_jobs_that_run(tmp_path: Path) -> None:
    for number in range(10):
        log = tmp_path / f"flow-1234.o{number}"
        log.write_text("said")
        os.utime(log, (number, number))
    (tmp_path / "flow-12345.o1").write_text("of another site")
    (tmp_path / "notes").write_text("of somebody else")
    assert tidy_logs(tmp_path, "flow-1234", running=["1"], keep=3) == 6
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {
        *(f"flow-1234.o{number}" for number in (1, 7, 8, 9)),
        "flow-12345.o1",
        "notes",
    }
    assert tidy_logs(tmp_path / "nowhere", "flow-1234") == 0
