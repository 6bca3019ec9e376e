"""Legal and illegal events in any order: what a job's state promises holds after each of them."""

from __future__ import annotations

import random
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from dataflow.catalog.snapshot import Snapshot
from dataflow.datasets import Dataset, Extent, Replica
from dataflow.documents import from_json, to_json
from dataflow.errors import (
    OperationFailed,
    PlacementError,
    SiteUnreachable,
    TransferFailed,
    UnreadableDataset,
    WorkerLost,
    to_document,
)
from dataflow.execution.events import (
    Asked,
    Broke,
    Crossed,
    Ended,
    Event,
    JobCreated,
    JobQueued,
    JobStarted,
    Progress,
    ReplanFailed,
    Replanned,
    Report,
    SegmentOrder,
    SiteLost,
    Stored,
    TimeLimitReached,
    UnitReported,
    UnitStarted,
)
from dataflow.execution.orders import order_id, order_of, wanted
from dataflow.execution.state import MOST_REPLANS, JobState, apply, begin, replay
from dataflow.execution.units import site_of
from dataflow.participant.planning import plan_rest
from dataflow.placement.make import make_plan
from dataflow.placement.measurements import Measurements
from dataflow.placement.plan import Plan, Segment, Transfer
from dataflow.testing.strategies import World, worlds

places = st.integers(0, 30)
around = st.sampled_from([0, 0, 0, 0, 1, -1, 2])
FAULTS = st.sampled_from(["user", "worker", "worker", "site", "site", "input", "input"])


def part_of(plan: Plan, name: str) -> Segment | Transfer:
    return plan.segment_by_id.get(name) or plan.transfer_by_id[name]


def stored(key: str, site: str) -> Stored:
    copy = Replica(
        key=key, site=site, store="results", url=f"sim://{site}/{key}", format="zarr", nbytes=8
    )
    dataset = Dataset(id=key, name=key, key=key, kind="array", extent=Extent(nbytes=8), site=site)
    return Stored(key=key, replica=copy, dataset=dataset)


def outputs_of(plan: Plan, name: str) -> list[tuple[str, str]]:
    part = part_of(plan, name)
    if isinstance(part, Transfer):
        return [(part.key, part.target)]
    return [(key, part.site) for key in part.outputs]


def exists(state: JobState, key: str, site: str) -> bool:
    """Whether there is something to read, said in another way than the state says it."""
    held = [copy for part in state.plan.segments for copy in part.replicas.values()]
    held += [*state.plan.replicas.values(), *(s.replica for s in state.stored.values())]
    return any(copy.key == key and copy.site == site for copy in held)


class Job(RuleBasedStateMachine):
    """One job under a planner that is real and sites that do what they like."""

    state: JobState

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.ends: str | None = None
        self.sent: dict[str, list[int]] = {}
        self.now = 1.0

    @initialize(
        world=worlds(max_sites=4, min_steps=3, max_steps=7),
        seed=st.integers(0, 1000),
        retries=st.integers(0, 2),
        keep=st.sampled_from(["results", "all"]),
        starts=st.sampled_from([True, True, True, False]),
    )
    def submit(self, world: World, seed: int, retries: int, keep: Any, starts: bool) -> None:
        self.world = world
        chance = random.Random(seed)  # spread out, so that there are several units
        pinned = {
            key: chance.choice([name for name, verdict in row.items() if verdict])
            for key, row in world.verdicts.items()
        }
        plan = make_plan(
            world.graph,
            topology=world.topology,
            replicas=world.replicas,
            verdicts=world.verdicts,
            measurements=world.measurements,
            keep=keep,
            pinned=pinned,
        )
        self.first = plan
        self.plans = [plan]
        created = JobCreated(job="j", plan=plan, retries=retries, time_limit=60.0, time=self.now)
        self.events.append(created)
        self.state = begin(created)
        if starts:
            self.happen(JobStarted(time=self.now))

    # --- what happens ---------------------------------------------------------------------------

    def happen(self, event: Event) -> None:
        before = self.state
        self.events.append(event)
        self.state = apply(before, event)
        assert apply(before, event) == self.state
        for name, unit in self.state.units.items():
            old = before.units.get(name)
            if unit.attempt and (old is None or old.attempt != unit.attempt):
                numbers = self.sent.setdefault(name, [])
                if unit.status == "running":
                    assert unit.attempt == len(numbers) + 1, "a number twice, or one left out"
                    assert wanted(before).units[name] == unit.attempt
                    numbers.append(unit.attempt)
                assert unit.attempt == len(numbers)
        if before.over:
            assert self.state.status == before.status
            assert self.state.error == before.error

    def tick(self) -> float:
        self.now += 1.0
        return self.now

    def name(self, place: int) -> str:
        names = [
            name for plan in self.plans for name in (*plan.segment_by_id, *plan.transfer_by_id)
        ]
        running = [name for name, unit in self.state.units.items() if unit.status == "running"]
        choices = [*running, *running, *names, "s:nothing:nowhere"]
        return choices[place % len(choices)]

    def site(self, place: int) -> str:
        names = [*(site.name for site in self.world.topology.sites), "nowhere"]
        return names[place % len(names)]

    @rule(queued=st.booleans())
    def is_taken_up(self, queued: bool) -> None:
        event = JobQueued(time=self.tick()) if queued else JobStarted(time=self.tick())
        self.happen(event)

    @rule(what=st.sampled_from(["suspend", "resume", "resume", "suspend", "resume", "cancel"]))
    def asked(self, what: Any) -> None:
        if what != "cancel" or self.now > 20:
            self.happen(Asked(what=what, by="anna", time=self.tick()))

    @precondition(lambda self: self.now > 25)
    @rule()
    def time_is_over(self) -> None:
        self.happen(TimeLimitReached(time=self.tick()))

    @rule(place=places, off=around)
    def sends(self, place: int, off: int) -> None:
        name = self.name(place)
        unit = self.state.units.get(name)
        attempt = (unit.attempt if unit else 0) + 1 + off
        site = site_of(self.state.plan, name) if unit else "nowhere"
        self.happen(UnitStarted(unit=name, site=site, attempt=attempt, time=self.tick()))

    @rule(place=places)
    def sends_what_is_wanted(self, place: int) -> None:
        want = sorted(wanted(self.state).units.items())
        if want:
            name, attempt = want[place % len(want)]
            site = site_of(self.state.plan, name)
            self.happen(UnitStarted(unit=name, site=site, attempt=attempt, time=self.tick()))

    def report(self, name: str, report: Report, off: int, later: int) -> None:
        unit = self.state.units.get(name)
        attempt, number = (unit.attempt, unit.reported) if unit else (1, 0)
        self.happen(
            UnitReported(
                unit=name,
                attempt=attempt + off,
                number=max(0, number + later),
                report=report,
                time=self.tick(),
            )
        )

    @rule(place=places, which=places, off=around, later=around)
    def stores(self, place: int, which: int, off: int, later: int) -> None:
        name = self.name(place)
        plan = self.state.plan if name in self.state.units else self.first
        if name not in plan.segment_by_id and name not in plan.transfer_by_id:
            return
        made = outputs_of(plan, name)
        self.report(name, stored(*made[which % len(made)]), off, later)

    @rule(place=places, off=around, later=around)
    def crosses(self, place: int, off: int, later: int) -> None:
        crossed = Crossed(key="k", source="a", target="b", nbytes=8, seconds=0.1)
        before = len(self.state.crossed)
        self.report(self.name(place), crossed, off, later)
        assert len(self.state.crossed) - before in (0, 1)

    @rule(place=places, off=around, later=around, ends=st.booleans())
    def ends_or_goes_on(self, place: int, off: int, later: int, ends: bool) -> None:
        report: Report = Ended() if ends else Progress(done=1, total=2)
        self.report(self.name(place), report, off, later)

    @rule(place=places, which=places, other=places, fault=FAULTS, off=around, odd=st.booleans())
    def breaks(self, place: int, which: int, other: int, fault: Any, off: int, odd: bool) -> None:
        name, site = self.name(place), self.site(other)
        if fault == "user":
            if self.now < 20:
                return
            error: Exception = OperationFailed("f", site, "ValueError: no")
        elif fault == "worker":
            error = WorkerLost("f", site, "killed")
        elif fault == "site":
            error = (SiteUnreachable(site, "cut"), TransferFailed("k", site, site, "x"))[which % 2]
        else:
            copies = [copy for copies in self.world.replicas.values() for copy in copies]
            copies += [s.replica for s in self.state.stored.values()]
            error = UnreadableDataset(copies[which % len(copies)].url, "it is gone")
        document = {"kind": 3, "args": "what is this"} if odd else to_document(error)
        before = self.state
        current = before.units.get(name)
        self.report(name, Broke(error=document, fault=fault), off, 0)
        if fault == "user" and current and current.status == "running" and not off:
            assert self.state.over
            assert not wanted(self.state).units

    @rule(place=places, fault=st.sampled_from(["worker", "site", "site", "input", "input"]))
    def running_unit_breaks(self, place: int, fault: Any) -> None:
        running = [name for name, unit in self.state.units.items() if unit.status == "running"]
        if not running:
            self.sends_what_is_wanted(place)
            return
        name = running[place % len(running)]
        before, unit = self.state, self.state.units[name]
        order = order_of(before, name, unit.attempt)
        read = order.inputs if isinstance(order, SegmentOrder) else {order.key: order.replica}
        gone = sorted(copy.url for copy in read.values())
        error: Exception = WorkerLost("f", order.site, "killed")
        if fault == "input" and gone:
            error = UnreadableDataset(gone[place % len(gone)], "it is gone")
        self.report(name, Broke(error=to_document(error), fault=fault), 0, 0)
        after = self.state
        if before.over or after.over:
            return
        if fault == "input":
            assert after.replan
            assert gone[place % len(gone)] in after.gone
        else:
            assert after.units[name].failures == unit.failures + 1
            assert fault == "site" or unit.failures < before.retries
        assert after.units[name].status == "waiting"

    @rule(place=places)
    def site_is_lost(self, place: int) -> None:
        if place % 4 == 0:
            self.happen(SiteLost(site=self.site(place // 4), reason="cut", time=self.tick()))
            assert self.state.over or self.site(place // 4) in self.state.lost

    @precondition(lambda self: self.state.replan)
    @rule()
    def planned_anew(self) -> None:
        self.happen(self.new_plan())

    def new_plan(self) -> Event:
        snapshot = Snapshot(topology=self.world.topology, replicas=self.world.replicas)
        try:
            plan = plan_rest(self.state, snapshot, Measurements(), "")
        except PlacementError as error:
            return ReplanFailed(error=self.state.cause or to_document(error), time=self.tick())
        self.plans.append(plan)
        return Replanned(plan=plan, because=self.state.replan, time=self.tick())

    @rule(place=places, fails=st.booleans())
    def planned_anew_although_nobody_asked(self, place: int, fails: bool) -> None:
        if place % 4:
            return
        before = self.state
        if fails and not before.replan:
            self.happen(ReplanFailed(error={}, time=self.tick()))
            assert self.state == before
        elif not fails:
            plan = self.plans[place % len(self.plans)]
            self.happen(Replanned(plan=plan, because="a whim", time=self.tick()))

    @rule(place=places)
    def one_unit_succeeds(self, place: int) -> None:
        want = sorted(wanted(self.state).units)
        if want:
            self.succeed(want[place % len(want)])

    def succeed(self, name: str) -> None:
        if self.state.units[name].status != "running":
            attempt = wanted(self.state).units[name]
            site = site_of(self.state.plan, name)
            order = order_of(self.state, name, attempt)
            assert order.id == order_id(self.state, name, attempt)
            self.happen(UnitStarted(unit=name, site=site, attempt=attempt, time=self.tick()))
        for key, site in outputs_of(self.state.plan, name):
            self.report(name, stored(key, site), 0, 0)
        self.report(name, Ended(), 0, 0)
        assert self.state.over or self.state.units[name].status == "ended"

    # --- what holds -----------------------------------------------------------------------------

    @precondition(lambda self: self.events)
    @invariant()
    def only_what_may_run_is_wanted(self) -> None:
        state, want = self.state, wanted(self.state)
        if state.over:
            assert not want.units
            assert not want.replan
            return
        assert want.replan == (bool(state.replan) and state.status not in ("created", "queued"))
        for name, attempt in want.units.items():
            unit, part = state.units[name], part_of(state.plan, name)
            assert site_of(state.plan, name) not in state.lost
            assert unit.failures <= state.retries
            if unit.status == "running":
                assert attempt == unit.attempt
                continue
            assert unit.status == "waiting"
            assert attempt == unit.attempt + 1
            assert state.status == "running"
            assert not state.replan
            if isinstance(part, Transfer):
                assert part.source not in state.lost
                assert part.replica or exists(state, part.key, part.source)
            else:
                assert all(exists(state, key, part.site) for key in part.inputs)
            assert order_of(state, name, attempt).site == site_of(state.plan, name)

    @precondition(lambda self: self.events)
    @invariant()
    def failures_and_replans_are_bounded(self) -> None:
        assert self.state.replans <= MOST_REPLANS
        for unit in self.state.units.values():
            assert unit.failures <= self.state.retries + 1

    @precondition(lambda self: self.events)
    @invariant()
    def ended_is_stored(self) -> None:
        state = self.state
        for name, unit in state.units.items():
            if unit.status == "ended" and not state.gone and not state.replan:
                assert all(pair in state.stored for pair in outputs_of(state.plan, name))
        if state.status == "done":
            assert all(state.results().values())
        assert (state.error is not None) == (state.over and state.status != "done")

    def teardown(self) -> None:
        if not self.events:
            return
        self.finish()
        assert replay(self.events) == self.state
        assert replay([from_json(Event, to_json(event)) for event in self.events]) == self.state  # type: ignore[arg-type]

    def finish(self) -> None:
        """From now on all sites behave: then every job ends."""
        if not self.state.over:
            self.happen(JobStarted(time=self.tick()))
            self.happen(Asked(what="resume", time=self.tick()))
        rounds = 0
        while not self.state.over:
            if self.state.replan:
                self.happen(self.new_plan())
                rounds = 0
                continue
            want = wanted(self.state).units
            assert want, f"nothing is wanted, and it is {self.state.status}"
            for name in sorted(want):
                self.succeed(name)
            rounds += 1
            assert rounds <= len(self.state.units)
        self.only_what_may_run_is_wanted()
        self.ended_is_stored()


Job.TestCase.settings = settings(max_examples=250, stateful_step_count=40)
TestJob = Job.TestCase
