"""A notebook goes to a site with Grid Engine by papermill, and its cells come back over the link."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from bed_network import until
from bed_sites import Sites

import dataflow as flow
from dataflow.client.probe import SIZES
from dataflow.testing.bed import Bed

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("papermill")

GRID_ENGINE = {
    "queue": "flow.q",
    "interface": "eth0",
    "scheduler_interface": "lan0",
    "idle": "60 s",
    "look": "1 s",
    "orphaned": "15 s",
}
#: Elements of 8 bytes: 500 MB.
LENGTH = 62_500_000

OPERATIONS = """
import dataflow as flow

@flow.operation(kind="opaque", lazy=False)
def total(x, *, folder):
    import time
    open(f"{folder}/total-{time.time_ns()}", "w").close()
    return x.sum()

@flow.operation(kind="opaque", lazy=False)
def spread(x, *, folder):
    import time
    open(f"{folder}/spread-{time.time_ns()}", "w").close()
    return x.max() - x.min()
"""
WAITS = """
import os, time
while not os.path.exists(f"{folder}/go"):
    time.sleep(0.2)
"""


def notebook(file: Path) -> None:
    cell = nbformat.v4.new_code_cell
    parameters = cell('dataset = "none"\nfolder = ""')
    parameters.metadata.tags = ["parameters"]
    found = nbformat.v4.new_notebook()
    found.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "python"}
    found.cells = [
        parameters,
        cell(OPERATIONS),
        cell('session = flow.connect("sites.yaml")\nprint(session.user)'),
        cell("first = session.submit(total(session[dataset], folder=folder))"),
        cell("print(float(first.result()))"),
        cell(WAITS),
        cell("second = session.submit(spread(session[dataset], folder=folder))"),
        cell("print(float(second.result()))"),
    ]
    nbformat.write(found, file)


def said(file: Path) -> str:
    """All that cells have printed, as far as papermill has written it."""
    try:
        cells = json.loads(file.read_text())["cells"]
    except (OSError, ValueError):
        return ""
    return "".join("".join(o.get("text", "")) for c in cells for o in c.get("outputs", ()))


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_a_notebook_goes_to_half_a_gigabyte(bed: Bed, tmp_path: Path) -> None:
    host = bed.host("hpc")
    host.run("qdel -u $USER", check=False)
    backend = {"workers": 1, "memory": "2 GB", "sge": GRID_ENGINE}
    sites = Sites(
        bed, tmp_path, ["hpc"], more={"hpc": {"site": {"name": "hpc"}, "backend": backend}}
    )
    papermill = None
    try:
        document = yaml.safe_load(sites.file.read_text())
        sites.file.write_text(yaml.safe_dump({**document, "state": str(tmp_path / "notebook")}))
        home = f"/home/{bed.user}/{sites.home}"
        make = f"import numpy as np; np.save('{home}/data/big.npy', np.ones({LENGTH}))"
        host.run([bed.python, "-c", f"{make}; import os; os.mkdir('{home}/marks')"])
        with flow.connect(sites.file, user="anna") as session:
            session.register(f"{home}/data/big.npy", name="big", site="hpc")

        notebook(tmp_path / "in.ipynb")
        out = tmp_path / "out.ipynb"
        command: list[Any] = [sys.executable, "-m", "papermill", "--engine", "dataflow"]
        command += ["--autosave-cell-every", "1", tmp_path / "in.ipynb", out]
        command += ["-p", "dataset", "big", "-p", "folder", f"{home}/marks"]
        environment = {**os.environ, "DATAFLOW_SITE_FILE": str(sites.file), "DATAFLOW_USER": "anna"}
        before = bed.link("hpc").bytes

        def start() -> subprocess.Popen[bytes]:
            with (tmp_path / "papermill.log").open("ab") as log:
                return subprocess.Popen(
                    command, cwd=tmp_path, env=environment, stdout=log, stderr=log
                )

        papermill = start()
        until(lambda: papermill.poll() is not None or "62500000.0" in said(out), seconds=280)
        assert papermill.poll() is None, (tmp_path / "papermill.log").read_text()
        assert said(out).split() == ["anna", "62500000.0"]  # cell by cell, while it runs

        papermill.send_signal(signal.SIGKILL)
        papermill.wait()
        (number,) = [
            line.split()[0]
            for line in host.run("qstat").stdout.splitlines()[2:]
            if line.split()[2].startswith("run-")
        ]
        host.run(f"qdel {number}")
        host.run(f"touch {home}/marks/go")

        papermill = start()
        assert papermill.wait(280) == 0, (tmp_path / "papermill.log").read_text()
        assert said(out).split() == ["anna", "62500000.0", "0.0"]
        marks = host.run(f"ls {home}/marks").stdout.split()
        assert sorted(mark.partition("-")[0] for mark in marks) == ["go", "spread", "total"]
        crossed = bed.link("hpc").bytes - before
        # Beside it, the first of the two sessions finds out how wide the road is, and may look twice.
        assert crossed.to + crossed.from_ - sum(SIZES) - SIZES[-1] < 2_000_000, crossed
    finally:
        if papermill is not None and papermill.poll() is None:
            papermill.kill()
            papermill.wait()
        sites.end()
        host.run("qdel -u $USER", check=False)
    until(lambda: not host.run("qstat").stdout, seconds=60)
