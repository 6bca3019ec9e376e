"""Data of the notebook's own machine in steps at other sites: nobody can ask for it, so it is brought."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import dataflow as flow
from dataflow.testing.federation import Federation


@flow.operation(kind="opaque", lazy=False)
def difference(x: Any, y: Any) -> Any:
    return x - y


@pytest.fixture
def federation(tmp_path: Path) -> Any:
    with Federation(tmp_path / "sites", ["one"], wires=False) as federation:
        yield federation


def test_a_step_at_another_site_reads_what_lies_here(federation: Any, tmp_path: Path) -> None:
    document = yaml.safe_load(federation.sites_file.read_text())
    document["site"] = {"name": "laptop", "workers": 1, "memory": "1 GB"}
    document["stores"] = [{"name": "results", "url": str(tmp_path / "results")}]
    path = federation.sites_file.with_name("laptop.yaml")
    path.write_text(yaml.safe_dump(document))
    here, there = np.random.default_rng(1).random((300, 100)), np.zeros((300, 100))
    np.save(tmp_path / "mine.npy", here)
    np.save(federation.data("one") / "theirs.npy", there)
    with flow.connect(path, state=tmp_path / "laptop", user="anna") as session:
        session.register(tmp_path / "mine.npy", name="mine")
        session.register(federation.data("one") / "theirs.npy", name="theirs", site="one")
        graph = difference(session["mine"], session["theirs"])
        plan = session.plan(graph, scope={"difference": "one"}, result_at="one")
        (transfer,) = plan.transfers
        assert (transfer.source, transfer.target, transfer.via) == ("laptop", "one", "laptop")
        job = session.submit(plan)
        np.testing.assert_array_equal(job.result(60), here)
        (entry,) = job.ledger()
        assert (entry.source, entry.target) == ("laptop", "one")
        assert entry.nbytes == (tmp_path / "mine.npy").stat().st_size
        assert job.view().coordinator == "laptop"
