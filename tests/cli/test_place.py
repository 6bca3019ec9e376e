"""``dataflow place``: files in, files out, exit codes."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataflow.placement.engine.interchange import write_problem
from dataflow.testing.problems import problem


def dataflow(*arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dataflow", "place", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    instance = problem("montage", 30, 1, policy="strict")
    work = instance.seconds.min(axis=1)
    document = write_problem(instance, speed=np.ones(instance.width), work=work)
    path = tmp_path_factory.mktemp("problem") / "p.json.gz"
    path.write_bytes(gzip.compress(json.dumps(document).encode()))
    return path


def test_place_and_check(file: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    done = dataflow(file, "--objective", "0.5", "--seed", "3", "-o", plan, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (
        figures["bounds"]["makespan"]
        <= figures["makespan"]
        <= figures["rivals"]["heft"]["makespan"] * 1.2
    )
    document = json.loads(plan.read_text())
    assert document["format"] == "placement-plan/1"
    assert document["engine_seconds"] > 0
    checked = dataflow("--check", file, plan, "--json")
    assert checked.returncode == 0, checked.stderr
    played = json.loads(checked.stdout)
    assert played["makespan"] == pytest.approx(figures["makespan"], rel=1e-12)
    assert played["bytes"] == pytest.approx(figures["bytes"])
    assert "heft" in dataflow(file).stdout
    document["site"][0] = 99
    plan.write_text(json.dumps(document))
    assert dataflow("--check", file, plan).returncode == 2
    document["site"][0] = 0
    document["transfers"] = [[0, 0, 0, 0, 0]]
    plan.write_text(json.dumps(document))
    refused = dataflow("--check", file, plan)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "transfer of item 0" in refused.stderr


def test_a_plan_for_another_network(file: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    for network, played in (("free", "free"), ("any", "serial")):
        done = dataflow(file, "--network", network, "-o", plan, "--json")
        assert done.returncode == 0, done.stderr
        checked = dataflow("--check", file, plan, "--network", played, "--json")
        makespan = json.loads(done.stdout)["makespan"]
        assert json.loads(checked.stdout)["makespan"] == pytest.approx(makespan, rel=1e-12)


def test_what_is_wrong(file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    for arguments, said in (
        ([broken], "is not JSON"),
        ([tmp_path / "missing.json"], "cannot be read"),
        ([file, "--objective", "speed"], "not makespan, bytes or a weight"),
        ([file, file], "--check goes with a PLAN"),
        ([file, "--check"], "--check goes with a PLAN"),
        ([file, "--network", "slow"], "not serial, free, fair or any"),
        ([file, "--network", "free", "--prove", "1"], "free has none"),
        ([file, "--check", file, "--network", "any"], "which can be played"),
    ):
        done = dataflow(*arguments)
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr
