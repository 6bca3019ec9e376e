"""What orders have come to, as figures."""

from __future__ import annotations

import pytest

from dataflow.datasets import Dataset, Extent, Replica
from dataflow.execution.events import Broke, Crossed, Ended, Progress, Stored, TransferOrder
from dataflow.execution.tally import Tally

REPLICA = Replica(key="k", site="uva", store="s", url="file:///k", format="zarr", nbytes=8)


@pytest.fixture
def order() -> TransferOrder:
    return TransferOrder(id="o1", job="j", site="uva", key="k", replica=REPLICA)


def values(tally: Tally) -> dict[tuple[str, ...], float]:
    return {(one.name, *map(str, one.labels.values())): one.value for one in tally.figures()}


def test_sums(order: TransferOrder) -> None:
    tally = Tally()
    for end in (Ended(seconds=2), Broke(error={"kind": "job", "args": []}, fault="site")):
        tally.began(order)
        assert values(tally)["dataflow_orders_running", "transfer"] == 1
        tally.told(order, Progress(done=1, total=2))
        tally.told(order, Crossed(key="k", source="amc", target="uva", nbytes=8, seconds=1))
        tally.told(order, end)
    dataset = Dataset(id="d", site="uva", key="k", name="k", kind="array", extent=Extent(nbytes=8))
    tally.told(order, Stored(key="k", replica=REPLICA, dataset=dataset, seconds=3))
    tally.told(order, Stored(key="k", replica=REPLICA, dataset=dataset, seconds=5, reused=True))
    assert values(tally) == {
        ("dataflow_orders_running", "transfer"): 0,
        ("dataflow_orders_ended", "transfer", "done"): 1,
        ("dataflow_orders_ended", "transfer", "site"): 1,
        ("dataflow_link_received_bytes", "amc", "uva"): 16,
        ("dataflow_operation_seconds", "copy"): 3,
        ("dataflow_outputs", "copy", "false"): 1,
        ("dataflow_outputs", "copy", "true"): 1,
    }
