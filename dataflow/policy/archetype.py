"""Archetypes: which one a request is served under, who plays which role in it, and why.

The choice goes through these, one after the other: what all owners allow, what is possible within
the user's scope, what the user asked for, the load rule or the predicted cost, weight, name. What
an owner forbids is never chosen; if nothing is left, the refusal says who allows what.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dataflow.agreements import Archetype
from dataflow.errors import NotGranted

#: Archetypes that every site knows; a site file adds others.
SHIPPED: Mapping[str, Archetype] = {
    archetype.name: archetype
    for archetype in (
        Archetype(name="computeToData", computes="provider", weight=100),
        Archetype(name="dataThroughTtp", computes="other", weight=200),
        Archetype(name="reproducibleScience", computes="provider", weight=300, twice=True),
        Archetype(name="fetch", computes="requester", weight=400),
    )
}

#: From this share of CPU or memory on, a site counts as loaded, unless it says otherwise.
THRESHOLD = 0.8

Role = Literal["all", "dataProvider", "computeProvider"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Shares of a site's CPU and memory in use, from 0 to 1, and its own threshold.

    A site is loaded if either is at the threshold or above it.
    """

    cpu: float = 0.0
    memory: float = 0.0
    threshold: float = THRESHOLD

    @property
    def loaded(self) -> bool:
        return max(self.cpu, self.memory) >= self.threshold


@dataclass(frozen=True, slots=True)
class Considered:
    """An archetype that was looked at: whether it was chosen, and because of what."""

    name: str
    chosen: bool
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Site that has data → its archetype; and all that were considered, best first."""

    archetypes: Mapping[str, str]
    considered: tuple[Considered, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user said of the archetype.

    Attributes
    ----------
    archetype
        This one and no other; empty for any.
    aggregate
        Whether one answer over all owners is wanted; ``None`` if nothing was said. True needs an
        archetype in which somebody may see the rows of all, false prefers that nobody does.
    mixed
        Owners may be served under different archetypes in one request.
    """

    archetype: str = ""
    aggregate: bool | None = None
    mixed: bool = False


def prefers_other(provider: Load, other: Load, *, aggregate: bool) -> bool:
    """The load rule: whether a third party should compute rather than who has the data.

    Examples
    --------
    >>> busy, idle = Load(cpu=0.9), Load(cpu=0.1)
    >>> prefers_other(busy, idle, aggregate=False)
    True
    >>> prefers_other(idle, idle, aggregate=False)
    False
    """
    return (provider.loaded or aggregate) and not other.loaded


def choose(
    allowed: Mapping[str, Collection[str]],
    known: Mapping[str, Archetype],
    *,
    wish: Wish = Wish(),
    impossible: Mapping[str, str] | None = None,
    loads: Mapping[str, Load] | None = None,
    others: Sequence[str] = (),
    costs: Mapping[str, float] | None = None,
) -> Choice:
    """The archetype for every site that has data of the request.

    Parameters
    ----------
    allowed
        Site → names of the archetypes that its agreement allows for this request.
    known
        Definitions by name.
    impossible
        Name → why there is no way to do it: the scope, or nobody there who could compute.
    loads
        Site → its load; sites that are not there count as idle. Without any the load decides
        nothing.
    others
        Third parties that could compute.
    costs
        Name → predicted seconds; where there are some, they decide in place of the load.

    Raises
    ------
    NotGranted
        If no archetype is left that all allow; it names who allows what.
    """
    names = sorted({name for words in allowed.values() for name in words} & set(known))
    reasons: dict[str, str] = {}
    for name in names:
        refuse = _refusal(name, allowed, known, wish, impossible or {})
        if refuse:
            reasons[name] = refuse
    ranked = _ranked(names, known, wish, loads, others, allowed, costs)
    usable = [name for name in ranked if name not in reasons]
    if usable:
        best = usable[0]
        because = _why(best, usable, known, wish, loads, others, allowed, costs)
        found = dict.fromkeys(allowed, best)
        return Choice(archetypes=found, considered=_all(ranked, {best}, because, usable, reasons))
    if wish.mixed:
        each = {
            site: choose(
                {site: words},
                known,
                wish=Wish(archetype=wish.archetype),
                impossible=impossible,
                loads=loads,
                others=others,
                costs=costs,
            ).archetypes[site]
            for site, words in allowed.items()
        }
        text = "mixed archetypes were asked for: each owner's best"
        chosen = set(each.values())
        return Choice(archetypes=each, considered=_all(ranked, chosen, text, [], reasons))
    raise NotGranted(_who_allows_what(allowed, known, reasons, wish))


def third_parties(
    allowed: Mapping[str, Collection[str]], away: Collection[str]
) -> tuple[list[str], str]:
    """Sites that every owner permits as third party and that answer, by name; else the reason.

    Parameters
    ----------
    allowed
        Site that has data → sites that its agreement permits.
    away
        Sites that do not answer.
    """
    common = set.intersection(*(set(sites) for sites in allowed.values())) if allowed else set()
    if not common:
        said = "; ".join(f"{site} permits {_list(sites)}" for site, sites in allowed.items())
        return [], f"no third party is permitted by all: {said}"
    there = sorted(common - set(away))
    if not there:
        return [], f"third party {_list(common)} does not answer"
    return there, ""


def roles(archetype: Archetype, providers: Sequence[str], other: str = "") -> dict[str, Role]:
    """Site → the role it plays; whom the user addresses are those that compute.

    Examples
    --------
    >>> roles(SHIPPED["dataThroughTtp"], ["vu", "uva"], "surf")
    {'vu': 'dataProvider', 'uva': 'dataProvider', 'surf': 'computeProvider'}
    """
    if archetype.computes == "provider":
        return dict.fromkeys(providers, "all")
    found: dict[str, Role] = dict.fromkeys(providers, "dataProvider")
    if other:
        found[other] = "computeProvider"
    return found


def addressed(roles: Mapping[str, Role]) -> list[str]:
    """Sites that the user's request goes to, and whose answers come back."""
    return [site for site, role in roles.items() if role != "dataProvider"]


def _refusal(
    name: str,
    allowed: Mapping[str, Collection[str]],
    known: Mapping[str, Archetype],
    wish: Wish,
    impossible: Mapping[str, str],
) -> str:
    against = [site for site, words in allowed.items() if name not in words]
    if against:
        return f"{_list(against)} does not allow it"
    if name in impossible:
        return impossible[name]
    if wish.archetype and name != wish.archetype:
        return f"{wish.archetype} was asked for"
    if wish.aggregate and len(allowed) > 1 and known[name].computes == "provider":
        return "one answer over all owners was asked for, and here each computes its own"
    return ""


def _ranked(
    names: Sequence[str],
    known: Mapping[str, Archetype],
    wish: Wish,
    loads: Mapping[str, Load] | None,
    others: Sequence[str],
    allowed: Mapping[str, Collection[str]],
    costs: Mapping[str, float] | None,
) -> list[str]:
    first = _preferred(wish, loads, others, allowed)

    def rank(name: str) -> tuple[bool, bool, float, int, str]:
        computes = known[name].computes
        apart = wish.aggregate is False and len(allowed) > 1 and computes != "provider"
        cost = (costs or {}).get(name, float("inf") if costs else 0.0)
        by_load = not costs and first is not None and computes != first
        return (apart, by_load, cost, known[name].weight, name)

    return sorted(names, key=rank)


def _preferred(
    wish: Wish,
    loads: Mapping[str, Load] | None,
    others: Sequence[str],
    allowed: Mapping[str, Collection[str]],
) -> str | None:
    """Who should compute by the load rule; the fullest provider and the idlest other count."""
    if not loads:
        return None
    idle = Load()
    own = [loads.get(site, idle) for site in allowed]
    theirs = [loads.get(site, idle) for site in others]
    provider = next((load for load in own if load.loaded), idle)
    other = next((load for load in theirs if not load.loaded), Load(cpu=1.0))
    better = prefers_other(provider, other, aggregate=bool(wish.aggregate))
    return "other" if better else "provider"


def _why(
    best: str,
    usable: Sequence[str],
    known: Mapping[str, Archetype],
    wish: Wish,
    loads: Mapping[str, Load] | None,
    others: Sequence[str],
    allowed: Mapping[str, Collection[str]],
    costs: Mapping[str, float] | None,
) -> str:
    if wish.archetype:
        return "it was asked for"
    if len(usable) == 1:
        return "nothing else is left"
    if costs:
        return f"its predicted cost, {costs.get(best, 0.0):.3g} s, is the lowest"
    if wish.aggregate is False and len(allowed) > 1 and known[best].computes == "provider":
        return "answers apart were asked for"
    if _preferred(wish, loads, others, allowed) == known[best].computes:
        return "the load rule prefers it"
    return f"its weight, {known[best].weight}, is the lowest"


def _all(
    ranked: Sequence[str],
    chosen: Collection[str],
    because: str,
    usable: Sequence[str],
    reasons: Mapping[str, str],
) -> tuple[Considered, ...]:
    found = [Considered(name, True, because) for name in ranked if name in chosen]
    for name in ranked:
        if name not in chosen:
            better = f"{_list(chosen)} comes first" if name in usable else reasons[name]
            found.append(Considered(name, False, better))
    return tuple(found)


def _who_allows_what(
    allowed: Mapping[str, Collection[str]],
    known: Mapping[str, Archetype],
    reasons: Mapping[str, str],
    wish: Wish,
) -> dict[str, str]:
    found = {}
    for site, words in allowed.items():
        text = f"allows {_list(set(words) & set(known))}"
        theirs = [f"{name}: {reasons[name]}" for name in sorted(words) if name in reasons]
        found[site] = text + (f" ({'; '.join(theirs)})" if theirs else "")
    if wish.archetype and not any(wish.archetype in words for words in allowed.values()):
        found["asked for"] = f"{wish.archetype}, which nobody allows"
    return found


def _list(words: Collection[str]) -> str:
    return ", ".join(sorted(words)) or "nothing"
