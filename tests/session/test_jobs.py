"""The handle on a job, and all that shows itself: from what is known, asking nobody."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

import dataflow as flow
from dataflow.session import jobs


@flow.operation(kind="opaque", lazy=False, output="scalar")
def held(x: Any, *, gate: str) -> Any:
    import pathlib
    import time

    while not pathlib.Path(gate).exists():
        time.sleep(0.05)
    return x.sum()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """What the operation waits for; it is there at the end, whatever happens: there is one worker."""
    path = tmp_path / "gate"
    yield path
    path.touch()


@contextmanager
def no_questions(session: flow.Session, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Who asks anything of the session's loop, or opens a connection in this thread, fails."""
    me = threading.get_ident()
    connect = socket.socket.connect

    def refused(*work: Any, **_: Any) -> NoReturn:
        for one in work:
            if hasattr(one, "close"):
                one.close()
        raise AssertionError("somebody was asked")

    def guarded(self: socket.socket, address: Any) -> None:
        if threading.get_ident() == me:
            refused()
        connect(self, address)

    with monkeypatch.context() as patched:
        patched.setattr(session._loop, "run", refused)
        patched.setattr(session._loop, "begin", refused)
        patched.setattr(session._loop, "beside", refused)
        patched.setattr(socket.socket, "connect", guarded)
        yield


def test_nothing_asks_to_show_itself(
    session: flow.Session, gate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = held(session["run"], gate=str(gate))
    plan = session.plan(graph)
    job = session.submit(plan)
    found = session.job(job.id)
    listing, table = session.datasets(), session.jobs()
    things = [session, job, found, plan, graph, listing, listing[0], session.topology()]
    things += [table, job.ledger(), plan.why("held"), session.verdicts(graph), job.logs()]
    things += [job.programs(), session.participant.snapshot()]
    with no_questions(session, monkeypatch):
        for thing in things:
            assert repr(thing)
            if hasattr(thing, "_repr_html_"):
                assert thing._repr_html_()
        for one in (session, job, found, plan, graph):
            assert "\n" not in repr(one)
        assert "run" in session._ipython_key_completions_()
        assert repr(job).startswith(f"<Job {job.id} ")
        assert "when last heard of" in repr(job)
        assert found.id in repr(found)
        assert "flow.view(job) follows" in found._repr_html_()
        with pytest.raises(AssertionError, match="somebody was asked"):
            assert job.status
    gate.touch()
    assert job.wait(60) == "done"
    assert found.status == "done"
    with no_questions(session, monkeypatch):
        for one in (job, found):
            assert repr(one) == f"<Job {job.id} done, 1 of 1 units>"
            assert "last heard" not in one._repr_html_()


@pytest.mark.parametrize("notebook", [True, False])
def test_an_interrupted_await_leaves_the_job_running(
    session: flow.Session,
    gate: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    notebook: bool,
) -> None:
    """A notebook's interrupt cancels the cell's task; so does a limit of time in a program."""
    monkeypatch.setattr(jobs, "in_notebook", lambda: notebook)
    job = session.submit(held(session["run"], gate=str(gate)), tags={"which": str(notebook)})

    async def cell() -> Any:
        return await job

    async def interrupted() -> None:
        task = asyncio.create_task(cell())
        while job._state is None or job._state.status != "running":
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(interrupted(), 60))
    said = capsys.readouterr().out
    assert (f"job {job.id} goes on" in said) is notebook
    assert (f"flow.job('{job.id}')" in said) is notebook
    assert job.status == "running"
    gate.touch()
    assert int(asyncio.run(cell())) == 499500


@flow.operation(kind="opaque", lazy=False, output="scalar")
def multiplied(x: Any, *, by: int) -> Any:
    return x.sum() * by


def test_several_results_are_opened_side_by_side(
    session: flow.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = session.submit([multiplied(session["run"], by=by) for by in (3, 1, 2)])
    job.wait(60)
    assert [int(value) for value in job.result()] == [1498500, 499500, 999000]
    read, all_of_them = type(session)._read, threading.Barrier(3)

    def together(self: Any, *what: Any, **how: Any) -> Any:
        all_of_them.wait(30)  # raises where one is opened after the other
        return read(self, *what, **how)

    monkeypatch.setattr(type(session), "_read", together)
    assert [int(value) for value in job.result()] == [1498500, 499500, 999000]

    def broken(self: Any, dataset: Any, *what: Any, **how: Any) -> Any:
        raise OSError(dataset.key)

    monkeypatch.setattr(type(session), "_read", broken)
    with pytest.raises(OSError, match=job._refreshed().plan.outputs[0]):
        job.result()
