"""The agreements of DYNAMOS's own example: two universities, one third party."""

from __future__ import annotations

from typing import Any

from dataflow.agreements import Agreement, Relation
from dataflow.datasets import Dataset, Extent

ANNA = "anna@example.org"
BOTH = ("computeToData", "dataThroughTtp")


def relation(**fields: Any) -> Relation:
    """The relation that both universities have, with changes."""
    shipped: dict[str, Any] = {
        "id": "GUID",
        "users": (ANNA,),
        "request_types": ("sqlDataRequest", "genericRequest"),
        "datasets": ("wageGap",),
        "archetypes": BOTH,
        "compute_providers": ("surf",),
    }
    return Relation(**{**shipped, **fields})


def agreement(site: str, *relations: Relation, **fields: Any) -> Agreement:
    """A university's agreement, with changes."""
    shipped: dict[str, Any] = {
        "archetypes": (*BOTH, "reproducibleScience"),
        "compute_providers": ("surf", "otherCompany"),
    }
    return Agreement(name="wages", site=site, relations=relations, **{**shipped, **fields})


def wages(site: str, name: str = "wageGap", **fields: Any) -> Dataset:
    """The university's dataset."""
    extent = fields.pop("extent", Extent(nbytes=1_000_000))
    return Dataset(
        id=f"{site}-{name}",
        name=name,
        key=f"key-{site}-{name}",
        kind="table",
        extent=extent,
        site=site,
        **fields,
    )
