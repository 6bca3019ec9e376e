"""Rights: what may be done with the rows of each dataset in one request, and where.

Rows are followed through the graph. Who computes something new of them (an operation with any label
but ``dataProvider``) makes a result, and results go to whoever asked; what only selects or
anonymises passes the rows on, with the rights they had.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dataflow.agreements import DATA_PROVIDER, Agreement, Archetype
from dataflow.datasets import Dataset
from dataflow.graph.hiding import first_of, last_of, service_of
from dataflow.graph.operation import Step
from dataflow.policy.agreement import Asked, Denial, Grant, governing, grants

#: Key of a dataset → how many of the services that its owner forces have been applied already.
Rows = Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one record of a dataset stands to a request: what is granted, or why nothing is."""

    dataset: Dataset
    grants: tuple[Grant, ...] = ()
    denial: Denial | None = None

    def archetypes(self, known: Mapping[str, Archetype]) -> frozenset[str]:
        """Names of all that some relation allows."""
        return frozenset(n for grant in self.grants for n in grant.archetypes(known))


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """What may be done with the rows of a dataset that lies at ``site``.

    ``grants`` are the relations that allow the chosen archetype; without any, ``denied`` says why.
    ``elsewhere`` says why sites that are not its own may do nothing with them, if that is so: others say
    that the same bytes are theirs, and these do not grant the same.
    """

    key: str
    site: str
    name: str
    archetype: Archetype | None = None
    grants: tuple[Grant, ...] = ()
    denied: Denial | None = None
    elsewhere: Denial | None = None
    forced: tuple[str, ...] = ()

    def refuses(self, step: Step, applied: int, site: str, *, again: bool = False) -> Denial | None:
        """Why a step may not read these rows at a site; ``None`` if it may.

        Parameters
        ----------
        applied
            Forced services that the rows have been through.
        again
            It is, or may be, the second run of an archetype that wants two.
        """
        if self.denied is not None or self.archetype is None:
            return self.denied or Denial("archetype", f"{self.site}: no archetype is chosen")
        if self.elsewhere is not None and site != self.site:
            return self.elsewhere
        grant = self.grants[0]
        said = service_of(step)
        if applied < len(self.forced) and said != self.forced[applied]:
            service, who = self.forced[applied], self.name
            text = f"{grant.clause}: {service} must be applied to {who!r} first"
            return Denial("forced service", text)
        passes_on = step.operation.role == DATA_PROVIDER or said in self.forced
        if again and applied >= len(self.forced) and self._runs_again(site):
            return None
        return self._place(grant, site, passes_on, forced=applied < len(self.forced))

    def _runs_again(self, site: str) -> bool:
        """Whether a site may do the second run, where the archetype wants one."""
        twice = self.archetype is not None and self.archetype.twice
        return twice and any(grant.allows_provider(site) for grant in self.grants)

    def _place(self, grant: Grant, site: str, passes_on: bool, *, forced: bool) -> Denial | None:
        assert self.archetype is not None
        name, computes = self.archetype.name, self.archetype.computes
        if forced and site != self.site:
            text = f"{grant.clause}: what is forced on {self.name!r} is done at {self.site}"
            return Denial("forced service", text)
        if computes == "requester":
            return None
        if computes == "provider" or passes_on:
            if site == self.site:
                return None
            return Denial("archetype", f"{grant.clause}: {name} keeps {self.name!r} at {self.site}")
        if site == self.site:
            text = f"{grant.clause}: under {name} a third party computes, not {self.site} itself"
            return Denial("archetype", text)
        if any(other.allows_provider(site) for other in self.grants):
            return None
        words = ", ".join(self.grants[0].relation.compute_providers) or "nobody"
        text = f"{grant.clause}: {site!r} is no permitted compute provider; permitted is {words}"
        return Denial("compute provider", text)

    def goes_to(self, site: str, applied: int) -> Denial | None:
        """Why the rows themselves may not be sent to another site; ``None`` if they may.

        Parameters
        ----------
        applied
            Forced services that they have been through.
        """
        if self.denied is not None or self.archetype is None:
            return self.denied or Denial("archetype", f"{self.site}: no archetype is chosen")
        clause, name = self.grants[0].clause, self.archetype.name
        if applied == 0 and self.hidden:
            columns = ", ".join(self.hidden)
            return Denial(
                "hidden columns", f"{clause}: {self.name!r} has hidden columns ({columns})"
            )
        if applied < len(self.forced):
            text = f"{clause}: {self.forced[applied]} must be applied to {self.name!r} first"
            return Denial("forced service", text)
        if self.archetype.computes == "requester":
            return None
        if self.archetype.computes == "provider" and not self.archetype.twice:
            return Denial("archetype", f"{clause}: {name} keeps {self.name!r} at {self.site}")
        if site and any(grant.allows_provider(site) for grant in self.grants):
            return None
        return Denial("compute provider", f"{clause}: {site!r} is no permitted compute provider")

    @property
    def hidden(self) -> tuple[str, ...]:
        """Columns that nobody else sees."""
        return self.grants[0].relation.hidden if self.grants else ()

    @property
    def row_floor(self) -> int:
        """Fewer rows than this are not computed with."""
        terms = [grant.relation for grant in self.grants]
        # One row alone is a group of one: who asks for no more than that asks for nothing.
        alike = [term.anonymity for term in terms if term.anonymity > 1]
        return max((*alike, *(term.row_floor for term in terms)), default=0)


@dataclass(frozen=True, slots=True)
class Reading:
    """Rows that a step reads, and those that its result still carries."""

    reads: Rows = field(default_factory=dict)
    carries: Rows = field(default_factory=dict)


def standing(
    agreements: Sequence[Agreement], datasets: Iterable[Dataset], asked: Asked, *, steward: bool
) -> Standing | None:
    """How one site's records of one content stand to a request; ``None`` if nobody minds.

    A site may know the same bytes under several names. The strictest name counts, or somebody could
    register what is not his to make it his.

    Parameters
    ----------
    agreements
        Of the site that the records are of.
    steward
        Whether the site refuses what no agreement is about.
    """
    found: Standing | None = None
    for dataset in datasets:
        about = governing(agreements, dataset)
        if not about and not steward:
            continue
        granted, denial = grants(about, dataset, asked)
        here = Standing(dataset=dataset, grants=tuple(granted), denial=denial)
        if denial is not None:
            return here
        found = found or here
    return found


def together(
    found: Sequence[Standing],
    known: Callable[[str], Mapping[str, Archetype]],
    preferred: Collection[str] = (),
) -> Standing | None:
    """How data stand of which several sites say that they are theirs, where none of these asks.

    All have to grant, and the same, or somebody could register what is not his to make it his elsewhere.

    Parameters
    ----------
    found
        How the records of each site stand, see :func:`standing`; of those who mind.
    known
        Archetypes of a site, by name.
    preferred
        Sites of which one is taken, if it is among them.
    """
    refused = next((one for one in found if one.denial is not None), None)
    if refused is not None or not found:
        return refused
    first = next((one for one in found if one.dataset.site in preferred), found[0])
    wanted = _demands(first, known)
    for other in found:
        if _demands(other, known) != wanted:
            sites = " and ".join(sorted((first.dataset.site, other.dataset.site)))
            text = (
                f"{sites} both say that {first.dataset.name!r} is theirs, and do not grant the same"
            )
            return Standing(dataset=first.dataset, denial=Denial("dataset", text))
    return first


def _demands(one: Standing, known: Callable[[str], Mapping[str, Archetype]]) -> tuple[Any, ...]:
    archetypes = known(one.dataset.site)
    may = {name: archetypes[name] for name in one.archetypes(archetypes)}
    return may, {
        (
            grant.agreement.compute_providers,
            grant.relation.compute_providers,
            tuple(sorted(grant.relation.forced.items())),
            grant.relation.hidden,
            grant.relation.row_floor,
            grant.relation.anonymity,
            grant.relation.among,
            grant.relation.derived,
        )
        for grant in one.grants
    }


def right_of(
    found: Standing, archetype: str, known: Mapping[str, Archetype], asked: Asked
) -> Right:
    """The right that a standing gives under one archetype."""
    dataset = found.dataset
    fine = tuple(grant for grant in found.grants if archetype in grant.archetypes(known))
    denied = found.denial
    if denied is None and not fine:
        words = ", ".join(sorted(found.archetypes(known))) or "none"
        grant = found.grants[0]
        what = f"archetype {archetype!r}" if archetype else "a request without archetype"
        denied = Denial("archetype", f"{grant.clause}: {what} is not allowed, only {words}")
    if fine:
        fine = _together(fine, known[archetype], asked)
    return Right(
        key=dataset.key,
        site=dataset.site,
        name=dataset.name,
        archetype=known.get(archetype),
        grants=fine,
        denied=denied,
        forced=_forced(fine[0], asked) if fine else (),
    )


def _together(fine: tuple[Grant, ...], archetype: Archetype, asked: Asked) -> tuple[Grant, ...]:
    """Relations that may stand in for each other: none hides or forces more than the first does.

    Or rows could go to the third party of one relation under the milder terms of another.
    """
    first = fine[0]
    if archetype.computes == "other":  # one that names somebody, if there is one
        first = next((grant for grant in fine if grant.relation.compute_providers), first)
    hidden, forced = set(first.relation.hidden), set(first.forced(asked.type))
    rest = (
        grant
        for grant in fine
        if grant is not first
        and hidden >= set(grant.relation.hidden)
        and forced >= set(grant.forced(asked.type))
        and _as_anonymous(first, grant)
    )
    return (first, *rest)


def _as_anonymous(first: Grant, other: Grant) -> bool:
    """Whether rows that are left under the terms of ``first`` would be left under the other's."""
    ours, theirs = first.relation, other.relation
    if theirs.anonymity <= 1:
        return True
    finer = not ours.among or (bool(theirs.among) and set(ours.among) >= set(theirs.among))
    return ours.anonymity >= theirs.anonymity and finer


def _forced(grant: Grant, asked: Asked) -> tuple[str, ...]:
    """Services that come first: columns are hidden before anything else sees them.

    Rows that too few others look like are left out last, by what is left of their columns then.
    """
    first, last = first_of(grant.relation), last_of(grant.relation)
    words = (first.word if first else "", *grant.forced(asked.type), last.word if last else "")
    return tuple(word for word in words if word)


def follow(
    steps: Iterable[Step], given: Mapping[str, Rows], rights: Mapping[str, Sequence[Right]]
) -> dict[str, Reading]:
    """What rows each step reads and passes on.

    Parameters
    ----------
    steps
        In order.
    given
        Rows that datasets and stored results carry, by key; what is not there carries none.
    rights
        By key of the dataset; they say which services are forced.
    """
    found: dict[str, Reading] = {}
    nothing: Rows = {}
    for step in steps:
        reads = least(
            found[wanted].carries if wanted in found else given.get(wanted, nothing)
            for wanted in step.inputs
        )
        found[step.key] = Reading(reads, passed_on(step, reads, rights))
    return found


#: Source → the services that its rows have been through, in the words of whoever forced them.
Words = Mapping[str, tuple[str, ...]]


def words_of(rows: Rows, rights: Mapping[str, Sequence[Right]]) -> dict[str, tuple[str, ...]]:
    """What the numbers in ``rows`` stand for under these rights."""
    return {key: _forced_on(rights, key)[:applied] for key, applied in rows.items() if applied}


def under(rows: Rows, words: Words, rights: Mapping[str, Sequence[Right]]) -> Rows:
    """Rows as they count for who has these rights.

    What the relation of somebody else has forced on them counts as far as his own force the same, in
    the same order: hidden from another is not hidden from him.
    """
    found: dict[str, int] = {}
    for key, applied in rows.items():
        said, forced = words.get(key, ()), _forced_on(rights, key)
        same = 0
        while same < min(applied, len(said), len(forced)) and said[same] == forced[same]:
            same += 1
        found[key] = same if rights.get(key) else applied
    return found


def _forced_on(rights: Mapping[str, Sequence[Right]], key: str) -> tuple[str, ...]:
    return next((right.forced for right in rights.get(key, ()) if right.forced), ())


def least(inputs: Iterable[Rows]) -> Rows:
    """Rows of several inputs together: what has been through least counts."""
    reads: dict[str, int] = {}
    for rows in inputs:
        for key, applied in rows.items():
            reads[key] = min(reads.get(key, applied), applied)
    return reads


def passed_on(step: Step, reads: Rows, rights: Mapping[str, Sequence[Right]]) -> Rows:
    """Rows that a step's result still carries."""
    if not reads:
        return reads
    carries: dict[str, int] = {}
    for key, applied in reads.items():
        forced = _forced_on(rights, key)
        now = applied < len(forced) and service_of(step) == forced[applied]
        if now or step.operation.role == DATA_PROVIDER:
            carries[key] = applied + now
    return carries
