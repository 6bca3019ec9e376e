"""Which copies lose their right when agreements change."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow.agreements import Agreement, Derived
from dataflow.datasets import Dataset, Extent, Lineage, Replica
from dataflow.policy.archetype import SHIPPED
from dataflow.policy.holding import TEMPORARY_SECONDS, World, lost, may_hold
from tests.policy.examples import ANNA, agreement, relation, wages

SOURCE = wages("vu")


def world(*agreements: Agreement, results: tuple[Dataset, ...] = (), **fields: Any) -> World:
    records = [SOURCE, *results]
    shipped: dict[str, Any] = {
        "agreements": lambda site: [a for a in agreements if a.site == site],
        "archetypes": lambda site: SHIPPED,
        "steward": lambda site: site == "vu",
        "known": lambda key: [d for d in records if d.key == key],
        "over": lambda job: True,
        "time": 1000.0,
    }
    return World(**{**shipped, **fields})


def result(key: str = "r", owner: str = ANNA, **lineage: Any) -> Dataset:
    shipped: dict[str, Any] = {"operation": "query", "version": "1", "kind": "opaque"}
    shipped |= {"inputs": (SOURCE.key,), "origins": (SOURCE.key,), "job": "j"}
    return Dataset(
        id=key,
        name=key,
        key=key,
        kind="table",
        extent=Extent(nbytes=1),
        site="vu",
        owner=owner,
        lineage=Lineage(**{**shipped, **lineage}),
        created=900.0,
    )


def copy(key: str, site: str) -> Replica:
    url = f"file:///{site}/{key}"
    return Replica(key=key, site=site, store="results", url=url, format="zarr", nbytes=1)


ROWS = result(rows={SOURCE.key: 0})


@pytest.mark.parametrize(
    ("fields", "surf", "elsewhere"),
    [
        ({}, True, False),
        ({"compute_providers": ()}, False, False),
        ({"archetypes": ("computeToData",)}, False, False),
        ({"archetypes": ("fetch",)}, True, True),
        ({"hidden": ("name",), "archetypes": ("fetch",)}, False, False),
        ({"datasets": ("other",)}, False, False),
        ({"valid_until": 1000.0}, False, False),
        ({"valid_until": 1000.5}, True, False),
        ({"users": ("eve",)}, True, False),
    ],
)
def test_registered_rows_lie_where_somebody_may_use_them(
    fields: dict[str, Any], surf: bool, elsewhere: bool
) -> None:
    shipped = {"archetypes": ("computeToData", "dataThroughTtp", "fetch"), **fields}
    if "archetypes" not in fields and "hidden" not in fields:
        shipped["archetypes"] = ("computeToData", "dataThroughTtp")
    now = world(agreement("vu", relation(**shipped), archetypes=("*",)))
    assert (lost(copy(SOURCE.key, "surf"), now, "surf") == "") == surf
    assert (lost(copy(SOURCE.key, "desk"), now, "desk") == "") == elsewhere
    assert lost(copy(SOURCE.key, "vu"), now, "vu") == "", "an owner keeps his own"


def test_rows_of_a_result_stay_as_long_as_its_user_is_granted_them() -> None:
    fine = world(agreement("vu", relation()), results=(ROWS,))
    assert [lost(copy("r", site), fine, site) for site in ("vu", "surf")] == ["", ""]
    others = world(agreement("vu", relation(users=("eve",))), results=(ROWS,))
    for site in ("vu", "surf"):
        assert "nothing grants" in lost(copy("r", site), others, site)
    both = (ROWS, result(owner="eve", rows={SOURCE.key: 0}))
    shared = world(agreement("vu", relation(users=("eve",))), results=both)
    assert lost(copy("r", "surf"), shared, "surf") == "", "another user may still use them"


def test_a_result_without_rows_stays_unless_it_is_temporary() -> None:
    gone = agreement("vu")
    assert lost(copy("r", "surf"), world(gone, results=(result(),)), "surf") == ""
    temporary = result(temporary=True)
    assert "nothing grants" in lost(copy("r", "surf"), world(gone, results=(temporary,)), "surf")
    granted = agreement("vu", relation(derived=Derived(keep=False)))
    late = {"time": 900.0 + TEMPORARY_SECONDS + 1}
    assert lost(copy("r", "vu"), world(granted, results=(temporary,)), "vu") == ""
    running = world(granted, results=(temporary,), over=lambda job: False, **late)
    assert lost(copy("r", "vu"), running, "vu") == ""
    after = world(granted, results=(temporary,), **late)
    assert "after the job" in lost(copy("r", "vu"), after, "vu")


def test_what_nobody_minds_stays() -> None:
    unknown = copy("nobody knows", "surf")
    assert lost(unknown, world(), "surf") == ""
    free = world(steward=lambda site: False)
    assert may_hold(SOURCE, "surf", free) is None
    closed = may_hold(SOURCE, "surf", world())
    assert closed is not None
    assert "no agreement is about" in closed.because
