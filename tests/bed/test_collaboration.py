"""Joining, copies at several sites, and moves; with links that are cut and slowed."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import numpy as np
from bed_agents import Agents, made
from bed_network import say, until, within

import dataflow as flow
from dataflow.testing.bed import Bed

NBYTES = 8_000_000
LARGE = 24_000_000


@flow.operation(kind="opaque", output="scalar", lazy=False)
def slow_mean(x: Any) -> Any:
    import time

    time.sleep(60)
    return x.mean()


@flow.operation(kind="opaque", output="scalar", lazy=False)
def mean(x: Any) -> Any:
    return x.mean()


def test_joining_copies_and_moves(agents: Agents, bed: Bed) -> None:
    agents.make("edge", "run", NBYTES, 1)
    agents.make("hpc", "large", LARGE, 2)
    bed.preset("default")
    begun = time.monotonic()
    with agents.session() as session:
        until(lambda: not session.topology().away, seconds=within(60))
        for name, site in (("run", "edge"), ("large", "hpc")):
            session.register(agents.path(site, f"data/{name}.npy"), name=name, site=site)
        say("agents are met", begun)
        joins_by_one_address(agents, bed, session)
        waits_for_a_site_that_is_cut(agents, bed, session)
        moves_all_or_nothing(agents, bed, session)


def joins_by_one_address(agents: Agents, bed: Bed, session: flow.Session) -> None:
    """KO-13."""
    job = session.submit(slow_mean(session["run"]))
    until(lambda: job.status == "running")
    begun = time.monotonic()
    with agents.session(agents.file(knows=["cloud"]), state="newcomer") as newcomer:
        until(
            lambda: (
                {site.name for site in newcomer.sites()} == set(agents.names)
                and not newcomer.topology().away
                and any(view.id == job.id and view.status == "running" for view in newcomer.jobs())
            ),
            seconds=within(5),
        )
        say("knows all after", begun)
        job.cancel()
        bed.link("hpc").cut()
        begun = time.monotonic()
        until(lambda: newcomer.topology().away == {"hpc"}, seconds=within(20))
        assert time.monotonic() - begun > 3, "not before it was silent for so long"
        bed.link("hpc").heal()
        until(
            lambda: not newcomer.topology().away and not session.topology().away, seconds=within(20)
        )


def waits_for_a_site_that_is_cut(agents: Agents, bed: Bed, session: flow.Session) -> None:
    """CH-05."""
    bed.link("third").cut()
    begun = time.monotonic()
    job = session.replicate("run", "cloud & third", window=6)
    replies = {}
    for reply in job.replies(60):
        replies[reply.site] = (reply.status, time.monotonic() - begun)
    assert replies["cloud"][0] == "ok"
    assert replies["third"][0] == "timeout"
    say("replies", begun)
    assert replies["cloud"][1] < replies["third"][1]
    assert replies["third"][1] >= 6
    assert job.status == "running", "it is still wanted"
    count = "find results -name COMMIT.json | wc -l"
    assert agents.run("cloud", count) == "1"
    assert agents.run("third", count, check=False) in ("", "0")
    bed.link("third").heal()
    begun = time.monotonic()
    until(lambda: agents.run("third", count, check=False) == "1", seconds=within(5))
    say("the copy is there after the heal by", begun)
    assert job.wait(30) == "done"
    assert [reply.status for reply in job.view().replies] == ["ok", "ok"]
    assert {entry.target for entry in job.ledger()} == {"cloud", "third"}
    until(lambda: {r.site for r in replicas(session, "run")} == {"edge", "cloud", "third"})


def replicas(session: flow.Session, name: str) -> tuple[Any, ...]:
    snapshot = session._snapshot()
    return snapshot.replicas_of(snapshot.resolve(name))


def moves_all_or_nothing(agents: Agents, bed: Bed, session: flow.Session) -> None:
    """FG-10, and the move that comes about after it."""
    before = agents.run("hpc", "sha256sum data/large.npy")
    # Else its first measurement, which a busy machine puts off, may come in the midst of the move.
    until(lambda: session.topology().link("hpc", "edge").origin == "measured", seconds=within(60))
    link = session.topology().link("hpc", "edge")
    bed.link("hpc").shape(rate=6e6)
    came = bed.link("hpc").bytes.from_
    job = session.move("large", "edge", retries=0)
    until(
        lambda: bed.link("hpc").bytes.from_ - came > 0.6 * LARGE or job.status != "running",
        seconds=within(60),
    )
    assert job.status == "running", job.view()
    bed.link("hpc").cut()
    begun = time.monotonic()
    assert job.wait(within(60)) == "failed"
    say("the move ended failed after", begun)
    assert agents.run("hpc", "sha256sum data/large.npy") == before
    assert [copy.site for copy in replicas(session, "large")] == ["hpc"]
    until(lambda: agents.run("edge", "find results -type f -path '*copies*' | wc -l") == "0")
    now = session.topology().link("hpc", "edge")
    assert now.bandwidth == link.bandwidth, "nothing is learned of it"
    bed.restore()
    until(lambda: not session.topology().away, seconds=within(30))
    again = session.move("large", "edge")
    assert again.wait(within(60)) == "done", again
    say("moved", begun)
    until(lambda: [copy.site for copy in replicas(session, "large")] == ["edge"])
    assert agents.run("hpc", "ls data") == ""
    wanted = hashlib.sha256(made(LARGE, 2).tobytes()).hexdigest()
    assert hashlib.sha256(np.asarray(session.open("large")).tobytes()).hexdigest() == wanted
