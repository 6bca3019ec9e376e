"""Holding: whether a site may keep a copy of what others own, now that agreements are as they are.

A copy that came when it was granted loses its right when nothing grants it any more. Rows stay where
somebody may still use them; results stay with whoever asked, unless their owners let them be kept
no longer than the job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dataflow.agreements import ANY, Agreement, Archetype
from dataflow.datasets import Dataset, Replica
from dataflow.policy.agreement import Denial, Grant, governing, holds_at, is_for, selects

#: A result that may not be kept is there for so long (s) after it was made and its job has ended.
TEMPORARY_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What decides about copies.

    Attributes
    ----------
    agreements, archetypes
        Of a site, by its name.
    steward
        Whether a site refuses what no agreement is about.
    known
        Key → the records of the data.
    over
        Whether a job has ended, by its id.
    time
        Seconds since the epoch.
    """

    agreements: Callable[[str], Sequence[Agreement]]
    archetypes: Callable[[str], Mapping[str, Archetype]]
    steward: Callable[[str], bool]
    known: Callable[[str], Sequence[Dataset]]
    over: Callable[[str], bool]
    time: float


def may_hold(dataset: Dataset, site: str, world: World, user: str | None = None) -> Denial | None:
    """Why a site may not keep rows of a registered dataset; ``None`` if it may.

    Without a user it is the dataset as it was registered, with the columns that are hidden.

    Parameters
    ----------
    user
        Whose request brought them there; ``None`` if anybody's would do.
    """
    about = governing(world.agreements(dataset.site), dataset)
    if not about:
        if not world.steward(dataset.site):
            return None
        return Denial("agreement", f"{dataset.site}: no agreement is about {dataset.name!r}")
    known = world.archetypes(dataset.site)
    for agreement in about:
        for relation in agreement.relations:
            if user is not None and not is_for(agreement, relation, user):
                continue
            if not selects(relation.datasets, dataset) or not holds_at(relation, world.time):
                continue
            whole = user is None
            if site == dataset.site or _lets_go(Grant(agreement, relation), site, known, whole):
                return None
    whose = "" if user is None else f" for {user!r}"
    text = f"{dataset.site}: nothing grants {site!r} to keep rows of {dataset.name!r}{whose}"
    return Denial("agreement", text)


def lost(replica: Replica, world: World, me: str) -> str:
    """Why a copy has to go; empty if it may stay.

    Parameters
    ----------
    me
        The site whose record it is: what is registered there is its own.
    """
    records = world.known(replica.key)
    registered = [dataset for dataset in records if dataset.lineage is None]
    if any(dataset.site == me for dataset in registered):
        return ""
    if registered:
        return _all_deny(may_hold(dataset, replica.site, world) for dataset in registered)
    reasons = [_result_lost(replica, dataset, world) for dataset in records]
    return reasons[0] if reasons and all(reasons) else ""


def _result_lost(replica: Replica, dataset: Dataset, world: World) -> str:
    """Why a result that one user asked for has to go."""
    lineage = dataset.lineage
    assert lineage is not None
    for key in lineage.rows:
        homes = [record for record in world.known(key) if record.lineage is None]
        because = _all_deny(may_hold(h, replica.site, world, dataset.owner) for h in homes)
        if because:
            return because
    if lineage.temporary:
        for key in lineage.origins:
            homes = [record for record in world.known(key) if record.lineage is None]
            because = _all_deny(may_hold(h, h.site, world, dataset.owner) for h in homes)
            if because:
                return because
        if world.time - dataset.created > TEMPORARY_SECONDS and world.over(lineage.job):
            return "its owner does not let it be kept after the job"
    return ""


def _all_deny(said: Iterable[Denial | None]) -> str:
    """The first reason, if everybody has one."""
    answers = list(said)
    denials = [denial for denial in answers if denial is not None]
    return denials[0].because if denials and len(denials) == len(answers) else ""


def _lets_go(grant: Grant, site: str, known: Mapping[str, Archetype], whole: bool) -> bool:
    if whole and (grant.relation.hidden or grant.relation.forced.get(ANY)):
        return False
    allowed = [known[name] for name in grant.archetypes(known)]
    if any(archetype.computes == "requester" for archetype in allowed):
        return True
    others = any(archetype.computes == "other" or archetype.twice for archetype in allowed)
    return others and grant.allows_provider(site)
