"""Planner: planning with the world as one participant sees it, which is not as others see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from dataflow import tracing
from dataflow.catalog.snapshot import Snapshot
from dataflow.datasets import Dataset
from dataflow.execution.state import JobState
from dataflow.graph.graph import Graph
from dataflow.participant.ways import Ways
from dataflow.placement.measurements import Measurements
from dataflow.placement.plan import Plan
from dataflow.policy.archetype import Load
from dataflow.sites import Link


class Planner:
    """Plans of one participant.

    Parameters
    ----------
    name, has_site, answers
        The participant's, whether it is a site, and whether others can ask it.
    ways
        How it reaches other sites.
    snapshot, measurements
        All that is known now.
    loads
        Site → how busy it is, of those that tell.
    roads
        What only this participant measured.
    clock
        Seconds since the epoch.
    """

    def __init__(
        self,
        name: str,
        has_site: bool,
        answers: bool,
        ways: Ways,
        snapshot: Callable[[], Snapshot],
        measurements: Callable[[], Measurements],
        loads: Callable[[], Mapping[str, Load]],
        roads: Mapping[tuple[str, str], Link],
        clock: Callable[[], float],
    ) -> None:
        self._name, self._has_site, self._answers, self._ways = name, has_site, answers, ways
        self._snapshot, self._measurements, self._roads = snapshot, measurements, roads
        self._clock, self._loads = clock, loads

    def plan(self, graph: Graph, **asked: Any) -> Plan:
        """A plan in the world as it is known now; see :func:`planning.plan_graph`."""
        from dataflow.participant import planning  # numpy: an agent answers before it plans
        from dataflow.participant.owners import Asking

        asking = replace(asked.pop("asking", None) or Asking(), time=self._clock())
        asked = {"near": self._near, "asking": asking, "loads": self._loads(), **asked}
        with tracing.span("plan", site=self._name, user=asking.user) as span:
            seen, known = self._seen_from_here(), self._measurements()
            plan = planning.plan_graph(graph, seen, known, **asked)
            span.say(plan=plan.id, steps=len(plan.steps), seconds=plan.seconds)
        return plan

    def plan_move(self, dataset: Dataset, to: str, source: str | None, **asked: Any) -> Plan:
        """A plan that moves a dataset; see :func:`planning.plan_move`."""
        from dataflow.participant import planning
        from dataflow.participant.owners import Asking

        asking = replace(asked.pop("asking", None) or Asking(), time=self._clock())
        asked = {"near": self._near, "asking": asking, **asked}
        seen, known = self._seen_from_here(), self._measurements()
        return planning.plan_move(dataset, to, seen, known, source=source, **asked)

    @property
    def _near(self) -> str:
        return self._name if self._has_site else ""

    def _seen_from_here(self) -> Snapshot:
        """The snapshot to plan with: what others cannot ask for goes over here."""
        snapshot = self._snapshot()
        topology = snapshot.topology
        hidden = {site.name for site in topology.sites if self._ways.by_ssh(site.name)}
        if self._has_site and not self._answers:
            hidden.add(self._name)
        if not hidden and not topology.stores_only:
            return snapshot
        from dataflow.participant import planning

        topology = replace(topology, links=(*topology.links, *self._roads.values()))
        return replace(snapshot, topology=planning.with_relays(topology, self._name, hidden))

    async def replan(self, state: JobState) -> Plan:
        """A plan for what is left of a job."""
        from dataflow.participant import planning

        snapshot, known = self._seen_from_here(), self._measurements()
        with tracing.span("replan", site=self._name, job=state.job):
            return planning.plan_rest(state, snapshot, known, self._near, self._clock())
