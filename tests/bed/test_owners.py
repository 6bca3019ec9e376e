"""Owners, lost sites and third parties that are down, behind real links that are cut: DY-11, DY-12."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from bed_network import until
from bed_sites import Sites

import dataflow as flow
from dataflow.agreements import Agreement, Relation
from dataflow.errors import DataflowError, NoAllowedSite, NotGranted
from dataflow.testing.bed import Bed


@flow.operation(role="computeProvider", lazy=False, output="scalar")
def mean(x: Any, *, seconds: float = 0.0) -> Any:
    import time

    time.sleep(seconds)
    return x.mean()


def agreement(site: str, archetype: str, *providers: str) -> Agreement:
    relation = Relation(
        id="anna",
        users=("anna",),
        request_types=("statistics",),
        datasets=("*",),
        archetypes=(archetype,),
        compute_providers=providers,
    )
    return Agreement(name="data", site=site, relations=(relation,))


def all_there(session: flow.Session) -> bool:
    return not session.topology().away


def granted(session: flow.Session, wanted: Agreement) -> None:
    """Have a site agree, and wait until the news is here."""
    session.agree(wanted)
    until(lambda: [a.relations for a in session.agreements(wanted.site)] == [wanted.relations])


@pytest.fixture
def sites(bed: Bed, tmp_path: Path) -> Iterator[Sites]:
    found = Sites(bed, tmp_path, ["hpc", "edge", "third"])
    document = yaml.safe_load(found.file.read_text())
    document["timeouts"] = {"away_after": "5 s", "lost_after": "6 s"}
    found.file.write_text(yaml.safe_dump(document))
    yield found
    for name in found.names:
        bed.link(name).heal()
    found.end()


def test_dy11_and_dy12(sites: Sites) -> None:
    """One story: starting the agents takes longer than both of them."""
    hpc = float(sites.values["hpc"].mean())
    with sites.session() as session:
        for site in ("hpc", "edge"):
            granted(session, agreement(site, "computeToData"))
        for site in ("hpc", "edge"):  # the workers are there
            until(lambda: all_there(session))
            float(
                session.submit(session.plan(mean(session[site]), request="statistics")).result(120)
            )
        until(lambda: all_there(session))
        with pytest.raises(NotGranted, match="request type 'other' is not among statistics"):
            session.plan(mean(session["hpc"]), request="other")

        graphs = [mean(session["hpc"], seconds=0.1), mean(session["edge"], seconds=60.0)]
        whole = session.submit(session.plan(graphs, request="statistics"))
        part = session.submit(session.plan(graphs, request="statistics", partial=True))
        until(lambda: all(len(job._refreshed().stored) == 1 for job in (whole, part)))
        sites.bed.link("edge").cut()
        begun = time.monotonic()
        assert whole.wait(30) == "failed"
        assert time.monotonic() - begun < 10, "DY-11"
        with pytest.raises(DataflowError, match="edge"):
            whole.result()
        assert part.wait(30) == "done"
        assert float(part.result(30)) == pytest.approx(hpc)
        assert "edge" in next(iter(part.missing.values()))
        assert "incomplete" in part.view().message
        sites.bed.link("edge").heal()
        until(lambda: all_there(session), seconds=60)

        granted(session, agreement("hpc", "dataThroughTtp", "third"))
        sites.bed.link("third").cut()
        until(lambda: "third" in session.topology().away, seconds=30)
        graph = mean(session["hpc"], seconds=0.2)
        begun = time.monotonic()
        with pytest.raises(NoAllowedSite, match="third: the site does not answer"):
            session.plan(graph, request="statistics")
        assert time.monotonic() - begun < 2, "DY-12"
        granted(session, agreement("hpc", "dataThroughTtp", "third", "edge"))
        plan = session.plan(graph, request="statistics")
        assert plan.assignment_by_key[graph.key].site == "edge"
        assert float(session.submit(plan).result(120)) == pytest.approx(hpc)
