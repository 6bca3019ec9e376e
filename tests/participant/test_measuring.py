"""When a road is measured again."""

from __future__ import annotations

from dataclasses import replace

from dataflow.participant.measuring import LINK_VALID_SECONDS, measured_lately
from dataflow.sites import Link

MEASURED = Link(
    source="a", target="b", bandwidth=1e6, latency=0.01, origin="measured", measured_at=1000.0
)


def test_daily() -> None:
    assert not measured_lately(None, None, 1000.0)
    assert not measured_lately(replace(MEASURED, origin="timed"), None, 1000.0)
    assert measured_lately(MEASURED, None, 1000.0 + LINK_VALID_SECONDS)
    assert not measured_lately(MEASURED, None, 1001.0 + LINK_VALID_SECONDS)


def test_a_delay_that_changes_all_the_time_keeps_no_bandwidth_young() -> None:
    now = 1001.0 + LINK_VALID_SECONDS
    told_anew = replace(MEASURED, latency=0.02, measured_at=now)
    assert not measured_lately(told_anew, 1000.0, now)
    assert measured_lately(told_anew, now - 5.0, now)
