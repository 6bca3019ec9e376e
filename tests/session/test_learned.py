"""What runs teach the next plan, through the whole house: journal, catalog, measurements, plan."""

from __future__ import annotations

import time
from typing import Any

import dataflow as flow


@flow.operation(kind="opaque", output=100)
def slowly(x: Any, *, number: int) -> Any:
    time.sleep(0.3)
    return x[:10] + number


def test_three_runs_teach_the_next_plan(session: flow.Session) -> None:
    run = session["run"]
    before = session.plan(slowly(run, number=0))
    assert before.seconds < 0.3
    assert any("never ran" in note for note in before.notes)
    for number in range(3):
        assert session.submit(slowly(run, number=number)).wait(120) == "done"
    after = session.plan(slowly(run, number=9))
    assert not any("never ran" in note for note in after.notes)
    assert after.likely is not None
    assert 0.3 <= after.seconds <= after.likely.seconds[1]
    sure = session.plan(slowly(run, number=9), quantile=0.9)
    assert sure.seconds >= after.seconds
    assert sure.options["quantile"] == 0.9
    again = session.plan_again(sure, pinned={})
    assert again.seconds == sure.seconds
