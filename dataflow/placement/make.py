"""Make: the plan for a graph, from facts to a finished and priced record."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import count
from typing import Any

from dataflow.errors import PlacementError
from dataflow.graph.extents import UNKNOWN
from dataflow.graph.graph import Graph
from dataflow.graph.operation import Step
from dataflow.graph.split import split, taken_apart
from dataflow.placement.aim import BALANCED, Aim, better
from dataflow.placement.amounts import sizes_of
from dataflow.placement.assemble import assemble
from dataflow.placement.facts import Facts, Replicas, Verdicts, World, pose, world
from dataflow.placement.likely import expected
from dataflow.placement.measurements import LEAST_QUANTILE, MOST_QUANTILE, Measurements
from dataflow.placement.plan import Keep, Plan
from dataflow.placement.room import Rooms, overfull, refusal
from dataflow.placement.solve import Rule, Solution, solve
from dataflow.policy.check import inherit
from dataflow.sites import Topology

#: Up to this many steps, splitting is priced against not splitting; larger graphs are split
#: wherever it is known to save bytes.
PRICED_STEPS = 60
#: So often at most steps are put elsewhere for want of room where they are, and all is solved anew.
MOST_ROUNDS = 100
#: At most so many split steps are tried one by one.
PRICED_SPLITS = 6


def make_plan(
    graph: Graph,
    *,
    topology: Topology,
    replicas: Replicas,
    verdicts: Verdicts,
    measurements: Measurements | None = None,
    result_at: str = "",
    keep: Keep = "results",
    rule: Rule = "cheapest",
    pinned: Mapping[str, str] | None = None,
    reuse: bool = True,
    near: str = "",
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    aim: Aim = BALANCED,
    quantile: float | None = None,
    rooms: Rooms | None = None,
) -> Plan:
    """A finished plan: site of every step, transfers, segments, price and reasons.

    Pure and deterministic. Planning again during a run is the same call on :func:`graph_of` the old
    plan, with what is stored by now among ``replicas`` and lost sites excluded in ``verdicts``.

    Parameters
    ----------
    graph
        As the user built it; splitting is done here where it is cheaper.
    topology
        Sites and links. Sites in ``topology.away``, and those whose verdicts all say excluded, are
        not read from either.
    replicas
        Copies by key: of the sources, and of results that exist already. A step whose result
        exists is not run again, and neither is what only led to it.
    verdicts
        From :func:`dataflow.policy.check.check` on ``graph``.
    measurements
        What earlier runs taught; default nothing.
    result_at
        Site at which the results must end; empty for where they are computed.
    keep
        ``"all"`` stores every step's result (and so runs those that are not stored yet).
    rule, seed
        Where parts of a split step are combined, see :func:`dataflow.placement.solve.solve`.
    pinned
        Key or label of a step → site, for what is decided already.
    reuse
        ``False`` computes everything again.
    near
        Site of the caller: preferred between equals. Default: the first name.
    options
        Kept in the plan, as a record of how it was asked for.
    aim
        What is to be least, and which limits are kept.
    quantile
        By which of the likely values is chosen, and which the plan's figures are: 0.9 are those that
        are not exceeded in nine of ten runs. ``None`` for the middle.
    rooms
        Site → bytes that may still be kept there, see :mod:`dataflow.placement.room`; the others have
        room enough.

    Raises
    ------
    NoAllowedSite
        If a step may run nowhere; with each site's reason.
    PlacementError
        If a source has no copy within reach, or ``result_at`` is no site that can be reached.
    """
    known = measurements or Measurements()
    measured = known.at(_checked(quantile))
    if near and near not in topology.site_by_name:
        near = ""
    facts = world(
        graph,
        topology=topology,
        replicas=replicas,
        verdicts=verdicts,
        measurements=measured,
        near=near,
        rooms=rooms,
    )
    _within_reach(facts, result_at)
    making = _Making(graph, facts, verdicts, result_at, keep, reuse, pinned or {}, rule, seed, aim)
    chosen, solution = making.best()
    return assemble(
        graph,
        chosen,
        solution,
        result_at=result_at,
        keep=keep,
        options={"rule": rule, "reuse": reuse, **(options or {})},
        aim=aim,
        likely=expected(chosen, solution.sites, known),
    )


def _checked(quantile: float | None) -> float | None:
    if quantile is None:
        return None
    number = isinstance(quantile, int | float) and not isinstance(quantile, bool)
    if not (number and LEAST_QUANTILE <= quantile <= MOST_QUANTILE):
        raise PlacementError(
            f"quantile: {quantile!r} is not a share from {LEAST_QUANTILE:g} to {MOST_QUANTILE:g}"
        )
    return float(quantile)


def graph_of(plan: Plan) -> Graph:
    """The graph as the user built it, out of a plan; without the functions.

    Examples
    --------
    ``make_plan(graph_of(plan), …)`` plans the same work anew, for instance when a site was lost.
    """
    steps: dict[str, Step] = {step.key: step for step in plan.steps if step.stage == "whole"}
    steps |= {step.key: step for step in plan.originals}
    order: dict[str, Step] = {}
    for output in plan.outputs:
        stack = [(output, False)]
        while stack:
            key, ready = stack.pop()
            if key in order or key not in steps:
                continue
            if ready:
                order[key] = steps[key]
            else:
                stack.append((key, True))
                stack.extend((wanted, False) for wanted in reversed(steps[key].inputs))
    return Graph.assemble(plan.sources, order, plan.outputs, plan.extents)


def relied_upon(plan: Plan) -> list[Step]:
    """Steps, as the user wrote them, whose promised kind this plan relies upon.

    The same as :func:`dataflow.graph.split.needs_check`, for a finished plan; what is reused and
    not run is left out.
    """
    split_steps = {
        step.key
        for step in plan.steps
        if step.stage == "combine" and plan.assignment_by_key[step.key].reused is None
    }
    return [step for step in plan.originals if step.key in split_steps]


class _Making:
    """The variants of one graph, split here and there, each posed and solved."""

    def __init__(
        self,
        graph: Graph,
        facts: World,
        verdicts: Verdicts,
        result_at: str,
        keep: Keep,
        reuse: bool,
        pinned: Mapping[str, str],
        rule: Rule,
        seed: int,
        aim: Aim,
    ) -> None:
        self.graph, self.world, self.verdicts = graph, facts, verdicts
        self.result_at, self.keep, self.reuse = result_at, keep, reuse
        self.pinned, self.rule, self.seed, self.aim = pinned, rule, seed, aim
        self.sizes = sizes_of(graph, facts.measurements)
        self.homes = {
            key: frozenset(replica.site for replica in copies)
            for key, copies in facts.copies.items()
            if reuse or key in graph.sources
        }

    @cached_property
    def made_of(self) -> dict[str, frozenset[str]]:
        return _sources_of(self.graph)

    def best(self) -> tuple[Facts, Solution]:
        """The cheaper of splitting and not splitting, for each step that can be split."""
        known = self.sizes if self.world.measurements.output_ratio else None
        full = split(self.graph, self.homes, sizes=known)
        apart = taken_apart(self.graph, full)
        if not apart or len(self.graph.steps) > PRICED_STEPS:
            return self._solved(full)
        best: Solution | None
        try:
            best = self._solved(full, quick=True)[1]
        except PlacementError:
            best = None
        chosen, graph = set(apart), full
        trials = [{key} for key in apart] if 1 < len(apart) <= PRICED_SPLITS else []
        for without in [*trials, set(apart)]:
            if not without & chosen:
                continue
            only = chosen - without
            variant = split(self.graph, self.homes, only=only, sizes=known) if only else self.graph
            try:
                other = self._solved(variant, quick=True)[1]
            except PlacementError:
                continue
            if best is None or self._cheaper(other, best, without):
                best, chosen, graph = other, only, variant
        return self._solved(self.graph if best is None else graph)

    def _cheaper(self, other: Solution, best: Solution, without: set[str]) -> bool:
        """Whether leaving the steps ``without`` whole is better than taking them apart.

        Steps over several datasets go to the data: only fewer bytes speak against it. For others,
        and where the size of the result is known, time counts as well.
        """
        if any(self._goes_to_data(self.graph.steps[key]) for key in without):
            return other.nbytes < best.nbytes - 0.5
        return better(self.aim.score(other.figures), self.aim.score(best.figures))

    def _goes_to_data(self, step: Step) -> bool:
        return step.pieces or self.graph.extents[step.key].guessed.startswith(UNKNOWN)

    def _solved(self, graph: Graph, *, quick: bool = False) -> tuple[Facts, Solution]:
        verdicts = self.verdicts
        if graph is not self.graph:
            verdicts = inherit(verdicts, graph, self.world.topology)
        for tried in count():
            facts = self._posed(graph, verdicts)
            solution = solve(
                facts.problem, rule=self.rule, aim=self.aim, seed=self.seed, quick=quick
            )
            full = overfull(
                facts.problem,
                solution.sites,
                self.world.rooms,
                kept=facts.kept,
                guessed=facts.guessed,
            )
            if full is None:
                return facts, solution
            if not full.tasks or tried >= MOST_ROUNDS:
                raise PlacementError(full.said())
            refused = {full.site: refusal(full.needed, full.room)}
            keys = [facts.problem.tasks[task] for task in full.tasks]
            verdicts = {**verdicts, **{key: {**verdicts[key], **refused} for key in keys}}
        raise AssertionError("the count has no end")

    def _posed(self, graph: Graph, verdicts: Verdicts) -> Facts:
        sizes = self.sizes if graph is self.graph else sizes_of(graph, self.world.measurements)
        return pose(
            graph,
            self.world,
            verdicts=verdicts,
            sizes=sizes,
            result_at=self.result_at,
            keep_all=self.keep == "all",
            reuse=self.reuse,
            pinned=self.pinned,
            made_of={} if graph is self.graph else self.made_of,
        )


def _sources_of(graph: Graph) -> dict[str, frozenset[str]]:
    """For each key the datasets that it is made of, directly or through other steps."""
    found = {key: frozenset((key,)) for key in graph.sources}
    for key, step in graph.steps.items():
        found[key] = frozenset().union(*(found[wanted] for wanted in step.inputs))
    return found


def _within_reach(facts: World, result_at: str) -> None:
    if not result_at:
        return
    if result_at not in facts.names:
        names = ", ".join(sorted(facts.names)) or "none"
        raise PlacementError(f"result_at: no site {result_at!r}; there are {names}")
    if result_at in facts.gone:
        raise PlacementError(
            f"result_at: site {result_at!r} does not answer or may not be used\n"
            "What you can do: leave the results where they are computed, and copy them later."
        )
