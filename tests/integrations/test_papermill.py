"""papermill with our engine, on this machine as the one site: nested session, failure, resume."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import papermill
import pytest

import dataflow as flow
from dataflow.agreements import Agreement, Relation
from dataflow.errors import NotGranted
from dataflow.execution.invitation import NOTEBOOK
from dataflow.integrations.notebook_step import notebook_graph

CELLS = (
    'dataset = "none"\nfolder = ""\nfail = False',
    "import dataflow as flow\nsession = flow.connect('sites.yaml')",
    '@flow.operation(kind="opaque", lazy=False)\n'
    "def doubled(x, *, folder):\n"
    "    import time\n"
    '    open(f"{folder}/{time.time_ns()}", "w").close()\n'
    "    return 2 * x",
    "job = session.submit(doubled(session[dataset], folder=folder))\n"
    "print(session.user, float(job.result().sum()))",
    'if fail:\n    raise ValueError("not today")',
    "print('end')",
)


def notebook(file: Path) -> None:
    found = nbformat.v4.new_notebook()
    found.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "python"}
    found.cells = [nbformat.v4.new_code_cell(text) for text in CELLS]
    found.cells[0].metadata.tags = ["parameters"]
    nbformat.write(found, file)


def said(file: Path) -> list[str]:
    cells = json.loads(file.read_text())["cells"]
    return ["".join(o["text"]) for c in cells for o in c.get("outputs", ()) if "text" in o]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    engines = entry_points(group="papermill.engine").names
    assert "dataflow" in engines, "this environment is older than the engine: install anew"
    monkeypatch.setenv("DATAFLOW_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("DATAFLOW_USER", "anna")
    monkeypatch.delenv("DATAFLOW_SITE_FILE", raising=False)
    np.save(tmp_path / "run1.npy", np.arange(1000.0))
    (tmp_path / "marks").mkdir()
    notebook(tmp_path / "in.ipynb")
    return tmp_path


def run(folder: Path, name: str, **parameters: Any) -> Path:
    out = folder / name
    papermill.execute_notebook(
        str(folder / "in.ipynb"),
        str(out),
        parameters={"folder": str(folder / "marks"), **parameters},
        engine_name="dataflow",
        progress_bar=False,
    )
    return out


@pytest.mark.slow
@pytest.mark.timeout(900)  # kernels and workers come up one after the other
def test_a_failed_notebook_goes_on_where_it_was(folder: Path) -> None:
    with flow.connect() as session:
        session.register(folder / "run1.npy")
    with pytest.raises(papermill.PapermillExecutionError, match="not today"):
        run(folder, "bad.ipynb", dataset="run1", fail=True)
    assert said(folder / "bad.ipynb") == ["anna 999000.0\n"]
    good = run(folder, "good.ipynb", dataset="run1")
    assert said(good) == ["anna 999000.0\n", "end\n"]
    assert len(list((folder / "marks").iterdir())) == 1  # what was stored was not made again
    with flow.connect() as session:
        outer = [view for view in session.jobs() if view.tags.get("name") == NOTEBOOK]
        assert sorted(view.status for view in outer) == ["done", "failed"]
        nested = [view for view in session.jobs() if NOTEBOOK in view.tags]
        assert {view.tags[NOTEBOOK] for view in nested} == {view.id for view in outer}
        assert len(nested) == 2


def test_running_a_notebook_is_a_right_of_its_own(folder: Path) -> None:
    """Who may ask for sums may not have a notebook run."""
    relation = Relation(
        id="r1", users=("anna",), datasets=("*",), archetypes=("*",), request_types=("sums",)
    )
    text = json.loads((folder / "in.ipynb").read_text())
    with flow.connect() as session:
        session.register(folder / "run1.npy")
        graph = notebook_graph(text, [session["run1"]])
        session.agree(Agreement(name="a1", site="local", relations=(relation,)))
        with pytest.raises(NotGranted):
            session.plan(graph, request=NOTEBOOK)
        more = replace(relation, request_types=("sums", NOTEBOOK))
        session.agree(Agreement(name="a1", site="local", relations=(more,)))
        assert session.plan(graph, request=NOTEBOOK).steps
        with pytest.raises(NotGranted, match="a notebook is a request of type 'notebook'"):
            session.plan(graph, request="sums")
