"""Commands that plan and run, on this machine; and a batch by papermill's own engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import structlog
import yaml

import dataflow as flow
from dataflow.cli.app import main

GRAPH = """
import dataflow as flow

@flow.operation(kind="opaque", lazy=False, output="scalar")
def power(x, *, n):
    return (x ** n).sum()

def graph(session, dataset, n=1):
    return power(session[dataset], n=n)

def nothing(session):
    return 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATAFLOW_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("DATAFLOW_SITE_FILE", raising=False)
    structlog.reset_defaults()  # a test before may have listened to it, which counts as configured
    monkeypatch.syspath_prepend(str(tmp_path))  # what the command adds goes with the test
    (tmp_path / "graphs.py").write_text(GRAPH)
    return tmp_path


def status(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    return int(ended.value.code or 0)


def test_plan_run_and_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(folder / "run1.npy", np.arange(4.0))
    with flow.connect() as session:
        session.register(folder / "run1.npy")
    file = folder / "graphs.py"
    asked = (file, "-p", "dataset=run1", "-p", "n=2")
    assert status("plan", *asked) == 0
    assert "power" in capsys.readouterr().out
    assert status("run", *asked, "--tag", "a=b", "--json") == 0
    view = json.loads(capsys.readouterr().out)
    assert view["status"] == "done"
    assert view["tags"] == {"a": "b"}
    assert status("why", view["id"]) == 0
    assert "local" in capsys.readouterr().out
    assert status("plan", file) == 2
    assert "-p NAME=VALUE" in capsys.readouterr().err
    assert status("plan", f"{file}:nothing") == 2
    assert status("plan", f"{file}:missing") == 2
    assert "graph, nothing" in capsys.readouterr().err
    assert status("plan", folder / "none.py") == 2


def test_a_batch_tells_of_each(folder: Path) -> None:
    cells = ["x = 0", "assert x != 2, 'two is bad'"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    notebook.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "p"}
    notebook.cells[0].metadata.tags = ["parameters"]
    nbformat.write(notebook, folder / "n.ipynb")
    sweep = {"notebook": "n.ipynb", "engine": "papermill", "output": "o/{x}.ipynb"}
    (folder / "s.yaml").write_text(yaml.safe_dump({**sweep, "sweep": {"x": [1, 2]}}))
    command = [sys.executable, "-m", "dataflow", "batch", "--json", str(folder / "s.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert [(one["parameters"]["x"], one["status"]) for one in found] == [
        (1, "done"),
        (2, "failed"),
    ]
    assert "two is bad" in found[1]["reason"]
    assert (folder / "o" / "2.ipynb").exists()
