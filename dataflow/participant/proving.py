"""Proving: results that an owner gives out only after a second run came to the same."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dataflow.agreements import Archetype
from dataflow.datasets import Dataset
from dataflow.execution.events import SegmentOrder
from dataflow.policy.rights import Standing

#: Key of registered data → the sites where they are registered, with their records.
Homes = Callable[[str], Mapping[str, Sequence[Dataset]]]


def unproven(
    order: SegmentOrder,
    origins: Mapping[str, Collection[str]],
    homes: Homes,
    archetypes: Callable[[str], Mapping[str, Archetype]],
) -> tuple[str, ...]:
    """Keys of the steps whose results wait for a second run, by what they are made of."""
    asked = order.request.archetypes
    if not asked:
        return ()

    def twice(key: str) -> bool:
        chosen = ((site, asked.get(site, "")) for site in homes(key))
        return any(name and archetypes(site)[name].twice for site, name in chosen)

    made_of = {key for step in order.steps for key in origins[step.key]}
    waits = {key for key in made_of if twice(key)}
    return tuple(step.key for step in order.steps if waits & set(origins[step.key]))


def withheld(known: Sequence[Dataset], me: str, homes: Homes) -> str:
    """Why a result is not given out now; empty if nothing is in the way.

    It is enough that this site, or one that has the data, found both runs to be equal.
    """
    lineages = [(d.site, d.lineage) for d in known if d.lineage is not None]
    if not any(lineage.unproven for _, lineage in lineages):
        return ""
    trusted = {
        me,
        *(site for _, lineage in lineages for key in lineage.origins for site in homes(key)),
    }
    said = [x.reproduced for site, x in lineages if site in trusted and x.reproduced is not None]
    for one in said:
        if not one.equal:
            some = ", ".join(one.differs[:5])
            return f"it was not reproduced: the second run at {one.site!r} differs in {some}"
    return "" if said else "it is given out when a second run has come to the same"


def with_proofs(records: Sequence[Any], own: Callable[[str], Dataset | None]) -> list[Any]:
    """Records as they are published: what a second run came to is not forgotten.

    A result that is met again, under the same key, is the same.
    """
    return [_with_proof(one, own) if isinstance(one, Dataset) else one for one in records]


def _with_proof(record: Dataset, own: Callable[[str], Dataset | None]) -> Dataset:
    if record.lineage is None or record.lineage.reproduced is not None:
        return record
    known = own(record.id)
    told = known.lineage if known is not None and known.key == record.key else None
    if told is None or told.reproduced is None or told.job != record.lineage.job:
        return record
    return replace(record, lineage=replace(record.lineage, reproduced=told.reproduced))


def compares(sites: Sequence[str], found: Standing) -> bool:
    """Whether those who ask are sites that take part in the two runs, and no people."""
    home = found.dataset.site
    return bool(sites) and all(
        site == home or any(grant.allows_provider(site) for grant in found.grants) for site in sites
    )
