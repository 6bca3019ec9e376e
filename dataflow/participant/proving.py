"""Proving: results that an owner gives out only after a second run came to the same."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dataflow.agreements import Archetype
from dataflow.catalog.entries import replica_id
from dataflow.catalog.records import Records
from dataflow.datasets import Dataset, Replica
from dataflow.errors import NotGranted
from dataflow.execution.clearing import area_of
from dataflow.execution.events import SegmentOrder
from dataflow.policy.rights import Standing

#: Key of registered data → the sites where they are registered, with their records.
Homes = Callable[[str], Mapping[str, Sequence[Dataset]]]

#: Why a result is not given out before it is proven.
WAITS = "it is given out when a second run has come to the same"


def unproven(
    order: SegmentOrder,
    origins: Mapping[str, Collection[str]],
    homes: Homes,
    archetypes: Callable[[str], Mapping[str, Archetype]],
    waiting: Mapping[str, str],
) -> tuple[str, ...]:
    """Keys of the steps whose results wait for a second run, by what they are made of.

    Parameters
    ----------
    waiting
        Inputs that are not given out now, with the reasons.

    Raises
    ------
    NotGranted
        If an archetype is not known, or if a result of what is not given out would be.
    """
    asked = order.request.archetypes

    def twice(key: str) -> bool:
        return any(wants(site) for site in homes(key))

    def wants(site: str) -> bool:
        name = asked.get(site, "")
        known = archetypes(site).get(name) if name else None
        if name and known is None:
            raise NotGranted({site: f"archetype {name!r} is not known"})
        return known is not None and known.twice

    made_of = {key for step in order.steps for key in origins[step.key]}
    waits = {key for key in made_of if twice(key)}
    found = [step.key for step in order.steps if waits & set(origins[step.key])]
    for step in order.steps:
        for key in step.inputs:
            if key in waiting and step.key not in found:
                raise NotGranted({order.site: f"{step.label} reads {key[:12]}: {waiting[key]}"})
    return tuple(found)


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
    return "" if said else WAITS


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


def compares(sites: Sequence[str], found: Standing, known: Sequence[Dataset]) -> bool:
    """Whether those who ask are sites that have made this result themselves, or its data's own.

    Parameters
    ----------
    known
        All records of the result.
    """
    return bool(sites) and all(
        site == found.dataset.site or (_may(site, found) and made_at(site, known)) for site in sites
    )


def made_at(site: str, known: Sequence[Dataset]) -> bool:
    """Whether a site says itself that it has made a result."""
    return any(d.site == site and d.lineage is not None and d.lineage.site == site for d in known)


def no_second(
    site: str, origins: Collection[str], standing: Callable[[str], Standing | None]
) -> str:
    """Why a site's run is no second run, to the owners of what it was made of; empty if it is."""
    for key in origins:
        found = standing(key)
        if found is None:
            continue
        if found.denial is not None:
            return found.denial.because
        if not _may(site, found):
            return f"{found.grants[0].clause}: {site!r} is no permitted compute provider"
    return ""


def _may(site: str, found: Standing) -> bool:
    return site == found.dataset.site or any(grant.allows_provider(site) for grant in found.grants)


def second_of(copy: Replica, records: Records) -> Replica | None:
    """What a site that ran a second time says itself of its result; ``None`` if it does not.

    A copy that was brought there, or a file that somebody registered there, is no result of its own.
    """
    site, key = copy.site, copy.key
    known: Replica | None = records.get("replica", replica_id(copy), site)
    if known is None or (known.key, known.site, known.url) != (key, site, copy.url):
        return None
    if not made_at(site, records.snapshot().with_key(key)):
        return None
    stores = [store for writer, store in records.written("store") if writer == store.site == site]
    return known if any(area_of(known, store) == "results" for store in stores) else None
