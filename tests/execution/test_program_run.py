"""Commands of an order run without a worker; who runs them here is bash, by the script that goes to qsub."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench import Bench, NoBackend, failure_of, value_of

from dataflow.backends.gridengine import Accounted
from dataflow.backends.processes import ProcessPrograms
from dataflow.backends.program_jobs import asked_for, script, why_not
from dataflow.backends.program_watch import overtime, read_marks
from dataflow.backends.programs import OURS, AskedFor, ProgramOrder, RunsPrograms, Turn
from dataflow.config.backend_records import Sge
from dataflow.errors import OperationFailed, SiteRefused, WalltimeExceeded, WorkerLost
from dataflow.execution.events import Ended, Ran, Stored
from dataflow.execution.program_run import Programs
from dataflow.execution.programs import Program
from dataflow.graph.operation import shell

SITE = Sge(queue="all.q", parallel_environment="smp")
copied = shell("cat {x} > {output:copy.txt}; echo said; echo blamed >&2", name="copied")


class ByBash:
    """Runs programs as processes, by the script of a batch job; one after the other."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.orders: list[ProgramOrder] = []
        self.killed = False

    def asked_for(self, order: ProgramOrder) -> AskedFor:
        if why := why_not(order, SITE):
            raise SiteRefused("ams", why)
        return asked_for(order, SITE, 0)

    async def run_programs(self, order: ProgramOrder, tell: Callable[[int, Turn], None]) -> None:
        self.orders.append(order)
        for place in range(len(order.directories)):
            tell(place, Turn(status="pending", batch=f"7.{place + 1}"))
        for place, directory in enumerate(order.directories):
            process = await asyncio.create_subprocess_exec(
                *("timeout", "-s", "KILL", str(order.walltime or 60), "bash", "-c"),
                script(order.directories, SITE),
                env={"PATH": "/usr/bin:/bin", "SGE_TASK_ID": str(place + 1)},
                start_new_session=True,
            )
            tell(place, Turn(status="running", batch=f"7.{place + 1}", since=1.0))
            try:
                await process.wait()
            finally:
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)  # what it has started, too
                    self.killed = True
                    await process.wait()
            found = read_marks(directory)
            record = Accounted(id="7", exit_status=137, failed="37: h_rt", seconds=order.walltime)
            killed = found.exit_status is None
            tell(
                place,
                Turn(
                    status="ended",
                    batch=f"7.{place + 1}",
                    since=found.began,
                    until=found.ended,
                    exit_status=found.exit_status,
                    reason=record.reason if killed else "",
                    overtime=killed and overtime(order.walltime, record),
                    accounted=record if killed else None,
                ),
            )

    async def accounting(self, batch: str) -> Accounted | None:
        return Accounted(id="7", host="n1", seconds=2.0, slots=1)


class Batch(NoBackend):
    def __init__(self, programs: RunsPrograms) -> None:
        self.programs = programs  # type: ignore[assignment]


@pytest.fixture
def ability(tmp_path: Path) -> ByBash:
    return ByBash(tmp_path / "runs")


@pytest.fixture
def bench(tmp_path: Path, ability: ByBash) -> Bench:
    found = Bench(tmp_path, Batch(ability))  # type: ignore[arg-type]
    (found.data / "x.txt").write_text("a\nb\n")
    return found


def programs_of(reports: list[Any]) -> list[Program]:
    return [report.program for report in reports if isinstance(report, Ran)]


def test_it_can_do_what_is_asked_for(ability: ByBash) -> None:
    assert isinstance(ability, RunsPrograms)


def test_from_staging_to_the_account(bench: Bench, ability: ByBash) -> None:
    graph = copied(x=bench.register(bench.data / "x.txt"))
    reports = asyncio.run(bench.reports(bench.order(graph)))
    assert isinstance(reports[-1], Ended)
    told = programs_of(reports)
    assert list(dict.fromkeys(one.status for one in told)) == ["new", "pending", "running", "done"]
    (stored,) = [report for report in reports if isinstance(report, Stored)]
    assert value_of(stored)[0].read_text() == "a\nb\n"
    last = told[-1]
    assert (last.stdout, last.stderr, last.exit_status) == ("said\n", "blamed\n", 0)
    assert last.accounting is not None
    assert last.accounting.host == "n1"
    assert last.demanded is not None
    assert last.demanded.queue == "all.q"
    assert list(ability.runs.iterdir()) == [], "what ended well leaves nothing"


def test_a_chain_and_a_sweep(bench: Bench, ability: ByBash) -> None:
    x = bench.register(bench.data / "x.txt")
    swept = shell("head -n {n} {x} > {output:head.txt}", name="swept")
    ends = [copied(x=swept(x=x, n=n)) for n in (1, 2)]
    stored = asyncio.run(bench.stored(*ends))
    assert sorted(value_of(report)[0].read_text() for report in stored) == ["a\n", "a\nb\n"]
    assert [(order.name, len(order.directories)) for order in ability.orders] == [
        ("swept", 2),
        ("copied", 2),
    ]


def test_what_fails(bench: Bench, ability: ByBash) -> None:
    x = bench.register(bench.data / "x.txt")

    def broke(command: str, **needs: Any) -> tuple[Exception, str, Program]:
        graph = shell(command, name="f", **needs)(x=x)
        reports = asyncio.run(bench.reports(bench.order(graph)))
        return *failure_of(reports), programs_of(reports)[-1]

    error, fault, program = broke("echo why >&2; exit 3; cat {x} > {output}")
    assert isinstance(error, OperationFailed)
    assert (error.traceback, fault, program.status) == ("why", "user", "failed")
    assert (Path(program.directory) / OURS / "stderr").read_text() == "why\n", "kept to look at"
    error, fault, program = broke("sleep 611; cat {x} > {output}", walltime=1)
    assert isinstance(error, WalltimeExceeded)
    assert (fault, program.status) == ("user", "failed")
    error, fault, program = broke("kill -KILL $PPID; cat {x} > {output}")
    assert isinstance(error, WorkerLost)
    assert (fault, program.reason) == ("worker", "Grid Engine says: failed 37: h_rt")
    error, fault, program = broke(": {x} {output:map.png}")
    assert "wrote no {output:map.png}" in str(error)


async def running(bench: Bench, order: Any) -> None:
    """Wait until somebody has been told that a program runs."""
    while not any(
        isinstance(report, Ran) and report.program.status == "running"
        for report in await bench.runner.follow(order.id, 0, 0)
    ):
        await asyncio.sleep(0.02)


def test_cancelled_programs_are_told_so(bench: Bench, ability: ByBash) -> None:
    slow = shell("sleep 612; cat {x} > {output}")(x=bench.register(bench.data / "x.txt"))
    order = bench.order(slow)

    async def story() -> list[Any]:
        await bench.runner.start(order)
        await running(bench, order)
        await bench.runner.cancel(order.id)
        return await bench.reports(order)

    assert programs_of(asyncio.run(story()))[-1].status == "cancelled"
    assert ability.killed


def test_cancelled_programs_may_end_by_themselves(tmp_path: Path) -> None:
    farewell = tmp_path / "farewell"
    bench = Bench(tmp_path, Batch(ProcessPrograms(tmp_path / "runs")))  # type: ignore[arg-type]
    (bench.data / "x.txt").write_text("a\n")
    trap = f"trap 'sleep 0.3; touch {farewell}; exit 0' TERM; echo begun; sleep 614 & wait; cat {{x}} > {{output}}"
    order = bench.order(shell(trap)(x=bench.register(bench.data / "x.txt")))

    async def story() -> list[Any]:
        await bench.runner.start(order)
        await running(bench, order)
        while not any(file.read_text() for file in tmp_path.glob("runs/**/stdout")):
            await asyncio.sleep(0.02)
        await bench.runner.cancel(order.id)
        return await bench.reports(order)

    assert programs_of(asyncio.run(story()))[-1].status == "cancelled"
    assert farewell.exists()


def test_a_directory_with_something_else_in_it(bench: Bench, ability: ByBash) -> None:
    graph = copied(x=bench.register(bench.data / "x.txt"))
    order = bench.order(graph)
    asked = Programs(ability, order.id, lambda program: None, lambda manifest, seconds: None)
    (step,) = graph.steps.values()
    directory = asked.directory(step.key)
    directory.mkdir(parents=True)
    (directory / "thesis.tex").write_text("years of work")
    error, fault = failure_of(asyncio.run(bench.reports(order)))
    assert isinstance(error, SiteRefused)
    assert "is not empty" in str(error)
    assert fault == "site"
    assert (directory / "thesis.tex").exists()
    assert not ability.orders
