"""Owners asked: what the owners of a graph's data grant, before it is planned. Pure.

The archetype is chosen among what all allow and what is possible; results that somebody refuses are
left out, or the whole is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dataflow.agreements import Archetype, Request
from dataflow.catalog.snapshot import Snapshot
from dataflow.datasets import Dataset, Replica
from dataflow.errors import NotGranted
from dataflow.execution.invitation import NOTEBOOK, is_notebook
from dataflow.graph import hiding
from dataflow.graph.graph import Graph
from dataflow.graph.operation import Operation
from dataflow.placement.plan import Plan
from dataflow.policy.agreement import Asked, Denial
from dataflow.policy.archetype import SHIPPED, Choice, Considered, Load, Wish, choose
from dataflow.policy.check import Verdict
from dataflow.policy.check import check as verdicts
from dataflow.policy.forcing import Woven, weave
from dataflow.policy.rights import Right, Rows, Standing, Words, right_of, standing, together, under
from dataflow.policy.scope import Scope
from dataflow.stores import in_database

Table = Mapping[str, Mapping[str, Verdict]]
#: The verdict table for a graph, given rights and the rows that stored results carry.
Check = Callable[[Graph, Mapping[str, Sequence[Right]], Mapping[str, Rows]], Table]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How a user asks owners: what a plan is for, and what he said of its archetype.

    ``strict`` refuses the whole where somebody refuses a part of it. ``time`` is in seconds since
    the epoch.
    """

    user: str = ""
    type: str = ""
    purpose: str = ""
    wish: Wish = field(default_factory=Wish)
    strict: bool = False
    time: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the owners say.

    Attributes
    ----------
    graph
        What may be planned of the graph that was asked for.
    request
        To go with every order and read.
    verdicts
        Of the graph.
    missing
        Label of each result that is left out → why.
    considered
        Archetypes that were looked at; none if no owner minds.
    avoid
        Pairs of key and site whose copies may not be read.
    forced
        Services that owners have put in, with their clauses.
    rights, given
        What the owners allow under the archetypes that were chosen, by key of the data; and rows
        that stored results among the sources carry.
    """

    graph: Graph
    request: Request
    verdicts: Table
    missing: Mapping[str, str] = field(default_factory=dict)
    considered: tuple[Considered, ...] = ()
    avoid: frozenset[tuple[str, str]] = frozenset()
    forced: tuple[str, ...] = ()
    rights: Mapping[str, Sequence[Right]] = field(default_factory=dict)
    given: Mapping[str, Rows] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """For the reader of the plan."""
        found = [
            f"archetype {c.name}: {'chosen, ' if c.chosen else ''}{c.because}"
            for c in self.considered
        ]
        found += [f"{label} is left out: {why}" for label, why in self.missing.items()]
        return (*found, *self.forced)

    def readable(
        self, replicas: Mapping[str, Sequence[Replica]]
    ) -> Mapping[str, Sequence[Replica]]:
        """Copies without those that their owner refuses to hand out."""
        if not self.avoid:
            return replicas
        kept = {
            key: [copy for copy in replicas.get(key, ()) if (key, copy.site) not in self.avoid]
            for key in {key for key, _ in self.avoid}
        }
        return {**replicas, **kept}

    def written_into(self, plan: Plan) -> Plan:
        """The plan with what the owners said."""
        return replace(
            plan,
            request=self.request,
            missing=self.missing,
            notes=(*self.notes, *plan.notes),
        )


def asked_again(request: Request, user: str, time: float) -> Asking:
    """How the owners are asked for the rest of a job: as before, and for all of it or nothing."""
    return Asking(
        user=user,
        type=request.type,
        purpose=request.purpose,
        wish=Wish(mixed=len(set(request.archetypes.values())) > 1),
        strict=True,
        time=time,
    )


def ask_owners(
    graph: Graph,
    snapshot: Snapshot,
    asking: Asking,
    *,
    scope: Scope,
    excluded: Mapping[str, str],
    loads: Mapping[str, Load] | None = None,
) -> Answer:
    """Ask the owners of all data that a graph reads.

    Parameters
    ----------
    scope, excluded
        As :func:`dataflow.policy.check.check` takes them.
    loads
        Site → its load, for the load rule.

    Raises
    ------
    NotGranted
        If nothing is left, if no archetype is allowed by all, or if a part is refused and the
        asking is strict.
    """
    installed = {
        site.name: frozenset((*site.operations, *hiding.SERVICES))
        for site in snapshot.topology.sites
        if site.operations
    }

    def check(
        graph: Graph, rights: Mapping[str, Sequence[Right]], given: Mapping[str, Rows]
    ) -> Table:
        return verdicts(
            graph,
            snapshot.topology,
            scope=scope,
            excluded=excluded,
            installed=installed,
            rights=rights,
            given=given,
            tables=_tables(graph, snapshot, excluded, owners.avoid),
        )

    owners = _Owners(graph, snapshot, asking)
    request = Request(type=asking.type, purpose=asking.purpose)
    if not owners.standings:
        return Answer(graph=graph, request=request, verdicts=check(graph, {}, {}))
    graph, missing = _granted_part(graph, owners, asking)
    owners = _Owners(graph, snapshot, asking)
    if not owners.standings:
        table = check(graph, {}, {})
        return Answer(graph=graph, request=request, verdicts=table, missing=missing)
    if asking.type != NOTEBOOK and any(is_notebook(s.operation) for s in graph.steps.values()):
        raise NotGranted(
            {_name(owners, key): not_as_notebook(asking.type) for key in owners.standings}
        )
    choice, woven, table = _chosen(graph, owners, asking, check, loads)
    rights = owners.rights(choice.archetypes)
    return Answer(
        graph=woven.graph,
        request=Request(type=asking.type, purpose=asking.purpose, archetypes=choice.archetypes),
        verdicts=table,
        missing=missing,
        considered=choice.considered,
        avoid=owners.avoid,
        forced=woven.notes,
        rights=rights,
        given=owners.given_under(rights),
    )


def _tables(
    graph: Graph,
    snapshot: Snapshot,
    excluded: Mapping[str, str],
    avoid: frozenset[tuple[str, str]],
) -> dict[str, frozenset[str]]:
    """What a graph reads of tables in databases and has no other copy to use, and the sites of these."""
    without = snapshot.topology.away | excluded.keys()
    found = {
        key: [
            copy
            for copy in snapshot.replicas.get(key, ())
            if copy.site not in without and (key, copy.site) not in avoid
        ]
        for key in graph.sources
    }
    return {
        key: frozenset(copy.site for copy in copies)
        for key, copies in found.items()
        if copies and all(in_database(copy.url) for copy in copies)
    }


class _Owners:
    """How all data of a graph stand to what is asked."""

    def __init__(self, graph: Graph, snapshot: Snapshot, asking: Asking) -> None:
        self.asked = Asked(
            user=asking.user, type=asking.type, purpose=asking.purpose, time=asking.time
        )
        self._snapshot = snapshot
        self._trust = {site.name: site.trust for site in snapshot.topology.sites}
        #: Rows that results of earlier jobs carry, as those counted whose jobs they were.
        self.given: dict[str, Rows] = {}
        #: What had been forced on them then, by each record of them.
        self._words: dict[str, list[Words]] = {}
        #: Key of a dataset → one for each site that minds.
        self.standings: dict[str, list[Standing]] = {}
        #: Key of a dataset → why third parties may not have it, though some owner may grant it.
        self._elsewhere: dict[str, Denial] = {}
        avoid: set[tuple[str, str]] = set()
        for key in graph.sources:
            known = snapshot.with_key(key)
            registered = [dataset for dataset in known if dataset.lineage is None]
            rows = {} if registered else _rows(known)
            if rows:
                self.given[key] = rows
                self._words[key] = [d.lineage.services for d in known if d.lineage is not None]
            for source in rows or ([key] if registered else []):
                found, refused = self._standings(source)
                avoid |= {(source, site) for site in refused}
                if found:
                    self.standings[source] = found
        self.avoid = frozenset(avoid)

    def _standings(self, key: str) -> tuple[list[Standing], list[str]]:
        """Of all sites where the data are registered; and the sites that refuse them."""
        homes: dict[str, list[Dataset]] = {}
        for dataset in self._snapshot.with_key(key):
            if dataset.lineage is None:
                homes.setdefault(dataset.site, []).append(dataset)
        found: list[Standing] = []
        refused: list[str] = []
        for site, datasets in homes.items():
            agreements = [a for a in self._snapshot.agreements if a.site == site]
            steward = self._trust.get(site) == "steward"
            here = standing(agreements, datasets, self.asked, steward=steward)
            if here is not None:
                found.append(here)
                refused += [site] if here.denial is not None else []
        joint = together(found, self.known)
        if joint is not None and joint.denial is not None:
            self._elsewhere[key] = joint.denial
        return [one for one in found if one.denial is None] or found, refused

    @property
    def operations(self) -> Mapping[str, Sequence[Operation]]:
        """What each site has installed."""
        return self._snapshot.operations

    def denied(self, key: str) -> str:
        """Why nobody grants a dataset; empty if somebody does, or nobody minds."""
        found = self.standings.get(key, [])
        if found and all(one.denial is not None for one in found):
            return "; ".join(one.denial.because for one in found if one.denial is not None)
        return ""

    def allowed(self) -> dict[str, frozenset[str]]:
        """Site that has data → the archetypes that it allows for all of them."""
        found: dict[str, frozenset[str]] = {}
        for standings in self.standings.values():
            for one in standings:
                site = one.dataset.site
                words = one.archetypes(self.known(site))
                found[site] = found.get(site, words) & words
        return found

    def known(self, site: str) -> Mapping[str, Archetype]:
        """Archetypes as a site understands them."""
        own = self._snapshot.archetypes.get(site, ())
        return {**SHIPPED, **{archetype.name: archetype for archetype in own}}

    def all_known(self) -> Mapping[str, Archetype]:
        """Archetypes as any of the sites understands them."""
        found: dict[str, Archetype] = {}
        for site in sorted(self.allowed()):
            found = {**self.known(site), **found}
        return found

    def rights(self, archetypes: Mapping[str, str]) -> dict[str, tuple[Right, ...]]:
        """What the owners allow under the archetypes that were chosen."""
        return {
            key: tuple(self._right(key, one, archetypes) for one in standings)
            for key, standings in self.standings.items()
        }

    def _right(self, key: str, one: Standing, archetypes: Mapping[str, str]) -> Right:
        site = one.dataset.site
        right = right_of(one, archetypes.get(site, ""), self.known(site), self.asked)
        return replace(right, elsewhere=self._elsewhere.get(key))

    def given_under(self, rights: Mapping[str, Sequence[Right]]) -> dict[str, Rows]:
        """Rows that results of earlier jobs carry, as they count in this request."""
        found = dict(self.given)
        for key, said in self._words.items():
            for words in said:
                found[key] = under(found[key], words, rights)
        return found


def _granted_part(graph: Graph, owners: _Owners, asking: Asking) -> tuple[Graph, Mapping[str, str]]:
    """The results of which nothing is denied, and the labels of the others with the reasons."""
    denied = {key: why for key in owners.standings if (why := owners.denied(key))}
    if not denied:
        return graph, {}
    refusals = {_name(owners, key): why for key, why in denied.items()}
    missing: dict[str, str] = {}
    left: list[str] = []
    for output in graph.outputs:
        made_of = _sources(graph, output)
        rows = {row for key in made_of for row in owners.given.get(key, {key: 0})}
        reasons = [denied[key] for key in denied if key in rows]
        if reasons:
            step = graph.steps.get(output)
            missing[step.label if step else output] = "; ".join(reasons)
        else:
            left.append(output)
    if asking.strict or not left:
        raise NotGranted(refusals)
    return part_of(graph, left), missing


def not_as_notebook(type: str) -> str:
    """Why a notebook may not read what somebody minds, in a request of this type."""
    return f"a notebook is a request of type {NOTEBOOK!r}, and this one is of type {type!r}"


def part_of(graph: Graph, outputs: Collection[str]) -> Graph:
    """The graph of some of its results."""
    return Graph([term for term in graph.terms if term.key in set(outputs)])


def _chosen(
    graph: Graph,
    owners: _Owners,
    asking: Asking,
    check: Check,
    loads: Mapping[str, Load] | None,
) -> tuple[Choice, Woven, Table]:
    allowed, known = owners.allowed(), owners.all_known()
    tables: dict[str, tuple[Woven, Table]] = {}

    def checked(archetypes: Mapping[str, str]) -> tuple[Woven, Table]:
        rights = owners.rights(archetypes)
        given = owners.given_under(rights)
        woven = weave(graph, rights, given, owners.operations)
        return woven, check(woven.graph, rights, given)

    impossible: dict[str, str] = {}
    for name in sorted(set().union(*allowed.values()) & set(known)):
        if all(name in words for words in allowed.values()):
            tables[name] = woven, table = checked(dict.fromkeys(allowed, name))
            stuck = _stuck(woven.graph, table)
            if stuck:
                impossible[name] = stuck
    others = [site for site in owners._trust if site not in allowed]
    how = {"wish": asking.wish, "loads": loads, "others": others}
    try:
        choice = choose(allowed, known, impossible=impossible, **how)  # type: ignore[arg-type]
    except NotGranted:
        if not impossible:
            raise
        # Something is granted, and only cannot be done: the plan says where, and why not.
        choice = choose(allowed, known, **how)  # type: ignore[arg-type]
    names = set(choice.archetypes.values())
    if len(names) == 1 and (name := names.pop()) in tables:
        return choice, *tables[name]
    return choice, *checked(choice.archetypes)


def _stuck(graph: Graph, table: Table) -> str:
    """The first step that may run nowhere, with the reasons; empty if there is none."""
    for key, step in graph.steps.items():
        if not any(table[key].values()):
            reasons = dict.fromkeys(f"{site}: {v.because}" for site, v in table[key].items())
            return f"no site may run {step.label!r} ({'; '.join(reasons)})"
    return ""


def _sources(graph: Graph, output: str) -> set[str]:
    found, stack = set(), [output]
    while stack:
        key = stack.pop()
        if key not in found:
            found.add(key)
            stack.extend(graph.steps[key].inputs if key in graph.steps else ())
    return found & set(graph.sources)


def _rows(known: Sequence[Dataset]) -> Rows:
    rows: dict[str, int] = {}
    for dataset in known:
        if dataset.lineage is not None:
            for key, applied in dataset.lineage.rows.items():
                rows[key] = min(rows.get(key, applied), applied)
    return rows


def _name(owners: _Owners, key: str) -> str:
    dataset = owners.standings[key][0].dataset
    return f"{dataset.site}/{dataset.name}"
