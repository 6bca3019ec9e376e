"""Many jobs of one journal: submission, requests, room, news, and going on after a restart."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulated import Federation, copies, events_of, federation, payloads, run

from dataflow.errors import JobCancelled, JobError, JobTimedOut, UnknownJob, from_document
from dataflow.execution import coordinator as coordinator_module
from dataflow.execution import driver
from dataflow.execution.coordinator import Coordinator
from dataflow.execution.events import JobCreated, JobQueued, JobStarted, UnitStarted
from dataflow.graph.graph import of_dataset
from dataflow.placement.plan import Plan
from dataflow.testing.strategies import centre, dataset, square


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "SHORTEST_PAUSE", 0.002)
    monkeypatch.setattr(driver, "LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(coordinator_module, "AGAIN_SECONDS", 0.02)
    monkeypatch.setattr(coordinator_module, "GLANCE_SECONDS", 0.01)


@pytest.fixture
def world(tmp_path: Path) -> Federation:
    runs = {f"run{n}": copies(f"run{n}", "uva") for n in range(1, 6)}
    return federation(tmp_path, runs)


def two_steps(world: Federation, name: str = "run1") -> Plan:
    """Two segments with a transfer between them."""
    graph = centre(square(of_dataset(dataset(name))))
    return world.plan(graph, scope={"square": "uva", "centre": "ams"})


def one_step(world: Federation, name: str = "run1") -> Plan:
    return world.plan(square(of_dataset(dataset(name))))


def of(world: Federation) -> Coordinator:
    assert world.coordinator is not None
    return world.coordinator


# --- submission -------------------------------------------------------------------------------------


def test_same_job_again_changes_nothing(world: Federation) -> None:
    plan = one_step(world)

    async def story(world: Federation) -> None:
        assert world.submit(plan) == world.submit(plan) == "job"
        await world.until("done")
        assert world.submit(plan) == "job"
        assert of(world).jobs() == ["job"]
        assert len(world.sites["uva"].started) == 1

    run(world, story)


def test_other_job_of_the_same_id(world: Federation) -> None:
    async def story(world: Federation) -> None:
        world.submit(one_step(world), user="anna")
        for plan, user in ((one_step(world), "bert"), (one_step(world, "run2"), "anna")):
            with pytest.raises(JobError, match="another job"):
                world.submit(plan, user=user)
        await world.until("done")

    run(world, story)


def test_unknown_job(world: Federation) -> None:
    async def story(world: Federation) -> None:
        with pytest.raises(UnknownJob):
            of(world).state("nobody")
        with pytest.raises(UnknownJob):
            of(world).ask("nobody", "cancel", "anna")
        with pytest.raises(UnknownJob):
            await of(world).events("nobody", 0, 1.0)

    run(world, story)


def test_listener_that_fails_harms_no_job(
    world: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(state: Any) -> None:
        raise OSError("the catalog is full")

    monkeypatch.setattr(world, "_changed", fails)

    async def story(world: Federation) -> None:
        world.submit(two_steps(world))
        world.check(await world.until("done"))

    run(world, story)


# --- requests ---------------------------------------------------------------------------------------


def test_suspend_lets_end_what_runs_and_begins_nothing(world: Federation) -> None:
    async def story(world: Federation) -> None:
        uva, ams = world.sites["uva"], world.sites["ams"]
        uva.delay = 0.3
        world.submit(two_steps(world))
        await world.until_true(lambda: uva.started)
        of(world).ask("job", "suspend", "anna")
        await world.until_true(lambda: of(world).state("job").done == 1)
        await asyncio.sleep(0.05)
        state = of(world).state("job")
        assert state.status == "suspended"
        assert not ams.started
        assert not uva.stopped
        of(world).ask("job", "resume", "anna")
        world.check(await world.until("done"))

    run(world, story)


def test_suspend_while_the_order_is_on_its_way(world: Federation) -> None:
    async def story(world: Federation) -> None:
        uva = world.sites["uva"]
        uva.answers_after = 0.01
        world.submit(one_step(world))
        await world.until_true(lambda: events_of(world, UnitStarted))
        of(world).ask("job", "suspend", "anna")
        of(world).ask("job", "resume", "anna")
        world.check(await world.until("done"))
        assert len(uva.started) == 1

    run(world, story)


def test_cancel_reaches_the_sites(world: Federation) -> None:
    async def story(world: Federation) -> None:
        uva = world.sites["uva"]
        uva.delay = 60
        world.submit(two_steps(world))
        await world.until_true(lambda: uva.started)
        of(world).ask("job", "cancel", "anna")
        state = await world.until("cancelled")
        assert state.error is not None
        error = from_document(state.error)
        assert isinstance(error, JobCancelled)
        assert error.by == "anna"
        await world.until_true(lambda: uva.stopped)
        assert uva.stopped == uva.started
        of(world).ask("job", "resume", "anna")
        assert of(world).state("job").status == "cancelled"

    run(world, story)


@pytest.mark.parametrize("later", [0.0, 0.01])
def test_cancel_reaches_the_sites_although_we_close(world: Federation, later: float) -> None:
    async def story(world: Federation) -> None:
        uva = world.sites["uva"]
        uva.delay = 60
        world.submit(one_step(world))
        await world.until_true(lambda: uva.started)
        uva.answers_after = 0.05
        of(world).ask("job", "cancel", "anna")
        if later:
            await asyncio.sleep(later)
            assert not of(world)._drives
        await world.close()
        assert uva.stopped == uva.started

    run(world, story)


def test_cancel_of_a_job_at_a_silent_site(world: Federation) -> None:
    async def story(world: Federation) -> None:
        world.sites["uva"].delay = 60
        world.submit(one_step(world))
        await world.until_true(lambda: world.sites["uva"].started)
        world.sites["uva"].cut = "cable pulled"
        of(world).ask("job", "cancel", "anna")
        await world.until("cancelled")

    run(world, story)


def test_time_limit(world: Federation) -> None:
    async def story(world: Federation) -> None:
        uva = world.sites["uva"]
        uva.delay = 60
        world.submit(one_step(world), time_limit=0.1)
        state = await world.until("timed-out")
        assert state.error is not None
        assert isinstance(from_document(state.error), JobTimedOut)
        await world.until_true(lambda: uva.stopped == uva.started)

    run(world, story)


def test_time_limit_goes_on_over_a_restart(world: Federation) -> None:
    async def story(world: Federation) -> None:
        world.sites["uva"].delay = 60
        world.submit(one_step(world), time_limit=60.0, time=time.time() - 58.0)
        await world.until_true(lambda: world.sites["uva"].started)
        await world.kill()
        world.open()
        await world.until("timed-out", limit=30.0)

    run(world, story)


# --- room -------------------------------------------------------------------------------------------


def test_queue(world: Federation) -> None:
    world.most_running = 2

    async def story(world: Federation) -> None:
        uva = world.sites["uva"]
        uva.delay = 0.05
        for n in range(1, 6):
            world.submit(one_step(world, f"run{n}"), f"job{n}")
        states = [of(world).state(f"job{n}").status for n in range(1, 6)]
        assert states == ["running", "running", "queued", "queued", "queued"]
        of(world).ask("job4", "cancel", "anna")
        assert of(world).state("job4").status == "cancelled"
        most = 0
        while not all(of(world).state(f"job{n}").over for n in range(1, 6)):
            running = [of(world).state(f"job{n}").status for n in range(1, 6)].count("running")
            most = max(most, running)
            await asyncio.sleep(0.001)
        assert most == 2
        assert [of(world).state(f"job{n}").status for n in (1, 2, 3, 5)] == ["done"] * 4
        assert len(uva.started) == 4
        assert [len(events_of(world, JobQueued, f"job{n}")) for n in range(1, 6)] == [0, 0, 1, 1, 1]
        ended = [events_of(world, JobStarted, f"job{n}")[0].time for n in (3, 5)]
        assert ended == sorted(ended)

    run(world, story)


def test_suspended_job_leaves_its_room(world: Federation) -> None:
    world.most_running = 1

    async def story(world: Federation) -> None:
        world.sites["uva"].delay = 0.03
        world.submit(two_steps(world, "run1"), "first")
        world.submit(one_step(world, "run2"), "second")
        of(world).ask("first", "suspend", "anna")
        await world.until("done", "second")
        assert of(world).state("first").status == "suspended"
        of(world).ask("first", "resume", "anna")
        await world.until("done", "first")

    run(world, story)


def test_queued_job_can_be_suspended(world: Federation) -> None:
    world.most_running = 1

    async def story(world: Federation) -> None:
        world.sites["uva"].delay = 0.03
        world.submit(one_step(world, "run1"), "first")
        world.submit(one_step(world, "run2"), "second")
        of(world).ask("second", "suspend", "anna")
        await world.until("done", "first")
        await asyncio.sleep(0.05)
        assert len(world.sites["uva"].started) == 1
        of(world).ask("second", "resume", "anna")
        await world.until("done", "second")

    run(world, story)


def test_a_job_can_be_too_late_while_it_waits_for_room(world: Federation) -> None:
    world.most_running = 1

    async def story(world: Federation) -> None:
        world.sites["uva"].delay = 60
        world.submit(one_step(world, "run1"), "first")
        world.submit(one_step(world, "run2"), "second", time_limit=5.0, time=time.time() - 4.9)
        world.submit(one_step(world, "run3"), "third")
        await world.until("timed-out", "second", limit=2.0)
        assert of(world).state("first").status == "running"
        assert of(world).state("third").status == "queued"
        assert len(world.sites["uva"].started) == 1

    run(world, story)


# --- news -------------------------------------------------------------------------------------------


def test_news_wakes_who_waits(world: Federation) -> None:
    async def story(world: Federation) -> None:
        world.sites["uva"].delay = 0.05
        world.submit(one_step(world))
        await world.until_true(lambda: world.sites["uva"].started)
        seen = list(await of(world).events("job", 0, 0.0))
        assert [type(event) for event in seen] == [JobCreated, JobStarted, UnitStarted]
        begun = time.monotonic()
        several = await asyncio.gather(*(of(world).events("job", len(seen), 30) for _ in range(5)))
        assert time.monotonic() - begun < 5
        assert all(several)
        while not of(world).state("job").over:
            seen += await of(world).events("job", len(seen), 30)
        seen += await of(world).events("job", len(seen), 30)
        assert world.journal is not None
        assert seen == world.journal.events("job")
        assert await of(world).events("job", len(seen), 30) == []

    run(world, story)


def test_no_news_within_the_time(world: Federation) -> None:
    async def story(world: Federation) -> None:
        world.sites["uva"].delay = 60
        world.submit(one_step(world))
        await world.until_true(lambda: world.sites["uva"].started)
        begun = time.monotonic()
        assert await of(world).events("job", 3, 0.05) == []
        assert 0.04 < time.monotonic() - begun < 5

    run(world, story)


def test_who_waits_is_let_go_at_the_end(world: Federation) -> None:
    async def story(world: Federation) -> None:
        world.sites["uva"].delay = 60
        world.submit(one_step(world))
        await world.until_true(lambda: world.sites["uva"].started)
        waits = asyncio.create_task(of(world).events("job", 3, 60))
        await asyncio.sleep(0.01)
        await world.close()
        assert await asyncio.wait_for(waits, 5) == []

    run(world, story)


def test_news_of_a_job_that_another_process_drives(world: Federation, tmp_path: Path) -> None:
    other = federation(tmp_path, world.replicas)

    async def story(world: Federation) -> None:
        world.sites["uva"].delay = 0.1
        world.submit(one_step(world))
        await world.until_true(lambda: world.sites["uva"].started)
        other.open()
        assert of(other).state("job").status == "running"
        with pytest.raises(JobError, match="another coordinator"):
            of(other).ask("job", "cancel", "anna")
        begun = time.monotonic()
        assert await of(other).events("job", 3, 30)
        assert time.monotonic() - begun < 5
        await world.until("done")
        assert of(other).state("job").status == "done"
        await other.end()

    run(world, story)


# --- going on ---------------------------------------------------------------------------------------


def test_closed_and_opened_again(world: Federation) -> None:
    async def story(world: Federation) -> None:
        uva = world.sites["uva"]
        uva.delay = 0.05
        world.submit(two_steps(world))
        await world.until_true(lambda: uva.started)
        await world.close()
        await asyncio.sleep(0.08)  # the site works on
        world.open()
        state = await world.until("done")
        world.check(state)
        assert len(uva.started) == 1
        assert len(events_of(world, JobStarted)) == 2

    run(world, story)


def test_suspended_job_stays_so_over_a_restart(world: Federation) -> None:
    async def story(world: Federation) -> None:
        world.submit(two_steps(world))
        of(world).ask("job", "suspend", "anna")
        await world.kill()
        world.open()
        await asyncio.sleep(0.05)
        assert of(world).state("job").status == "suspended"
        of(world).ask("job", "resume", "anna")
        world.check(await world.until("done"))

    run(world, story)


def test_queue_over_a_restart(world: Federation) -> None:
    world.most_running = 1

    async def story(world: Federation) -> None:
        world.sites["uva"].delay = 0.02
        for n in range(1, 5):
            world.submit(one_step(world, f"run{n}"), f"job{n}", time=100.0 + n)
        await world.kill()
        world.open()
        for n in range(1, 5):
            await world.until("done", f"job{n}")

    run(world, story)


def test_job_of_a_dead_process_is_taken_by_whoever_is_asked(
    world: Federation, tmp_path: Path
) -> None:
    other = federation(tmp_path, world.replicas)
    plan = one_step(world)

    async def story(world: Federation) -> None:
        other.open()
        for site in world.sites.values():
            site.delay = 60
        world.submit(plan, "first")
        world.submit(replace(plan), "second")
        await world.kill()
        of(other).ask("first", "suspend", "anna")
        assert of(other).state("first").status == "suspended"
        other.submit(plan, "second")
        await other.until("done", "second")
        of(other).ask("first", "resume", "anna")
        await other.until("done", "first")
        await other.end()

    run(world, story)


def test_unreadable_job_does_not_keep_others_from_going_on(world: Federation) -> None:
    async def story(world: Federation) -> None:
        world.sites["uva"].delay = 60
        for n in (1, 2):
            world.submit(one_step(world, f"run{n}"), f"job{n}")
        await world.kill()
        world.sites["uva"].delay = 0.001
        world.sites["uva"].restart()
        with sqlite3.connect(world.directory / "journal.db") as db:
            db.execute("UPDATE event SET body = '{}' WHERE job = 'job1' AND seq = 0")
        db.close()
        world.open()
        await world.until("done", "job2")

    run(world, story)


def test_journal_that_fails_for_a_while(world: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: Federation) -> None:
        journal = world.journal
        assert journal is not None
        append, chance = journal.append, random.Random(1)

        def fails(*args: Any, **how: Any) -> None:
            if chance.random() < 0.3:
                raise sqlite3.OperationalError("database or disk is full")
            append(*args, **how)
            if chance.random() < 0.3:
                raise sqlite3.OperationalError("disk I/O error")

        monkeypatch.setattr(journal, "append", fails)
        world.submit(two_steps(world))
        state = await world.until("done")
        world.check(state)
        monkeypatch.setattr(journal, "append", append)
        assert all(len(set(site.started)) == len(site.started) for site in world.sites.values())

    run(world, story)


def test_order_that_the_journal_does_not_take_is_not_sent(
    world: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    uva = world.sites["uva"]

    async def at_once() -> None:
        uva.asked += 1

    monkeypatch.setattr(uva, "_answer", at_once)

    async def story(world: Federation) -> None:
        journal = world.journal
        assert journal is not None
        append = journal.append

        def fails(job: str, events: Any, **how: Any) -> None:
            if any(isinstance(event, UnitStarted) for event in events):
                raise sqlite3.OperationalError("database or disk is full")
            append(job, events, **how)

        with monkeypatch.context() as broken:
            broken.setattr(journal, "append", fails)
            world.submit(one_step(world))
            await asyncio.sleep(0.1)
            assert uva.asked == 0
        await world.until("done")

    run(world, story)


def test_request_that_cannot_be_written_down_is_told(
    world: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: Federation) -> None:
        world.sites["uva"].delay = 0.05
        world.submit(one_step(world))
        journal = world.journal
        assert journal is not None

        def fails(*args: Any, **how: Any) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        with monkeypatch.context() as broken:
            broken.setattr(journal, "append", fails)
            with pytest.raises(JobError, match="ask again"):
                of(world).ask("job", "cancel", "anna")
        await world.until("done")

    run(world, story)


def test_job_that_another_took_over_is_let_go(world: Federation) -> None:
    async def story(world: Federation) -> None:
        world.sites["uva"].delay = 0.05
        world.submit(one_step(world))
        await world.until_true(lambda: world.sites["uva"].started)
        with sqlite3.connect(world.directory / "journal.db") as db:
            db.execute("UPDATE job SET coordinator = 'somebody'")
        db.close()
        await asyncio.sleep(0.1)
        assert of(world).state("job").status == "running"
        assert len(world.sites["uva"].started) == 1
        assert len(world.sites["uva"].stopped) == 0
        journal = world.journal
        assert journal is not None
        with pytest.raises(JobError, match="another coordinator"):
            journal.append("job", [JobStarted()])

    run(world, story)


def test_many_jobs_at_once(world: Federation) -> None:
    plans = [two_steps(world, f"run{n}") for n in range(1, 6)]

    async def story(world: Federation) -> None:
        for n in range(50):
            world.submit(plans[n % 5], f"job{n}")
        for n in range(50):
            world.check(await world.until("done", f"job{n}"))
        assert not of(world)._drives

    run(world, story)


def test_payloads_of_a_job_that_is_there_are_kept(world: Federation) -> None:
    """Code that was forgotten can be handed over by submitting once more."""
    plan = one_step(world)

    async def story(world: Federation) -> None:
        created = JobCreated(job="job", plan=plan, time=1.0)
        world.sites["uva"].cut = "away"
        of(world).submit(created, {})
        of(world).submit(created, payloads(plan))
        world.sites["uva"].cut = ""
        await world.until("done")

    run(world, story)
