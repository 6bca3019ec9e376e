"""Verdicts: who may run what, where, and because of which rule.

The table is computed once, before placement; the solver never asks again. Every rule is a
function of facts, and each refusal names the rule, so that the explanation of a plan is a table
of verdicts and nothing has to be computed twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dataflow._quantities import format_bytes
from dataflow.datasets import Extent
from dataflow.graph.graph import Graph
from dataflow.graph.hiding import service_of
from dataflow.graph.operation import Step
from dataflow.policy.rights import Reading, Right, Rows, follow
from dataflow.policy.scope import Place, Scope, choose, scope_of, too_far
from dataflow.sites import Site, Topology

ALLOWED = "allowed"
#: Names of the rules that others ask for; a plan may not even read what lies at a site that is
#: away or excluded.
AWAY, EXCLUDED, MEMORY = "away", "excluded", "memory"
#: The rule of all refusals by an owner.
AGREEMENT = "agreement"
SCOPE = "scope"
STORES = "stores"
#: What it reads has no files that could be copied.
DATABASE = "database"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Allowed or not, because of which rule; true when allowed."""

    allowed: bool
    rule: str
    because: str

    def __bool__(self) -> bool:
        return self.allowed


_YES = Verdict(True, ALLOWED, "")


def check(
    graph: Graph,
    topology: Topology,
    *,
    scope: Scope | Mapping[str, str] | None = None,
    excluded: Mapping[str, str] | None = None,
    installed: Mapping[str, frozenset[str]] | None = None,
    rights: Mapping[str, Sequence[Right]] | None = None,
    given: Mapping[str, Rows] | None = None,
    tables: Mapping[str, frozenset[str]] | None = None,
) -> dict[str, dict[str, Verdict]]:
    """For each step (by key) and each site (by name) whether the step may run there.

    Parameters
    ----------
    graph, topology
        What is to run, and the world.
    scope
        The user's word, or a mapping of labels, operation names or roles to places.
    excluded
        Site → reason: not to be used for this plan (lost during a run, say).
    installed
        Site → ``name@version`` of the operations a steward has installed.
    rights
        Key of a dataset → what its owners allow in this request, one for each site that has it;
        whoever reads its rows needs one of them. What is not there is free.
    given
        Rows that stored results among the sources carry; datasets in ``rights`` carry their own.
    tables
        Key of a dataset that cannot be copied, a table in a database → the sites that have it.
    """
    scope = scope_of(scope)
    far = too_far(scope, topology)
    excluded = excluded or {}
    installed = installed or {}
    extents = graph.extents
    owners = _Owners(graph, topology, rights or {}, given or {})
    table: dict[str, dict[str, Verdict]] = {}
    everywhere: dict[tuple[Any, ...], dict[str, Verdict]] = {}
    for key, step in graph.steps.items():
        operation = step.operation
        place = scope.place_of(step.label, operation.name, operation.role)
        memory = memory_needed(step, [extents[k] for k in step.inputs])
        read, refusals = owners.of(step)
        here = _here(step, tables) if tables else None
        token = (operation.name, operation.version, str(place), str(memory), read, here)
        if token not in everywhere:
            row = {
                site.name: _verdict(
                    step, site, topology, excluded, installed, refusals, here, memory
                )
                for site in topology.sites
            }
            everywhere[token] = _narrowed(row, place, far)
        table[key] = everywhere[token]
    return table


def _here(step: Step, tables: Mapping[str, frozenset[str]]) -> frozenset[str] | None:
    """The sites that have all that a step reads and nobody can copy; ``None`` if there is nothing such."""
    needed = [tables[key] for key in step.inputs if key in tables]
    return frozenset.intersection(*needed) if needed else None


def _narrowed(
    row: Mapping[str, Verdict], place: Place | None, far: Mapping[str, str]
) -> dict[str, Verdict]:
    """What the user's word leaves of a row; it opens nothing that was closed."""
    if place is None:
        refused = far
    else:
        chosen = choose(place, lambda site: site in row and bool(row[site]))
        refused = {site: f"the scope says {place}" for site in row if site not in chosen}
    return {
        site: Verdict(False, SCOPE, refused[site])
        if site in refused and verdict.rule not in (AWAY, EXCLUDED, AGREEMENT)
        else verdict
        for site, verdict in row.items()
    }


class _Owners:
    """What owners say of each step, at each site; each question is asked once."""

    def __init__(
        self,
        graph: Graph,
        topology: Topology,
        rights: Mapping[str, Sequence[Right]],
        given: Mapping[str, Rows],
    ) -> None:
        self._rights = rights
        self._sites = [site.name for site in topology.sites]
        own = {key: {key: 0} for key in rights}
        rows = {**given, **own}
        self._readings: Mapping[str, Reading] = (
            follow(graph.steps.values(), rows, rights) if rights or given else {}
        )
        self._one: dict[tuple[str, int, str, str], dict[str, Verdict]] = {}
        self._all: dict[tuple[str, str, str], dict[str, Verdict]] = {}

    def of(self, step: Step) -> tuple[str, Mapping[str, Verdict]]:
        """A word for what the step reads, and the sites where somebody refuses it."""
        reading = self._readings.get(step.key)
        if reading is None or not reading.reads:
            return "", {}
        read = ",".join(f"{source}+{n}" for source, n in sorted(reading.reads.items()))
        token = (read, service_of(step), step.operation.role)
        if token not in self._all:
            found: dict[str, Verdict] = {}
            for source, applied in reading.reads.items():
                found = {**self._refusals(source, applied, step), **found}
            self._all[token] = found
        return f"{read} {step.operation.role} {service_of(step)}", self._all[token]

    def _refusals(self, source: str, applied: int, step: Step) -> dict[str, Verdict]:
        token = (source, applied, service_of(step), step.operation.role)
        if token not in self._one:
            found = {}
            for site in self._sites:
                said = [r.refuses(step, applied, site) for r in self._rights.get(source, ())]
                if said and all(denial is not None for denial in said):
                    found[site] = Verdict(False, AGREEMENT, said[0].because if said[0] else "")
            self._one[token] = found
        return self._one[token]


def _verdict(
    step: Step,
    site: Site,
    topology: Topology,
    excluded: Mapping[str, str],
    installed: Mapping[str, frozenset[str]],
    owners: Mapping[str, Verdict],
    here: frozenset[str] | None,
    memory: int,
) -> Verdict:
    if site.name in topology.away:
        return Verdict(False, AWAY, "the site does not answer")
    if site.name in excluded:
        return Verdict(False, EXCLUDED, excluded[site.name])
    if site.stores_only:
        return Verdict(False, STORES, "there are stores only, and no computers")
    if site.trust == "steward":
        name = f"{step.operation.name}@{step.operation.version}"
        if name not in installed.get(site.name, frozenset()):
            return Verdict(False, "trust", f"a steward site, and {name} is not installed there")
    if site.name in owners:
        return owners[site.name]
    if here is not None and site.name not in here:
        return Verdict(False, DATABASE, "it is a table in a database, to be queried where it is")
    return _memory(memory, site)


def _memory(needed: int, site: Site) -> Verdict:
    if needed <= site.memory:
        return _YES
    return Verdict(
        False,
        MEMORY,
        f"needs {format_bytes(needed)} at once, a worker there has {format_bytes(site.memory)}",
    )


def inherit(
    table: Mapping[str, Mapping[str, Verdict]], split_graph: Graph, topology: Topology
) -> dict[str, Mapping[str, Verdict]]:
    """Verdicts for a graph that was split, from those for the graph that the user built.

    A share of a step may run where the step may. Only memory is counted anew, since a share reads
    less; the memory rule is the last one, so what it refused nothing else refuses. A step that
    stands in ``table`` itself and was not taken apart keeps its verdicts.
    """
    steps, extents = split_graph.steps, split_graph.extents
    sites = topology.site_by_name
    whole: dict[str, Mapping[str, Verdict]] = {}
    for key, step in steps.items():
        if step.stage == "whole" and key in table:
            whole[key] = table[key]
            continue
        mother = step
        while mother.key not in table and mother.mother in steps:
            mother = steps[mother.mother]
        row = table[mother.key]
        if any(verdict.rule == MEMORY for verdict in row.values()):
            needed = memory_needed(step, [extents[wanted] for wanted in step.inputs])
            row = {
                name: _memory(needed, sites[name]) if verdict.rule == MEMORY else verdict
                for name, verdict in row.items()
            }
        whole[key] = row
    return whole


def memory_needed(step: Step, inputs: Sequence[Extent]) -> int:
    """Bytes one worker must hold at once: everything for loaded inputs, nothing to speak of else.

    Lazy inputs stream through in chunks, whatever their size; programs read files themselves.
    """
    if step.operation.lazy or step.operation.command:
        return 0
    return sum(extent.nbytes for extent in inputs)
