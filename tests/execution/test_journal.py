"""The journal: what was appended is there, and each job has one coordinator, dead or alive."""

from __future__ import annotations

import fcntl
import math
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.datasets import Dataset, Extent, Lineage, Replica, Variable
from dataflow.errors import JobError, PlacementError, UnknownJob
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
    SiteLost,
    Stored,
    TimeLimitReached,
    UnitReported,
    UnitStarted,
)
from dataflow.execution.journal import Journal
from dataflow.execution.state import apply, begin
from dataflow.graph.graph import of_dataset
from dataflow.placement.make import make_plan
from dataflow.placement.plan import Plan
from dataflow.policy.check import check
from dataflow.sites import Site, Topology
from dataflow.testing.strategies import World, dataset, replica, total, worlds

TOPOLOGY = Topology(sites=(Site(name="ams"), Site(name="uva")))


def plan() -> Plan:
    graph = total(of_dataset(dataset("run1")))
    copies = {"run1": [replica("run1", "uva", 1000)]}
    return make_plan(
        graph, topology=TOPOLOGY, replicas=copies, verdicts=check(graph, TOPOLOGY), result_at="ams"
    )


def plan_in(world: World) -> Plan:
    return make_plan(
        world.graph,
        topology=world.topology,
        replicas=world.replicas,
        verdicts=world.verdicts,
        measurements=world.measurements,
    )


def created(job: str = "j", time: float = 1.0) -> JobCreated:
    return JobCreated(job=job, plan=plan(), time=time, tags={"a": "b"})


@contextmanager
def opened(directory: Path) -> Iterator[Journal]:
    journal = Journal(directory)
    try:
        yield journal
    finally:
        journal.close()


# --- in one process -------------------------------------------------------------------------------


def test_created_once(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        assert journal.create(created())
        assert not journal.create(created())
        assert not journal.create(created(time=99.0))
        assert journal.events("j") == [created()]
        assert journal.state("j") == begin(created())
        assert journal.mine("j")
        assert journal.knows("j")


def test_events_are_read_in_order(tmp_path: Path) -> None:
    more: list[Event] = [JobStarted(time=2.0), Asked(what="suspend"), Asked(what="resume")]
    with opened(tmp_path) as journal:
        journal.create(created())
        journal.append("j", more[:1])
        journal.append("j", more[1:])
        journal.append("j", [])
        assert journal.events("j") == [created(), *more]
        assert journal.events("j", 2) == more[1:]
        assert journal.events("j", 4) == []
        state = begin(created())
        for event in more:
            state = apply(state, event)
        assert journal.state("j") == state


def test_unknown_job(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        assert not journal.knows("j")
        assert not journal.mine("j")
        for question in (journal.events, journal.state):
            with pytest.raises(UnknownJob):
                question("j")
        with pytest.raises(UnknownJob):
            journal.append("j", [JobStarted()])


def test_newest_first(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        for time, job in ((2.0, "b"), (1.0, "a"), (3.0, "c")):
            journal.create(created(job, time))
        assert journal.jobs() == ["c", "b", "a"]


def test_all_of_an_append_or_nothing(tmp_path: Path) -> None:
    wrong: Any = object()
    with opened(tmp_path) as journal:
        journal.create(created())
        with pytest.raises(Exception):  # noqa: B017
            journal.append("j", [JobStarted(), wrong])
        assert journal.events("j") == [created()]
        journal.append("j", [JobStarted()])
        assert len(journal.events("j")) == 2


def test_plan_that_could_not_be_read_again_is_refused(tmp_path: Path) -> None:
    endless = replace(created(), plan=replace(plan(), seconds=math.inf))
    with opened(tmp_path) as journal:
        with pytest.raises(PlacementError, match="cannot be written down"):
            journal.create(endless)
        assert not journal.knows("j")
        assert journal.create(created())
        with pytest.raises(PlacementError, match="cannot be written down"):
            journal.append("j", [JobStarted(), Replanned(plan=endless.plan, because="x")])
        assert len(journal.events("j")) == 1


def test_close_can_be_repeated(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.create(created())
    journal.close()
    journal.close()
    with pytest.raises(sqlite3.ProgrammingError):
        journal.events("j")


def test_threads(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        for n in range(4):
            journal.create(created(f"j{n}"))

        def write(n: int) -> None:
            for time in range(50):
                journal.append(f"j{n % 4}", [JobStarted(time=float(time))])

        threads = [threading.Thread(target=write, args=[n]) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for n in range(4):
            assert len(journal.events(f"j{n}")) == 101


# --- several coordinators ---------------------------------------------------------------------------


def test_living_coordinator_keeps_its_jobs(tmp_path: Path) -> None:
    with opened(tmp_path) as one, opened(tmp_path) as other:
        one.create(created())
        assert other.adopt() == []
        assert one.adopt() == []
        assert not other.mine("j")
        assert not other.create(created())
        assert other.events("j") == one.events("j")
        with pytest.raises(JobError, match="another coordinator"):
            other.append("j", [JobStarted()])
        assert len(one.events("j")) == 1
        one.append("j", [JobStarted()])
        assert len(other.events("j")) == 2


def test_closed_coordinator_leaves_its_unfinished_jobs(tmp_path: Path) -> None:
    with opened(tmp_path) as one:
        for time, job in ((3.0, "late"), (1.0, "early"), (2.0, "ended")):
            one.create(created(job, time))
        one.append("ended", [Asked(what="cancel")], over=True)
    with opened(tmp_path) as other, opened(tmp_path) as third:
        assert other.adopt() == ["early", "late"]
        assert other.adopt() == third.adopt() == []
        assert other.mine("late")
        other.append("late", [JobStarted()])
        assert third.jobs() == ["late", "ended", "early"]


PROGRAM = """
import sys, time
from pathlib import Path
from dataflow.documents import from_json
from dataflow.execution.events import JobCreated, JobStarted
from dataflow.execution.journal import Journal
journal = Journal(Path(sys.argv[1]))
for line in sys.stdin:
    event = from_json(JobCreated, line)
    journal.create(event)
    journal.append(event.job, [JobStarted(time=2.0)])
    print(event.job, flush=True)
"""


@contextmanager
def process(directory: Path, *jobs: JobCreated) -> Iterator[subprocess.Popen[str]]:
    """Another process that has made these jobs and lives."""
    from dataflow.documents import to_json

    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin
        assert child.stdout
        try:
            for job in jobs:
                child.stdin.write(to_json(job) + "\n")
                child.stdin.flush()
                assert child.stdout.readline().strip() == job.job
            yield child
        finally:
            child.kill()


def test_jobs_of_a_killed_process_are_adopted_and_of_a_living_one_not(tmp_path: Path) -> None:
    with (
        opened(tmp_path) as journal,
        process(tmp_path, created("dead")) as dead,
        process(tmp_path, created("living")) as living,
    ):
        assert journal.adopt() == []
        assert journal.events("dead") == [created("dead"), JobStarted(time=2.0)]
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        assert journal.adopt() == ["dead"]
        journal.append("dead", [JobStarted(time=3.0)])
        assert not journal.mine("living")
        living.send_signal(signal.SIGKILL)
        living.wait()
        assert journal.adopt() == ["living"]
        assert journal.adopt() == []
        # What the dead held is cleared away.
        assert len(list((tmp_path / "coordinators").iterdir())) == 1


def test_locks_without_jobs_are_cleared_away(tmp_path: Path) -> None:
    with process(tmp_path) as child, opened(tmp_path) as journal:
        locks = tmp_path / "coordinators"
        while len(list(locks.iterdir())) < 2:
            assert child.poll() is None
        child.kill()
        child.wait()
        journal.adopt()
        assert len(list(locks.iterdir())) == 1


def test_lock_that_was_cleared_away_before_it_was_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, first = fcntl.flock, iter([True])

    def late(file: int, how: int) -> None:
        if next(first, False):
            for lock in (tmp_path / "coordinators").iterdir():
                lock.unlink()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with opened(tmp_path) as one, opened(tmp_path) as other:
        one.create(created())
        assert other.adopt() == []


def test_forked_process_does_not_hold_on_to_jobs(tmp_path: Path) -> None:
    """As a killed notebook leaves them that used multiprocessing."""
    one = Journal(tmp_path)
    one.create(created())
    ready, is_ready = os.pipe()
    ended, ends = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads of the test run
        child = os.fork()
    if child == 0:
        os.close(ends)
        os.write(is_ready, b"1")
        os.read(ended, 1)
        os._exit(0)
    try:
        os.read(ready, 1)
        with opened(tmp_path) as other:
            assert other.adopt() == []
            one._db.close()
            one._let_go()  # as the end of the process does
            assert other.adopt() == ["j"]
    finally:
        os.close(ends)
        os.waitpid(child, 0)
        for pipe in (ready, is_ready, ended):
            os.close(pipe)


# --- everything that can happen comes back as it was -------------------------------------------------

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
seconds = st.floats(0, 1e12)
counts = st.integers(0, 2**53)
shapes = st.lists(st.integers(-1, 2**40), max_size=3).map(tuple)
variables = st.builds(
    Variable,
    name=words,
    dims=st.lists(words, max_size=3).map(tuple),
    shape=shapes,
    dtype=words,
    nbytes=counts,
    chunks=st.none() | shapes,
)
extents = st.builds(
    Extent, nbytes=counts, variables=st.lists(variables, max_size=2).map(tuple), guessed=words
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
errors = st.dictionaries(words, plain, max_size=3)
lineages = st.builds(
    Lineage,
    operation=words,
    version=words,
    kind=words,
    inputs=st.lists(words, max_size=3).map(tuple),
    parameters=st.dictionaries(words, plain, max_size=2),
)
tags = st.dictionaries(words, words, max_size=2)
datasets = st.builds(
    Dataset,
    id=words,
    name=words,
    key=words,
    kind=st.sampled_from(["array", "dataset", "table", "files"]),
    extent=extents,
    site=words,
    tags=tags,
    lineage=st.none() | lineages,
    created=seconds,
)
replicas = st.builds(
    Replica,
    key=words,
    site=words,
    store=words,
    url=words,
    format=st.sampled_from(["zarr", "csv", "files"]),
    nbytes=counts,
    variable=st.none() | words,
)
reports = st.one_of(
    st.builds(Stored, key=words, replica=replicas, dataset=datasets, seconds=seconds),
    st.builds(Crossed, key=words, source=words, target=words, nbytes=counts, seconds=seconds),
    st.builds(Ended, seconds=seconds),
    st.builds(Broke, error=errors, fault=st.sampled_from(["user", "worker", "site", "input"])),
    st.builds(Progress, done=counts, total=counts, message=words),
)
plans = worlds(max_sites=3, min_steps=1, max_steps=4).map(plan_in)
happenings = st.one_of(
    st.builds(JobQueued, time=seconds),
    st.builds(JobStarted, time=seconds),
    st.builds(UnitStarted, unit=words, site=words, attempt=counts, time=seconds),
    st.builds(UnitReported, unit=words, attempt=counts, report=reports, number=counts),
    st.builds(UnitReported, unit=words, attempt=counts, report=reports, time=seconds),
    st.builds(SiteLost, site=words, reason=words, time=seconds),
    st.builds(Replanned, plan=plans, because=words, time=seconds),
    st.builds(ReplanFailed, error=errors, time=seconds),
    st.builds(Asked, what=st.sampled_from(["cancel", "suspend", "resume"]), by=words),
    st.builds(TimeLimitReached, time=seconds),
)
beginnings = st.builds(
    JobCreated,
    job=words,
    plan=plans,
    user=words,
    tags=tags,
    retries=st.integers(0, 9),
    time_limit=st.none() | seconds,
    time=seconds,
)


@settings(max_examples=80)
@given(first=beginnings, rest=st.lists(happenings, max_size=8), cut=st.integers(0, 8))
def test_everything_comes_back_as_it_was(first: JobCreated, rest: list[Any], cut: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        with opened(Path(directory)) as journal:
            journal.create(first)
            journal.append(first.job, rest[:cut])
            journal.append(first.job, rest[cut:])
        with opened(Path(directory)) as journal:
            found = journal.events(first.job)
            assert found == [first, *rest]
            assert [type(event) for event in found] == [type(event) for event in (first, *rest)]
            state = begin(first)
            for event in rest:
                state = apply(state, event)
            assert journal.state(first.job) == state
