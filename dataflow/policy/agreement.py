"""Agreements, read: whether an owner grants something, and because of which clause.

One relation has to grant everything that is asked: user, request type, dataset, purpose, moment,
archetype and compute provider. Two relations that grant a half each grant nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from dataflow.agreements import ANY, Agreement, Relation
from dataflow.datasets import Dataset

_TAG = "tag:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What somebody asks of an owner: everything that an agreement speaks about but the place.

    ``time`` is in seconds since the epoch. Where ``type`` or ``purpose`` is ``None``, any will do.
    """

    user: str
    type: str | None = ""
    purpose: str | None = ""
    time: float = 0.0


@dataclass(frozen=True, slots=True)
class Grant:
    """A relation that holds for what was asked, and how the data may be used by it."""

    agreement: Agreement
    relation: Relation

    @property
    def clause(self) -> str:
        """Where it stands: site, agreement, relation."""
        return clause(self.agreement, self.relation)

    def archetypes(self, known: Collection[str]) -> frozenset[str]:
        """Those of ``known`` that relation and agreement both allow."""
        both = self.relation.archetypes, self.agreement.archetypes
        return frozenset(name for name in known if all(_has(words, name) for words in both))

    def allows_provider(self, site: str) -> bool:
        """Whether a site may be the third party."""
        own, most = self.relation.compute_providers, self.agreement.compute_providers
        return _has(own, site) and _has(most, site)

    def providers(self, sites: Iterable[str]) -> list[str]:
        """Those of ``sites`` that may be the third party."""
        return [site for site in sites if self.allows_provider(site)]

    def forced(self, type: str | None) -> tuple[str, ...]:
        """Services that have to come first in a request of this type."""
        found = self.relation.forced
        return tuple(dict.fromkeys((*found.get(ANY, ()), *found.get(type or "", ()))))


@dataclass(frozen=True, slots=True)
class Denial:
    """Why nothing is granted: the rule that said no, and its clause in words."""

    rule: str
    because: str


#: Rules in the order in which they are asked; of several relations the one that came furthest is
#: the one that explains.
_ORDER = ("user", "request type", "dataset", "purpose", "time")


def governing(agreements: Sequence[Agreement], dataset: Dataset) -> list[Agreement]:
    """Agreements of the dataset's own site that are about it."""
    return [
        agreement
        for agreement in agreements
        if agreement.site == dataset.site
        and agreement.owner in ("", dataset.owner)
        and selects(agreement.covers, dataset)
    ]


def grants(
    agreements: Sequence[Agreement], dataset: Dataset, asked: Asked
) -> tuple[list[Grant], Denial | None]:
    """All relations that hold for what is asked; if there is none, the reason.

    Parameters
    ----------
    agreements
        Those that govern the dataset; see :func:`governing`.
    """
    found: list[Grant] = []
    furthest: tuple[int, Agreement, Relation] | None = None
    for agreement in agreements:
        for relation in agreement.relations:
            came = _how_far(agreement, relation, dataset, asked)
            if came == len(_ORDER):
                found.append(Grant(agreement, relation))
            elif came and (furthest is None or came > furthest[0]):
                furthest = came, agreement, relation
    if found:
        return found, None
    return [], _denial(agreements, dataset, asked, furthest)


def _how_far(agreement: Agreement, relation: Relation, dataset: Dataset, asked: Asked) -> int:
    if not is_for(agreement, relation, asked.user):
        return 0
    if asked.type is not None and not _has(relation.request_types, asked.type):
        return 1
    if not selects(relation.datasets, dataset):
        return 2
    if asked.purpose is not None and not _has(relation.purposes, asked.purpose):
        return 3
    return 5 if holds_at(relation, asked.time) else 4


def _denial(
    agreements: Sequence[Agreement],
    dataset: Dataset,
    asked: Asked,
    furthest: tuple[int, Agreement, Relation] | None,
) -> Denial:
    if not agreements:
        return Denial("agreement", f"{dataset.site}: no agreement is about {dataset.name!r}")
    if furthest is None:
        names = ", ".join(repr(agreement.name) for agreement in agreements)
        text = f"{dataset.site}: agreement {names} has no relation for user {asked.user!r}"
        return Denial("user", text)
    came, agreement, relation = furthest
    here, rule = clause(agreement, relation), _ORDER[came]
    if rule == "request type":
        allowed = _listed(relation.request_types)
        return Denial(rule, f"{here}: request type {asked.type!r} is not among {allowed}")
    if rule == "dataset":
        return Denial(rule, f"{here}: {dataset.name!r} is not among {_listed(relation.datasets)}")
    if rule == "purpose":
        return Denial(
            rule, f"{here}: purpose {asked.purpose!r} is not among {_listed(relation.purposes)}"
        )
    early = relation.valid_from is not None and asked.time < relation.valid_from
    return Denial(rule, f"{here}: {'not valid yet' if early else 'no longer valid'}")


def selects(words: Sequence[str], dataset: Dataset) -> bool:
    """Whether words for data (name, id, key, ``tag:…``) mean a dataset.

    Only the tags that the dataset's owner gave count: everybody may add more.
    """
    for word in words:
        if word in (ANY, dataset.name, dataset.id, dataset.key):
            return True
        if word.startswith(_TAG):
            name, equals, value = word.removeprefix(_TAG).partition("=")
            if name in dataset.tags and (not equals or dataset.tags[name] == value):
                return True
    return False


def members(agreement: Agreement, relation: Relation) -> frozenset[str]:
    """All users that a relation is for, those of its groups included."""
    listed = [user for group in relation.groups for user in agreement.groups.get(group, ())]
    return frozenset((*relation.users, *listed))


def as_seen_by(agreement: Agreement, user: str) -> Agreement:
    """What a user may know of an agreement: the relations that are for him, and no other names."""
    seen = []
    for relation in agreement.relations:
        if not is_for(agreement, relation, user):
            continue
        whom = (ANY,) if ANY in members(agreement, relation) else (user,)
        seen.append(replace(relation, users=whom, groups=()))
    return replace(agreement, relations=tuple(seen), groups={}, seed="")


def clause(agreement: Agreement, relation: Relation) -> str:
    """Where something stands, for people."""
    return f"{agreement.site}: agreement {agreement.name!r}, relation {relation.id!r}"


def is_for(agreement: Agreement, relation: Relation, user: str) -> bool:
    """Whether a relation is for a user; it is for nobody without a name."""
    return bool(user) and not members(agreement, relation).isdisjoint((user, ANY))


def holds_at(relation: Relation, time: float) -> bool:
    """Whether a relation is valid at a moment (seconds since the epoch)."""
    begun = relation.valid_from is None or time >= relation.valid_from
    return begun and (relation.valid_until is None or time < relation.valid_until)


def outlives(agreements: Sequence[Agreement], dataset: Dataset, result: Dataset, user: str) -> bool:
    """Whether a relation let a user have a result of this dataset for longer than it holds itself."""
    moment = entered_at(result, dataset.key)
    return result.owner == user and any(
        relation.derived.outlive
        and is_for(agreement, relation, user)
        and selects(relation.datasets, dataset)
        and holds_at(relation, moment)
        for agreement in governing(agreements, dataset)
        for relation in agreement.relations
    )


def entered_at(result: Dataset, key: str) -> float:
    """When a result, or what it was made of, was made of registered data themselves at the latest."""
    return result.lineage.entered.get(key, result.created) if result.lineage else result.created


def _has(words: Collection[str], word: str) -> bool:
    return ANY in words or word in words


def _listed(words: Collection[str]) -> str:
    return ", ".join(words) or "nothing"
