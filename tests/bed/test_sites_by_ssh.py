"""A notebook with SSH keys and nothing else: sites on real hosts behind real links."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bed_network import until
from bed_sites import Sites

import dataflow as flow
from dataflow.errors import SiteUnreachable
from dataflow.testing.bed import Bed


@flow.operation(kind="linear", output="same")
def doubled(x: Any) -> Any:
    return 2 * x


@flow.operation(kind="opaque", lazy=False, output="scalar")
def spread(x: Any) -> Any:
    return x.max() - x.min()


@flow.operation(kind="elementwise", lazy=False)
def slowly(x: Any, *, seconds: float) -> Any:
    import time

    time.sleep(seconds)
    return x + 1


@pytest.fixture
def sites(bed: Bed, tmp_path: Path) -> Iterator[Sites]:
    found = Sites(bed, tmp_path, ["edge", "third"])
    yield found
    found.end()


def test_a_mixed_graph_over_sites_that_cannot_reach_each_other(sites: Sites) -> None:
    edge, third = sites.values["edge"], sites.values["third"]
    with sites.session() as session:
        graph = spread(doubled(session["edge"]) - session["third"])
        plan = session.plan(graph)
        (transfer,) = plan.transfers
        assert transfer.via == "visitor"
        link = sites.bed.link(transfer.source)
        before = link.bytes
        job = session.submit(plan, tags={"story": "ssh"})
        expected = (2 * edge - third).max() - (2 * edge - third).min()
        np.testing.assert_allclose(job.result(120), expected)
        crossed = (link.bytes - before).from_
        assert [(e.source, e.target) for e in job.ledger()] == [
            (transfer.source, "visitor"),
            ("visitor", transfer.target),
        ]
        counted = next(iter(job.ledger())).nbytes
        # Frames and SSH add five per cent; the rest is one probe of the link (9 MB, or twice
        # the 8 MB of its end), and news.
        assert counted <= crossed <= 1.07 * counted + 18_500_000


def test_a_cut_link_heals_and_the_job_goes_on(sites: Sites) -> None:
    with sites.session() as session:
        job = session.submit(slowly(session["edge"], seconds=6))
        time.sleep(2)
        link = sites.bed.link("edge")
        link.cut()
        threading.Timer(4, link.heal).start()
        np.testing.assert_array_equal(job.result(120), sites.values["edge"] + 1)


def test_the_kernel_ends_and_the_site_works_on(sites: Sites) -> None:
    with sites.session() as session:
        id = session.submit(slowly(session["edge"], seconds=4)).id
        time.sleep(1)
    agent = sites.agent("edge")
    with sites.session() as session:
        job = session.job(id)
        np.testing.assert_array_equal(job.result(120), sites.values["edge"] + 1)
        assert sites.agent("edge") == agent


def test_an_agent_that_is_killed_is_started_again(sites: Sites) -> None:
    with sites.session() as session:
        assert int(session.submit(spread(session["third"])).result(120)) == 0
        sites.bed.host("third").end(sites.agent("third"), signal.SIGKILL)
        job = session.submit(slowly(session["third"], seconds=0.1))
        np.testing.assert_array_equal(job.result(120), sites.values["third"] + 1)


def test_a_job_of_a_site_that_is_away_is_unknown_until_it_is_back(sites: Sites) -> None:
    with sites.session() as session:
        job = session.submit(slowly(session["edge"], seconds=8))
        time.sleep(2)
        link = sites.bed.link("edge")
        link.cut()
        until(lambda: job.status == "unknown", seconds=60)
        assert "edge" in session.topology().away
        link.heal()
        np.testing.assert_array_equal(job.result(120), sites.values["edge"] + 1)
        assert "edge" not in session.topology().away


def test_a_site_that_stays_away_ends_the_job_of_others(sites: Sites) -> None:
    with sites.session() as session:
        graph = slowly(session["edge"], seconds=60) + session["third"]
        job = session.submit(session.plan(graph, pinned={"slowly": "edge"}))
        time.sleep(3)
        sites.bed.link("edge").cut()
        with pytest.raises(SiteUnreachable, match="edge"):
            job.result(120)
