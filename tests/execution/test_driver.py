"""One job over simulated sites: what is done when all is well, and about each thing that goes wrong."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from simulated import (
    Federation,
    SimulatedSite,
    broke,
    copies,
    events_of,
    federation,
    payloads,
    run,
    worker_lost,
)

from dataflow.errors import (
    GraphError,
    OperationFailed,
    SiteRefused,
    SiteUnreachable,
    TransferFailed,
    UnreadableDataset,
    from_document,
)
from dataflow.execution import driver
from dataflow.execution.events import (
    Broke,
    JobCreated,
    Progress,
    ReplanFailed,
    Replanned,
    SiteLost,
    UnitStarted,
)
from dataflow.execution.state import JobState
from dataflow.graph.graph import Graph, merge, of_dataset
from dataflow.placement.plan import Plan
from dataflow.testing.strategies import centre, dataset, spread, square, total


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "SHORTEST_PAUSE", 0.002)
    monkeypatch.setattr(driver, "LONGEST_PAUSE", 0.02)


def chain() -> Graph:
    return total(square(of_dataset(dataset("run1"))))


def error_of(state: JobState) -> Exception:
    assert state.error is not None
    return from_document(state.error)


# --- all is well ----------------------------------------------------------------------------------


def test_done(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva")})
    plan = world.plan(chain())

    async def story(world: Federation) -> None:
        world.submit(plan, tags={"paper": "fig3"}, user="anna")
        state = await world.until("done")
        world.check(state)
        assert state.done == len(state.units) == 1
        assert state.user == "anna"
        (found,) = state.results().values()
        assert [copy.site for copy in found] == ["uva"]

    run(world, story)


def test_results_are_brought_to_where_they_were_asked_for(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva")})
    plan = world.plan(chain(), result_at="ams")
    assert plan.transfers

    async def story(world: Federation) -> None:
        world.submit(plan)
        state = await world.until("done")
        world.check(state)
        (found,) = state.results().values()
        assert [copy.site for copy in found] == ["ams", "uva"]
        assert {(c.source, c.target) for c in state.crossed} == {("uva", "ams")}

    run(world, story)


def test_nothing_to_do_is_done(tmp_path: Path) -> None:
    graph = chain()
    (key,) = graph.outputs
    held = {"run1": copies("run1", "uva"), key: copies(key, "ams")}
    world = federation(tmp_path, held)

    async def story(world: Federation) -> None:
        world.submit(world.plan(graph))
        state = await world.until("done")
        assert state.results()[key] == (held[key][0],)
        assert not state.units

    run(world, story)


def test_order_is_in_the_journal_before_it_is_sent(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva")})

    async def story(world: Federation) -> None:
        world.sites["uva"].answers_after = 0.02
        world.submit(world.plan(chain()))
        await world.until_true(lambda: events_of(world, UnitStarted))
        assert world.sites["uva"].started == []
        await world.until("done")
        (started,) = events_of(world, UnitStarted)
        assert world.sites["uva"].started == [f"job:{started.unit}:1"]

    run(world, story)


def test_slow_answers(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva")})

    async def story(world: Federation) -> None:
        for site in world.sites.values():
            site.answers_after = 0.03
        world.sites["uva"].delay = 0.5  # longer than silence may last, yet it is not silent
        world.submit(world.plan(chain(), result_at="ams"))
        world.check(await world.until("done"))
        assert world.replanned == 0

    run(world, story)


def test_progress_is_not_written_down(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva")})

    class Chatty(SimulatedSite):
        async def _segment(self, order: Any, running: Any) -> Any:
            for done in range(5):
                self._report(running, Progress(done=done, total=5))
                await asyncio.sleep(0.002)
            return await super()._segment(order, running)

    chatty = Chatty("uva", world)
    chatty.seed(world.replicas["run1"][0])
    world.sites["uva"] = chatty

    async def story(world: Federation) -> None:
        world.submit(world.plan(chain()))
        world.check(await world.until("done"))
        assert world.journal is not None
        assert "progress" not in str(world.journal.events("job"))

    run(world, story)


def test_site_that_does_not_wait_is_not_asked_without_end(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva")})

    class Hasty(SimulatedSite):
        async def follow(self, order: str, since: int, wait: float) -> Any:
            self.asked += 1
            return tuple(self.orders[order].reports[since:])

    hasty = Hasty("uva", world)
    hasty.seed(world.replicas["run1"][0])
    hasty.delay = 0.2
    world.sites["uva"] = hasty

    async def story(world: Federation) -> None:
        world.submit(world.plan(chain()))
        await world.until("done")
        assert hasty.asked < 150

    run(world, story)


# --- failures -------------------------------------------------------------------------------------


def test_lost_worker_is_tried_again(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva")})

    async def story(world: Federation) -> None:
        world.sites["uva"].breaks.append(worker_lost("uva"))
        world.submit(world.plan(chain()))
        state = await world.until("done")
        world.check(state)
        assert [event.attempt for event in events_of(world, UnitStarted)] == [1, 2]
        assert world.sites["uva"].stopped == []

    run(world, story)


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_workers_lost_too_often(tmp_path: Path, retries: int) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva")})

    async def story(world: Federation) -> None:
        world.sites["uva"].breaks.extend([worker_lost("uva")] * 10)
        world.submit(world.plan(chain()), retries=retries)
        state = await world.until("failed")
        assert "killed" in str(error_of(state))
        assert len(events_of(world, UnitStarted)) == 1 + retries
        assert world.replanned == 0

    run(world, story)


def test_users_error_is_not_tried_again(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva")})

    async def story(world: Federation) -> None:
        wrong = OperationFailed("square", "uva", "ValueError: no")
        world.sites["uva"].breaks.append(broke(wrong, "user"))
        world.submit(world.plan(chain()), retries=5)
        state = await world.until("failed")
        assert error_of(state).args == wrong.args
        assert len(events_of(world, UnitStarted)) == 1

    run(world, story)


def test_failing_site_is_done_without(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva", "ams")})
    plan = world.plan(chain())
    (first,) = {segment.site for segment in plan.segments}
    (other,) = {"uva", "ams"} - {first}

    async def story(world: Federation) -> None:
        world.sites[first].breaks.extend([broke(SiteRefused(first, "disk full"), "site")] * 9)
        world.submit(plan)
        state = await world.until("done")
        world.check(state)
        assert state.lost == {first}
        assert len(world.sites[first].started) == 2
        assert set(world.sites[other].computed.values()) == {1}

    run(world, story)


def test_refusal_is_a_failure_of_the_site(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva")})

    async def story(world: Federation) -> None:
        world.sites["uva"].refuses = "your token has expired"
        world.submit(world.plan(chain()))
        state = await world.until("failed")
        assert "your token has expired" in str(error_of(state))
        assert world.replanned == 1

    run(world, story)


def test_copy_that_does_not_arrive_blames_its_source(tmp_path: Path) -> None:
    graph = spread(centre(of_dataset(dataset("run1"))), of_dataset(dataset("run2")))
    world = federation(tmp_path, {"run1": copies("run1", "uva"), "run2": copies("run2", "ams")})
    plan = world.plan(graph)
    moved = plan.transfers[0]

    async def story(world: Federation) -> None:
        wrong = broke(TransferFailed(moved.key, moved.source, moved.target, "reset"), "site")

        async def transfer(order: Any, running: Any) -> Any:
            return wrong

        world.sites[moved.target]._transfer = transfer  # type: ignore[method-assign]
        world.submit(plan)
        state = await world.until("failed")
        assert (state.error or {})["kind"] == TransferFailed.kind
        assert state.lost == {moved.source}

    run(world, story)


def test_site_that_breaks_its_word(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva")})

    async def story(world: Federation) -> None:
        world.sites["uva"].keeps_results = False
        world.submit(world.plan(chain()))
        state = await world.until("failed")
        assert "without all of its outputs" in str(error_of(state))

    run(world, story)


def test_mistake_of_ours_ends_the_job_with_it(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva")})

    async def story(world: Federation) -> None:
        async def start(order: Any) -> None:
            raise ZeroDivisionError("not foreseen")

        world.sites["uva"].start = start  # type: ignore[method-assign]
        world.submit(world.plan(chain()))
        state = await world.until("failed")
        assert "ZeroDivisionError: not foreseen" in str(error_of(state))
        assert not state.lost

    run(world, story)


def test_report_that_cannot_be_written_down_ends_the_job(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva")})

    async def story(world: Federation) -> None:
        odd = Broke(error={"kind": object()}, fault="worker")
        world.sites["uva"].breaks.extend([odd] * 5)
        world.submit(world.plan(chain()))
        state = await world.until("failed")
        assert "Serialization" in str(error_of(state))
        assert len(world.sites["uva"].started) == 2

    run(world, story)


@pytest.mark.parametrize("wrong", ["endless", "broken"])
def test_planner_that_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva", "ams")})
    plan = world.plan(chain())

    async def replan(state: JobState) -> Plan:
        if wrong == "broken":
            raise ZeroDivisionError("no plan")
        return replace(plan, seconds=math.inf)

    monkeypatch.setattr(world, "replan", replan)

    async def story(world: Federation) -> None:
        for site in world.sites.values():
            site.breaks.extend([broke(SiteRefused(site.name, "disk full"), "site")] * 2)
        world.submit(plan)
        state = await world.until("failed")
        text = str(error_of(state))
        assert "ZeroDivisionError" in text if wrong == "broken" else "disk full" in text

    run(world, story)


def test_more_is_lost_while_a_new_plan_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {"run1": copies("run1", "ams", "delft", "uva"), "run2": copies("run2", "ams", "uva")}
    world = federation(tmp_path, held)
    made = merge([square(of_dataset(dataset("run1"))), centre(of_dataset(dataset("run2")))])
    plan = world.plan(made, pinned={"square": "ams", "centre": "delft"})
    planner = world.replan

    async def slowly(state: JobState) -> Plan:
        await asyncio.sleep(0.3)
        return await planner(state)

    monkeypatch.setattr(world, "replan", slowly)

    async def story(world: Federation) -> None:
        for name in ("ams", "delft"):
            world.sites[name].delay = 60
        world.submit(plan)
        await world.until_true(lambda: world.sites["ams"].started)
        await world.until_true(lambda: any("s:" in o for o in world.sites["delft"].started))
        world.sites["ams"].cut = "cable pulled"
        await world.until_true(lambda: events_of(world, SiteLost))
        world.sites["delft"].cut = "cable pulled"
        state = await world.until("done")
        world.check(state)
        assert state.lost == {"ams", "delft"}
        assert world.replanned == 2
        assert len(events_of(world, Replanned)) == 1

    run(world, story)


# --- silence and restarts ---------------------------------------------------------------------------


def test_lost_site_gives_way_to_another_holder(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva", "ams")})
    plan = world.plan(chain())
    (first,) = {segment.site for segment in plan.segments}

    async def story(world: Federation) -> None:
        world.sites[first].delay = 60
        world.submit(plan)
        await world.until_true(lambda: world.sites[first].started)
        world.sites[first].cut = "cable pulled"
        state = await world.until("done")
        world.check(state)
        assert state.lost == {first}
        (lost,) = events_of(world, SiteLost)
        assert lost.reason == "cable pulled"

    run(world, story)


def test_only_copy_at_a_silent_site(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva")})

    async def story(world: Federation) -> None:
        world.sites["uva"].delay = 60
        world.submit(world.plan(chain()))
        await world.until_true(lambda: world.sites["uva"].started)
        world.sites["uva"].cut = "cable pulled"
        begun = time.monotonic()
        state = await world.until("failed")
        taken = time.monotonic() - begun
        error = error_of(state)
        assert isinstance(error, SiteUnreachable)
        assert error.site == "uva"
        assert 0.5 * world.lost_after < taken < 5 * world.lost_after
        assert len(events_of(world, ReplanFailed)) == 1

    run(world, story)


def test_short_silence_is_nothing(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva")})
    world.lost_after = 2.0

    async def story(world: Federation) -> None:
        uva = world.sites["uva"]
        uva.cut = "not up yet"
        uva.delay = 0.05
        world.submit(world.plan(chain()))
        for _ in range(3):
            await asyncio.sleep(0.02)
            uva.cut = ""
            await asyncio.sleep(0.02)
            uva.cut = "a hiccup"
        uva.cut = ""
        state = await world.until("done")
        world.check(state)
        assert not state.lost
        assert len(uva.started) == 1

    run(world, story)


def test_long_upload_that_fails_once(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva")})
    uva = world.sites["uva"]
    give, tries = uva.give_code, iter(range(99))

    async def slowly(code: str, payload: bytes) -> None:
        if next(tries) == 0:
            await asyncio.sleep(2 * world.lost_after)
            raise SiteUnreachable("uva", "connection reset")
        await give(code, payload)

    uva.give_code = slowly  # type: ignore[method-assign]

    async def story(world: Federation) -> None:
        world.submit(world.plan(chain()))
        state = await world.until("done")
        world.check(state)
        assert not state.lost

    run(world, story)


def test_restarted_site_gets_the_order_again(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva")})
    graph = centre(square(of_dataset(dataset("run1"))))

    async def story(world: Federation) -> None:
        uva, commits = world.sites["uva"], count()
        # It ends when one of two outputs is stored and the other about to be.
        world.at_point = lambda _, what: what == "before commit" and next(commits) == 1
        world.submit(world.plan(graph, keep="all"))
        state = await world.until("done")
        world.check(state)
        assert len(uva.started) == 2
        assert len(set(uva.started)) == 1
        assert sum(uva.interrupted.values()) == 1

    run(world, story)


def test_restart_of_a_site_and_then_of_the_coordinator(tmp_path: Path) -> None:
    """The list of reports that the next coordinator finds is a new and shorter one."""
    world = federation(tmp_path, {"run1": copies("run1", "uva")})
    plan = world.plan(chain(), result_at="ams")
    (move,) = plan.transfer_by_id

    async def story(world: Federation) -> None:
        ams = world.sites["ams"]
        ams.delay = 1.0
        world.submit(plan)
        assert world.coordinator is not None
        await world.until_true(lambda: world.coordinator.state("job").units[move].reported)
        ams.restart()
        ams.delay = 0.2
        ams.answers_after = 0.02
        await world.until_true(lambda: len(ams.started) == 2)
        await world.kill()
        world.open()
        state = await world.until("done")
        world.check(state)
        assert len(set(ams.started)) == 1
        assert len(state.crossed) == 1

    run(world, story)


def test_site_that_forgets_always(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva")})

    class Forgetful(SimulatedSite):
        async def follow(self, order: str, since: int, wait: float) -> Any:
            self.restart()
            return await super().follow(order, since, wait)

    forgetful = Forgetful("uva", world)
    forgetful.seed(world.replicas["run1"][0])
    world.sites["uva"] = forgetful

    async def story(world: Federation) -> None:
        world.submit(world.plan(chain()))
        state = await world.until("failed")
        assert "forgot its order" in str(error_of(state))
        assert len(forgetful.started) < 20

    run(world, story)


# --- inputs that are gone ---------------------------------------------------------------------------


def test_intermediate_result_that_is_gone_is_made_again(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva")})
    graph = centre(square(of_dataset(dataset("run1"))))
    plan = world.plan(graph, scope={"square": "uva", "centre": "ams"})
    (key,) = {transfer.key for transfer in plan.transfers}

    async def story(world: Federation) -> None:
        uva, ams = world.sites["uva"], world.sites["ams"]
        transfer = ams._transfer

        async def late(order: Any, running: Any) -> Any:
            if uva.commits[key] == 1:
                del uva.store[key]
            return await transfer(order, running)

        ams._transfer = late  # type: ignore[method-assign]
        world.submit(plan)
        state = await world.until("done")
        assert uva.commits[key] == 2
        assert state.replans == 1
        assert not state.gone
        assert not state.lost

    run(world, story)


def test_dataset_that_is_gone_is_read_elsewhere(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva", "ams")})
    plan = world.plan(chain())
    (first,) = {segment.site for segment in plan.segments}

    async def story(world: Federation) -> None:
        del world.sites[first].store["run1"]
        world.submit(plan)
        state = await world.until("done")
        world.check(state)
        assert state.gone == {f"file:///{first}/run1"}

    run(world, story)


def test_dataset_that_is_gone_everywhere(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva", "ams")})

    async def story(world: Federation) -> None:
        for name in ("uva", "ams"):
            del world.sites[name].store["run1"]
        world.submit(world.plan(chain()))
        state = await world.until("failed")
        error = error_of(state)
        assert isinstance(error, UnreadableDataset)
        assert error.reason == "there is no such thing"

    run(world, story)


# --- code -------------------------------------------------------------------------------------------


def test_code_is_given_once_per_site(tmp_path: Path) -> None:
    world = federation(tmp_path, {f"run{n}": copies(f"run{n}", "uva") for n in (1, 2, 3)})
    one = centre(of_dataset(dataset("run1")))

    async def story(world: Federation) -> None:
        world.submit(world.plan(one))
        await world.until("done")
        again = centre(of_dataset(dataset("run2")))
        world.submit(world.plan(again), "again")
        await world.until("done", "again")
        assert len(world.sites["uva"].given) == 1

    run(world, story)


def test_code_is_given_again_after_a_site_lost_it(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva")})

    async def story(world: Federation) -> None:
        uva = world.sites["uva"]
        start = uva.start

        async def wiped(order: Any) -> None:
            if not uva.started:
                uva.codes.clear()
            await start(order)

        uva.start = wiped  # type: ignore[method-assign]
        world.submit(world.plan(chain()))
        state = await world.until("done")
        world.check(state)
        assert len(uva.given) == 2 * len(payloads(state.plan))
        assert len(uva.started) == 2

    run(world, story)


def test_code_that_was_lost_in_a_restart(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva")})

    async def story(world: Federation) -> None:
        uva = world.sites["uva"]
        uva.delay = 0.05
        world.submit(world.plan(chain()))
        await world.until_true(lambda: uva.started)
        uva.codes.clear()
        uva.restart()
        state = await world.until("done")
        world.check(state)
        assert len(uva.given) == 2 * len(payloads(state.plan))
        assert len(set(uva.started)) == 1

    run(world, story)


def test_code_that_nobody_has(tmp_path: Path) -> None:
    world = federation(tmp_path, {"run1": copies("run1", "uva")})

    async def story(world: Federation) -> None:
        assert world.coordinator is not None
        world.coordinator.submit(JobCreated(job="job", plan=world.plan(chain())), {})
        state = await world.until("failed")
        assert isinstance(error_of(state), GraphError)
        assert "submit the plan from the notebook" in str(error_of(state))

    run(world, story)
