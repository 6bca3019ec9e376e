"""Offers: what owners' agreements let one user do with which data, as a catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dataflow.agreements import Agreement
from dataflow.datasets import Dataset
from dataflow.policy.agreement import Asked, Grant, governing, grants


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One relation that is for a user, about one dataset.

    Attributes
    ----------
    id
        ``urn:dataflow:offer:site:agreement:relation``.
    dataset, dataset_id, owner
        Which data, and whose.
    columns
        Names of variables or columns, without those that the relation hides; empty if unknown.
    request_types, purposes
        For what; ``"*"`` is everything.
    archetypes, compute_providers
        How, and by which third parties, as relation and agreement both allow.
    forced
        Services that come first, by request type.
    valid_until
        Seconds since the epoch.
    """

    id: str
    site: str
    dataset: str
    dataset_id: str
    owner: str
    columns: tuple[str, ...]
    request_types: tuple[str, ...]
    purposes: tuple[str, ...]
    archetypes: tuple[str, ...]
    compute_providers: tuple[str, ...]
    forced: tuple[str, ...]
    valid_until: float | None


def offers(
    agreements: Sequence[Agreement],
    datasets: Iterable[Dataset],
    user: str,
    time: float,
    *,
    archetypes: Sequence[str],
) -> list[Offer]:
    """What ``user`` may ask for at a moment, sorted by site, dataset and relation.

    Parameters
    ----------
    archetypes
        Names of those that exist; words that no archetype has grant nothing.
    """
    asked = Asked(user=user, type=None, purpose=None, time=time)
    found = [
        _offer(grant, dataset, archetypes)
        for dataset in datasets
        for grant in grants(governing(agreements, dataset), dataset, asked)[0]
    ]
    return sorted(found, key=lambda offer: (offer.site, offer.dataset, offer.id))


def _offer(grant: Grant, dataset: Dataset, known: Sequence[str]) -> Offer:
    agreement, relation = grant.agreement, grant.relation
    possible = grant.archetypes(known)
    third = (*relation.compute_providers, *agreement.compute_providers)
    return Offer(
        id=f"urn:dataflow:offer:{agreement.site}:{agreement.name}:{relation.id}",
        site=dataset.site,
        dataset=dataset.name,
        dataset_id=dataset.id,
        owner=dataset.owner,
        columns=tuple(
            one.name for one in dataset.extent.variables if one.name not in relation.hidden
        ),
        request_types=relation.request_types,
        purposes=relation.purposes,
        archetypes=tuple(name for name in known if name in possible),
        compute_providers=tuple(dict.fromkeys(filter(grant.allows_provider, third))),
        forced=tuple(dict.fromkeys(name for names in relation.forced.values() for name in names)),
        valid_until=relation.valid_until,
    )
