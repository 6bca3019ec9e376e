"""Coming back: a cell that is run again, an interrupted wait, ``%flow``, and ``await``."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

import dataflow as flow
from dataflow.cli.running import _followed
from dataflow.errors import ConfigError
from dataflow.execution.view import JobView
from dataflow.session import attaching
from dataflow.session.magics import flow as magic


@flow.operation(kind="opaque", lazy=False, output="scalar")
def waits_for(x: Any, *, file: str) -> Any:
    import pathlib
    import time

    begun = time.monotonic()
    while not pathlib.Path(file).exists() and time.monotonic() - begun < 60:
        time.sleep(0.05)
    return x.sum()


def test_a_cell_that_is_run_again_finds_its_job(
    session: flow.Session,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "go"
    plan = session.plan(waits_for(session["run"], file=str(file)))
    first = session.submit(plan, tags={"a": "b"}, attach=True)
    assert not capsys.readouterr().out
    again = session.submit(plan, tags={"a": "b"}, attach=True)
    assert again.id == first.id
    assert f"attached to job {first.id}" in capsys.readouterr().out

    async def cell() -> Any:
        """In a loop that runs, plain calls work as well as waiting for them."""
        assert session.job(first.id).status in ("created", "queued", "running")
        file.touch()
        return await first

    assert float(asyncio.run(cell())) == 499500
    assert magic(f"job {first.id}").id == first.id
    assert first.id in [view.id for view in magic("jobs done")]
    assert "local" in repr(magic(f"why {first.id} waits_for"))
    assert [one.name for one in magic("datasets")]
    with pytest.raises(ConfigError, match="no question"):
        magic("why")
    assert magic("") is None
    assert "%flow jobs" in capsys.readouterr().out

    def interrupted(work: Any, **_: Any) -> None:
        work.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        first.wait()
    assert "goes on; run this cell again" in capsys.readouterr().out
    monkeypatch.setattr(first, "view", lambda: JobView(id=first.id, status="running"))
    with pytest.raises(typer.Exit):
        _followed(first, quiet=True)
    said = capsys.readouterr()
    assert not said.out
    assert said.err.splitlines() == [f"job {first.id} goes on; `dataflow job {first.id}` shows it"]


def test_only_ones_own_and_equal_jobs_count(session: flow.Session, tmp_path: Path) -> None:
    plan = session.plan(waits_for(session["run"], file="x"))
    mine = JobView(id="1", status="running", user="anna", outputs=plan.outputs, created=1.0)
    later = replace(mine, id="2", created=2.0)
    assert attaching.running([mine, later], plan, "anna", {}) == later
    for other in (
        replace(mine, status="done"),
        replace(mine, status="unknown"),
        replace(mine, user="bob"),
        replace(mine, outputs=("k",)),
        replace(mine, tags={"a": "b"}),
    ):
        assert attaching.running([other], plan, "anna", {}) is None
    assert not attaching.in_notebook()
