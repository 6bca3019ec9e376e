"""A job's RO-Crate, by the word of a library that is not ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

import dataflow as flow
from dataflow.errors import JobError


@flow.operation(kind="opaque", lazy=False, output=8_000)
def times(x: Any, *, number: int) -> Any:
    return x * number


@flow.operation(kind="opaque", lazy=False, output="scalar")
def total(x: Any) -> Any:
    return x.sum()


def test_what_others_read_of_it(session: flow.Session, tmp_path: Path) -> None:
    graph = total(times(session["run"], number=3))
    job = session.submit(graph, tags={"paper": "fig3"})
    assert int(job.result(60)) == 1_498_500
    path = job.crate(tmp_path / "crate")
    assert {one.name for one in path.iterdir()} == {
        "ro-crate-metadata.json",
        "plan.json",
        "ledger.json",
        "journal.jsonl",
    }
    with pytest.raises(FileExistsError):
        job.crate(path)
    rocrate = pytest.importorskip("rocrate.rocrate", reason="rocrate is not installed")
    crate = rocrate.ROCrate(path)
    assert crate.name == f"dataflow job {job.id}"
    assert crate.root_dataset["keywords"] == "paper=fig3"
    assert {file.id for file in crate.data_entities} == {
        "plan.json",
        "ledger.json",
        "journal.jsonl",
    }
    (whole,) = [one for one in crate.get_entities() if one.id == f"#job-{job.id}"]
    assert whole["actionStatus"] == "http://schema.org/CompletedActionStatus"
    steps = {one["name"]: one for one in crate.get_by_type("CreateAction") if one is not whole}
    assert set(steps) == {"times", "total"}
    first = steps["times"]
    assert first["location"]["name"] == "local"
    assert first["agent"]["name"] == "anna"
    assert first["startTime"] <= first["endTime"]
    assert first["instrument"]["softwareVersion"] == times.declared.version
    data, number = first["object"]
    assert data["name"] == "run"
    run = session.datasets(name="run")[0]
    assert f"key: {run.key}" in data["identifier"]
    assert (number["name"], number["value"]) == ("number", 3)
    (result,) = steps["total"]["result"]
    copy = session.participant.snapshot().replicas_of(graph.key)[0]
    assert f"digest at local: {copy.fingerprint}" in result["identifier"]
    assert any(
        word.startswith("xarray ") for word in steps["total"]["instrument"]["softwareRequirements"]
    )
    # Every word that something refers to is there.
    document = json.loads((path / "ro-crate-metadata.json").read_text())
    known = {one["@id"] for one in document["@graph"]}
    assert len(known) == len(document["@graph"])

    def refers(value: Any) -> set[str]:
        if isinstance(value, dict):
            return (
                {value["@id"]}
                if set(value) == {"@id"}
                else set().union(*map(refers, value.values()))
            )
        return set().union(*map(refers, value)) if isinstance(value, list) else set()

    outside = refers(document["@graph"]) - known
    assert all(id.startswith(("http://schema.org/", "https://w3id.org/")) for id in outside)


def test_one_file_is_the_same_each_time(session: flow.Session, tmp_path: Path) -> None:
    job = session.submit(times(session["run"], number=4))
    job.wait(60)
    first, second = job.crate(tmp_path / "a.zip"), session.job(job.id).crate(tmp_path / "b.zip")
    assert first.read_bytes() == second.read_bytes()
    with ZipFile(first) as packed:
        assert "ro-crate-metadata.json" in packed.namelist()
    assert not list(tmp_path.glob(".*")), "nothing is left over"


def test_a_result_that_was_there_already(session: flow.Session, tmp_path: Path) -> None:
    graph = times(session["run"], number=6)
    session.submit(graph).wait(60)
    job = session.submit(graph, attach=False)
    job.wait(60)
    path = job.crate(tmp_path / "crate")
    found = {
        one["@id"]: one
        for one in json.loads((path / "ro-crate-metadata.json").read_text())["@graph"]
    }
    assert found[f"#job-{job.id}"]["result"] == [{"@id": f"#data-{graph.key}"}]
    data = found[f"#data-{graph.key}"]
    (copy,) = session.participant.snapshot().replicas_of(graph.key)
    assert f"digest at local: {copy.fingerprint}" in data["identifier"]
    assert data["contentSize"] == str(copy.nbytes)


def test_a_job_that_goes_on_has_none(
    session: flow.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = session.submit(times(session["run"], number=5))
    job.wait(60)
    whole = job.events()
    monkeypatch.setattr(job, "events", lambda: whole[:2])
    with pytest.raises(JobError, match=r"job\.wait"):
        job.crate(tmp_path / "crate")
    assert not (tmp_path / "crate").exists()
