"""What owners offer: each of them of his own data, and no results."""

from __future__ import annotations

from typing import Any

from dataflow.agreements import Agreement, Relation
from dataflow.catalog.snapshot import Snapshot
from dataflow.datasets import Dataset, Extent, Lineage, Replica
from dataflow.session.trying import offered

RELATION = Relation(
    id="study",
    users=("anna",),
    request_types=("mean",),
    datasets=("*",),
    archetypes=("fetch",),
)


def table(site: str, **fields: Any) -> Dataset:
    given: dict[str, Any] = {
        "id": f"id-{site}",
        "name": "wageGap",
        "key": "k",
        "kind": "table",
        "extent": Extent(nbytes=80),
        "site": site,
    }
    return Dataset(**{**given, **fields})


def test_the_same_data_of_two_owners_are_two_offers() -> None:
    made = Lineage(operation="mean", version="1", inputs=("k",), kind="opaque")
    copies = tuple(
        Replica(key="k", site=site, store="s", url="file:///w", format="parquet", nbytes=80)
        for site in ("uva", "vu", "surf")
    )
    snapshot = Snapshot(
        datasets=(
            table("uva"),
            table("vu"),
            table("uva", id="r", name="mean", key="r", lineage=made),
        ),
        replicas={"k": copies},
        agreements=tuple(
            Agreement(name="wages", site=site, relations=(RELATION,))
            for site in ("uva", "vu", "surf")
        ),
    )
    asked = [(one.site, one.dataset) for one in offered(snapshot, user="anna")]
    assert asked == [("uva", "wageGap"), ("vu", "wageGap")]
    assert [one.site for one in offered(snapshot, user="anna", site="vu")] == ["vu"]
    assert offered(snapshot, user="anna", site="surf") == []
    assert len(snapshot.search(name="wageGap")) == 1
