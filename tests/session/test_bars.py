"""Bars: in a real kernel, on a real terminal, and nowhere else."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from dataflow.execution.pace import Pace
from dataflow.execution.view import view_of
from dataflow.session.bars import bar, line
from dataflow.testing import staged

#: Takes longer than the second after which a bar is shown.
GRAPH = """
import dataflow as flow

@flow.operation(kind="opaque", lazy=False, output="scalar")
def slow(x):
    import time
    time.sleep(4)
    return x.sum()

def graph(session):
    return slow(session["run"])
"""


def test_a_line_says_what_runs_and_how_long_it_takes() -> None:
    plan = staged.plan(8, 4)
    pace = Pace()
    assert not line(pace, 0.0)
    pace.take(staged.journal(plan, until=0.5))
    assert pace.state is not None
    (running,) = (name for name, unit in pace.state.units.items() if unit.status == "running")
    said = line(pace, 1_010.0)
    part = plan.segment_by_id.get(running) or plan.transfer_by_id[running]
    for label in {plan.label(key) for key in getattr(part, "steps", ()) or (part.key,)}:  # type: ignore[union-attr]
        assert label in said
    assert re.search(r"about \S+ \S+ left \(.* to .*\)$", said), said
    pace = Pace()
    pace.take(staged.journal(plan))
    assert line(pace, 2_000.0) == "done"
    assert view_of(pace.state, "").done == len(pace.state.units)  # type: ignore[arg-type]


def test_many_units_are_counted() -> None:
    plan = staged.plan(12, 8)
    events = staged.journal(plan, until=0.0)
    pace = Pace()
    pace.take(events)
    assert pace.state is not None
    started = [event for event in events if event.type == "unit-started"]
    names = [name for name in pace.state.units if name != started[0].unit]
    pace.take(
        [type(started[0])(unit=name, site="x", attempt=1, time=1_000.0) for name in names[:4]]
    )
    assert ", 2 more, about" in line(pace, 1_001.0)


def test_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    for wanted in (True, False):
        with bar("1", Pace(), wanted=wanted) as show:
            assert show is None
    assert not capsys.readouterr().err


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("DATAFLOW_STATE_DIR", str(tmp_path / "state"))
    np.save(tmp_path / "run.npy", np.arange(1000))
    (tmp_path / "graph.py").write_text(GRAPH)
    before = [sys.executable, "-m", "dataflow"]
    subprocess.run(
        [*before, "register", str(tmp_path / "run.npy")], check=True, capture_output=True
    )
    return [*before, "run", str(tmp_path / "graph.py")]


def on_terminal(command: list[str], **environment: str) -> str:
    """What a command writes to its terminal; its table goes to a pipe."""
    mine, its = pty.openpty()
    wide = {"COLUMNS": "200", "TERM": "xterm", **environment}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=its, env={**os.environ, **wide}
    ) as process:
        os.close(its)
        written = b""
        with suppress(OSError):  # the end of a terminal
            while part := os.read(mine, 65536):
                written += part
        assert process.stdout is not None
        assert b" done: local/" in process.stdout.read()
    os.close(mine)
    assert process.returncode == 0
    return written.decode()


def test_on_a_terminal(program: list[str]) -> None:
    written = on_terminal(program)
    assert re.search(r"job [0-9a-f]{16}", written)
    assert "0/1" in written
    assert "slow local, about" in written
    last = written.rsplit("\n", 1)[-1]
    assert "job" not in last, "it is gone in the end"


def test_not_where_the_setting_says_so(program: list[str]) -> None:
    assert on_terminal(program, DATAFLOW_PROGRESS="false") == ""


def test_not_in_a_pipe(program: list[str]) -> None:
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert not done.stderr


def test_in_a_notebook(tmp_path: Path) -> None:
    np.save(tmp_path / "run.npy", np.arange(1000))
    cells = [
        GRAPH,
        f"session = flow.connect(state={str(tmp_path / 'state')!r})\n"
        f"session.register({str(tmp_path / 'run.npy')!r});",
        "job = session.submit(graph(session))\nint(job.result())",
        "int(job.result())",
        "int(await session.submit(slow(slow(session['run']))))",
        "session.close()",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one) for one in cells])  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    waited, there, awaited = (notebook.cells[number].outputs for number in (2, 3, 4))

    def shown(outputs: list[Any]) -> tuple[str, str]:
        one = next(o for o in outputs if o.output_type == "display_data")
        return one.data["text/plain"], one.data["text/html"]

    for outputs in (waited, awaited):
        text, html = shown(outputs)
        assert re.fullmatch(r"job [0-9a-f]{16}: (\d) of \1 units, done", text)
        assert text in html
        assert "<progress" not in html, "a bar that is over is none"
        assert len(outputs) == 2, "one line and the result"
    assert [one.output_type for one in there] == ["execute_result"], "nothing was to be waited for"
