"""Offers: what a relation allows, and no hidden column."""

from __future__ import annotations

from typing import Any

from dataflow.agreements import Agreement, Relation
from dataflow.datasets import Dataset, Extent, Variable
from dataflow.policy.offers import offers

ARCHETYPES = ["computeToData", "dataThroughTtp", "fetch"]


def column(name: str) -> Variable:
    return Variable(name=name, dims=("row",), shape=(10,), dtype="int64", nbytes=80)


def table(name: str, site: str = "uva", **fields: Any) -> Dataset:
    extent = Extent(nbytes=160, variables=(column("Geslacht"), column("Unieknr")))
    return Dataset(
        id=f"id-{name}",
        name=name,
        key=f"key-{name}",
        kind="table",
        extent=extent,
        site=site,
        **fields,
    )


def relation(**fields: Any) -> Relation:
    shipped: dict[str, Any] = {
        "id": "study",
        "users": ("anna",),
        "request_types": ("sqlDataRequest",),
        "datasets": ("*",),
        "archetypes": ("computeToData", "fetch", "unheard"),
        "compute_providers": ("*",),
        "hidden": ("Unieknr",),
    }
    return Relation(**{**shipped, **fields})


def test_what_the_relation_allows_and_no_hidden_column() -> None:
    agreement = Agreement(
        name="wages",
        site="uva",
        relations=(
            relation(valid_until=100.0, forced={"sqlDataRequest": ("sql-anonymize",)}),
            relation(id="other", users=("bob",), hidden=()),
        ),
        archetypes=("computeToData", "dataThroughTtp"),
        compute_providers=("surf",),
    )
    wages, elsewhere = table("wageGap", owner="hr"), table("wageGap", site="vu")
    (offer,) = offers([agreement], [wages, elsewhere], "anna", 50.0, archetypes=ARCHETYPES)
    assert offer.id == "urn:dataflow:offer:uva:wages:study"
    assert offer.columns == ("Geslacht",)
    assert offer.archetypes == ("computeToData",)
    assert offer.compute_providers == ("surf",)
    assert offer.forced == ("sql-anonymize",)
    assert (offer.site, offer.dataset, offer.owner) == ("uva", "wageGap", "hr")
    assert offers([agreement], [wages], "anna", 100.0, archetypes=ARCHETYPES) == []
    assert offers([agreement], [wages], "eve", 50.0, archetypes=ARCHETYPES) == []
