"""DY-01 … DY-12 over real site agents: two stewards with data, two third parties. The ids are those
of the specification.

The tables have the numbers of rows and the means of the original, and nothing else of it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dataflow as flow
from dataflow.agreements import Agreement, Relation
from dataflow.errors import (
    DataflowError,
    NoAllowedSite,
    NotGranted,
    NotReproduced,
    PolicyError,
    SiteRefused,
)
from dataflow.participant.audit import Audit, verify
from dataflow.testing.federation import Federation, SiteSettings

SERVICES = Path(__file__).parent / "services"
sys.path.insert(0, str(SERVICES))

import wages  # noqa: E402

C2D, TTP, TWICE = "computeToData", "dataThroughTtp", "reproducibleScience"
#: Gender → rows and mean scale, per steward; and both together.
TABLES = {
    "vu": {"M": (8007, 10.856), "V": (8618, 9.657)},
    "uva": {"M": (8116, 12.253), "V": (10523, 10.505)},
}
TOGETHER = {"M": 11.559, "V": 10.123}
OPERATIONS = ["query", "anonymize", "average", "average_of_all", "rows", "drawn"]

Connect = Callable[[str], Any]


def table(site: str) -> pd.DataFrame:
    """Whole scales whose means are those of the site, in mixed order, and some unknown ones."""
    parts = []
    for gender, (count, mean) in TABLES[site].items():
        scales = np.full(count, int(mean))
        scales[: round(mean * count) - int(mean) * count] += 1
        parts.append(pd.DataFrame({"Geslacht": gender, "Salschal": scales}))
    unknown = pd.DataFrame({"Geslacht": "V", "Salschal": [99] * 50})
    both = pd.concat([*parts, unknown], ignore_index=True)
    both["Gebdat"] = 19600101
    return both.sample(frac=1, random_state=7).reset_index(drop=True)


def expected(site: str) -> dict[str, float]:
    return {gender: mean for gender, (_, mean) in TABLES[site].items()}


def means(found: pd.DataFrame) -> dict[str, float]:
    return dict(zip(found["Geslacht"], found["mean"], strict=True))


def agreement(site: str, *relations: Relation, **fields: Any) -> Agreement:
    return Agreement(name="wages", site=site, relations=relations, **fields)


def relation(**fields: Any) -> Relation:
    shipped: dict[str, Any] = {
        "id": "anna",
        "users": ("anna",),
        "request_types": ("sqlDataRequest",),
        "datasets": ("wageGap",),
        "archetypes": (C2D, TTP),
        "compute_providers": ("surf", "desk"),
    }
    return Relation(**{**shipped, **fields})


@pytest.fixture(scope="module")
def universities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("universities")
    environment = {"PYTHONPATH": str(SERVICES)}
    steward = {"trust": "steward", "operations": [f"wages:{name}" for name in OPERATIONS]}
    timeouts = {"timeouts": {"away_after": "5 s", "lost_after": "6 s"}}
    sites = {
        name: SiteSettings(
            memory="1 GB",
            environment=environment,
            more=steward if name in TABLES else {},
            sections=timeouts,
        )
        for name in ("surf", "desk", "vu", "uva")
    }
    users = {"anna": "user", "eve": "user", "root": "admin"}
    with Federation(folder, sites, users=users, ready_within=90) as federation:
        file = federation.sites_file_of("root")
        with flow.connect(file, user="root", state=folder / "root") as root:
            for site in TABLES:
                path = federation.data(site) / "wageGap.parquet"
                table(site).to_parquet(path)
                root.register(path.as_uri(), name="wageGap", site=site)
            federation.wait_measured(root)
        yield federation


@pytest.fixture
def connect(universities: Federation, tmp_path: Path) -> Iterator[Connect]:
    with ExitStack() as stack:
        known: dict[str, Any] = {}

        def of(user: str) -> Any:
            if user not in known:
                file = universities.sites_file_of(user)
                state = tmp_path / user
                known[user] = stack.enter_context(flow.connect(file, user=user, state=state))
            return known[user]

        yield of
    universities.mend()


@pytest.fixture
def agree(universities: Federation, connect: Connect) -> Callable[..., None]:
    """Have the stewards agree to this, and wait until everybody who asks has heard of it."""

    def write(*agreements: Agreement) -> None:
        root, anna = connect("root"), connect("anna")
        for one in agreements:
            root.agree(one)
        limit = time.monotonic() + 10
        for one in agreements:
            while [r.id for r in _seen(anna, one.site)] != [
                r.id for r in one.relations if "anna" in r.users
            ] or _terms(_seen(anna, one.site)) != _terms(
                [r for r in one.relations if "anna" in r.users]
            ):
                assert time.monotonic() < limit, "the news of the agreement does not arrive"
                time.sleep(0.05)

    return write


def _seen(session: Any, site: str) -> list[Relation]:
    return [r for a in session.agreements(site) for r in a.relations]


def _terms(relations: Any) -> list[Any]:
    return [
        (
            dict(r.forced),
            r.hidden,
            r.row_floor,
            r.archetypes,
            r.datasets,
            r.request_types,
            r.compute_providers,
        )
        for r in relations
    ]


def audit(federation: Federation, site: str) -> list[dict[str, Any]]:
    path = federation.root(site) / "state" / "audit.jsonl"
    assert not verify(path).broken
    return Audit(path, time.time).entries()


def ask(session: Any, graph: Any, **how: Any) -> Any:
    return session.submit(session.plan(graph, request="sqlDataRequest", **how))


def each(session: Any, tag: str, *sites: str) -> list[Any]:
    """The question for each site by itself; the tag makes its key this test's own."""
    return [wages.average(wages.query(session[f"{site}/wageGap"]), tag=tag) for site in sites]


def test_dy01_compute_to_data(universities: Federation, connect: Connect, agree: Any) -> None:
    agree(*(agreement(site, relation()) for site in TABLES))
    anna = connect("anna")
    plan = anna.plan(each(anna, "dy01", "vu", "uva"), request="sqlDataRequest")
    assert set(plan.request.archetypes.values()) == {C2D}
    before = universities.crossed()
    job = anna.submit(plan)
    answers = job.result(60)
    assert len(answers) == 2
    for site, answer in zip(("vu", "uva"), answers, strict=True):
        assert means(answer) == pytest.approx(expected(site), abs=0.001)
    after = universities.crossed()
    for site in TABLES:
        left = after[site].outward - before[site].outward
        # What is said about the work is counted as well; the rows alone are ten times this.
        assert left < 60_000, f"{left} bytes left {site}"
        rows = [entry for entry in audit(universities, site) if entry["what"] == "served"]
        assert sum(entry["nbytes"] for entry in rows) < 10_000


def test_dy02_through_a_third_party(connect: Connect, agree: Any) -> None:
    agree(*(agreement(site, relation(compute_providers=("surf",))) for site in TABLES))
    anna = connect("anna")
    one, other = (wages.query(anna[f"{site}/wageGap"]) for site in ("vu", "uva"))
    plan = anna.plan(
        wages.average_of_all(one, other, tag="dy02"), request="sqlDataRequest", aggregate=True
    )
    assert set(plan.request.archetypes.values()) == {TTP}
    ran = {plan.label(a.key): a.site for a in plan.assignments}
    assert sorted(ran.values()) == ["surf", "uva", "vu"]
    answer = anna.submit(plan).result(60)
    assert means(answer) == pytest.approx(TOGETHER, abs=0.001)
    assert means(answer)["M"] != pytest.approx(11.792, abs=0.1), "nobody is counted twice"


def test_dy03_agreements_narrow_the_choice(connect: Connect, agree: Any) -> None:
    agree(agreement("vu", relation()), agreement("uva", relation(archetypes=(TTP,))))
    anna = connect("anna")
    plan = anna.plan(each(anna, "dy03", "vu", "uva"), request="sqlDataRequest")
    assert set(plan.request.archetypes.values()) == {TTP}
    assert f"archetype {C2D}: uva does not allow it" in plan.notes
    assert f"archetype {TTP}: chosen, nothing else is left" in plan.notes
    ruled_out = {c.site: c.because for c in plan.why("sql-algorithm").candidates if not c.allowed}
    assert "under dataThroughTtp a third party computes" in ruled_out["vu"]


def test_dy04_empty_intersection(connect: Connect, agree: Any) -> None:
    agree(
        agreement("vu", relation(archetypes=(C2D,))), agreement("uva", relation(archetypes=(TTP,)))
    )
    anna = connect("anna")
    graphs = each(anna, "dy04", "vu", "uva")
    begun = time.monotonic()
    with pytest.raises(NotGranted) as refused:
        anna.plan(graphs, request="sqlDataRequest")
    assert time.monotonic() - begun < 2
    assert set(refused.value.refusals) == {"vu", "uva"}
    mixed = anna.plan(graphs, request="sqlDataRequest", mixed=True)
    assert mixed.request.archetypes == {"vu": C2D, "uva": TTP}
    answers = anna.submit(mixed).result(60)
    for site, answer in zip(("vu", "uva"), answers, strict=True):
        assert means(answer) == pytest.approx(expected(site), abs=0.001)


def test_dy05_each_refusal_has_its_reason(
    universities: Federation, connect: Connect, agree: Any
) -> None:
    """Refused by the planner, and by the site itself when somebody does not ask the planner."""
    agree(agreement("vu", relation()))
    anna, eve = connect("anna"), connect("eve")
    (mine,), (theirs,) = each(anna, "dy05", "vu"), each(eve, "dy05", "vu")
    begun = time.monotonic()
    with pytest.raises(NotGranted, match="no relation for user 'eve'"):
        eve.plan(theirs, request="sqlDataRequest")
    with pytest.raises(NotGranted, match="request type 'federated' is not among sqlDataRequest"):
        anna.plan(mine, request="federated")
    assert time.monotonic() - begun < 2
    plan = anna.plan(mine, request="sqlDataRequest")

    agree(agreement("vu", relation(datasets=("other",))))
    before = len(audit(universities, "vu"))
    with pytest.raises(NotGranted, match="'wageGap' is not among other"):
        anna.plan(mine, request="sqlDataRequest")
    with pytest.raises(PolicyError, match="'wageGap' is not among other"):
        anna.submit(plan).result(30)
    entry = audit(universities, "vu")[before:]
    refused = [e for e in entry if e.get("allowed") is False]
    assert len(refused) == 1
    assert refused[0]["user"] == "anna"
    assert "'wageGap' is not among other" in refused[0]["clause"]


def test_dy06_one_steward_refuses(connect: Connect, agree: Any) -> None:
    agree(agreement("vu", relation()), agreement("uva"))
    anna = connect("anna")
    graphs = each(anna, "dy06", "vu", "uva")
    plan = anna.plan(graphs, request="sqlDataRequest")
    (missing,) = plan.missing.values()
    assert missing == "uva: agreement 'wages' has no relation for user 'anna'"
    job = anna.submit(plan)
    assert means(job.result(60)) == pytest.approx(expected("vu"), abs=0.001)
    assert list(job.missing.values()) == [missing]
    assert "incomplete" in job.view().message
    with pytest.raises(NotGranted, match="uva/wageGap"):
        anna.plan(graphs, request="sqlDataRequest", strict=True)


def test_dy08_a_forced_service(universities: Federation, connect: Connect, agree: Any) -> None:
    """Put in by the plan, and asked for again by the site when somebody leaves it out."""
    forced = {"sqlDataRequest": ("sql-anonymize",)}
    agree(agreement("vu", relation()))
    anna = connect("anna")
    graph = wages.rows(wages.query(anna["vu/wageGap"]), tag="dy08")
    without = anna.plan(graph, request="sqlDataRequest")
    agree(agreement("vu", relation(forced=forced)))
    plan = anna.plan(graph, request="sqlDataRequest")
    assert "sql-anonymize" in [step.label for step in plan.steps]
    clause = "vu: agreement 'wages', relation 'anna'"
    assert f"sql-anonymize was put in: {clause} forces it" in plan.notes
    assert set(anna.submit(plan).result(60)["Gebdat"]) == {"1960"}
    with pytest.raises(PolicyError, match="sql-anonymize must be applied to 'wageGap' first"):
        anna.submit(without).result(60)


def test_hidden_columns_and_few_rows(connect: Connect, agree: Any) -> None:
    """At the owner's own site as well, and by what is really there."""
    agree(agreement("vu", relation(hidden=("Gebdat",), row_floor=16_650)))
    anna = connect("anna")
    source = anna["vu/wageGap"]
    plan = anna.plan(wages.rows(source, tag="hidden"), request="sqlDataRequest")
    assert any("without-columns was put in" in note for note in plan.notes)
    found = anna.submit(plan).result(60)
    assert sorted(found.columns) == ["Geslacht", "Salschal"]
    assert len(found) == 16_675
    few = anna.plan(wages.rows(wages.query(source), tag="few"), request="sqlDataRequest")
    with pytest.raises(NotGranted, match="fewer than 16650 rows"):
        anna.submit(few).result(60)


def test_reproducible_science(universities: Federation, connect: Connect, agree: Any) -> None:
    """Run at the owner's site, run again at a permitted one, and given out because both agree."""
    forced = {"sqlDataRequest": ("sql-anonymize",)}
    terms = {"archetypes": (TWICE,), "compute_providers": ("desk",), "forced": forced}
    agree(agreement("vu", relation(**terms)))
    anna = connect("anna")
    graph = wages.average(wages.query(anna["vu/wageGap"]), tag=f"twice-{time.time_ns()}")
    plan = anna.plan(graph, request="sqlDataRequest")
    assert {plan.label(a.key): a.site for a in plan.assignments}["sql-algorithm"] == "vu"
    assert plan.again is not None
    assert plan.again.site == "desk"
    labels = [plan.label(key) for key in plan.again.segment.steps]
    assert "sql-anonymize" not in labels, "what is forced is done at the owner's site only"
    assert any("run again at desk" in note for note in plan.notes)
    job = anna.submit(plan)
    assert means(job.result(90)) == pytest.approx(expected("vu"), abs=0.001)
    (made,) = [d for d in anna.datasets(job=job.id) if d.key in plan.outputs and d.site == "vu"]
    said = made.lineage.reproduced
    assert (said.site, said.equal, said.differs) == ("desk", True, ())
    assert said.environment == made.lineage.environment
    ran = {entry["object"] for entry in audit(universities, "desk") if entry["what"] == "segment"}
    assert any(str(id).startswith(f"{job.id}:s:again:") for id in ran)
    once = anna.plan(graph, request="sqlDataRequest")
    assert once.again is None, "what is proven is not run again"


def test_what_cannot_be_reproduced_is_not_given_out(connect: Connect, agree: Any) -> None:
    terms = {"archetypes": (TWICE,), "compute_providers": ("desk",)}
    agree(agreement("vu", relation(**terms)))
    anna = connect("anna")
    graph = wages.drawn(wages.query(anna["vu/wageGap"]), tag=f"differs-{time.time_ns()}")
    plan = anna.plan(graph, request="sqlDataRequest")
    job = anna.submit(plan)
    with pytest.raises(NotReproduced, match=r"part-000000\.parquet") as failed:
        job.result(90)
    assert (failed.value.site, failed.value.second) == ("vu", "desk")
    for made in (d for d in anna.datasets(job=job.id) if d.key in plan.outputs):
        with pytest.raises(PolicyError, match="second run"):
            anna.open(f"{made.site}/{made.name}" if made.site == "vu" else made.id)
    agree(agreement("vu", relation(**{**terms, "compute_providers": ("nobody",)})))
    with pytest.raises(NotGranted, match="'desk' is no permitted compute provider"):
        anna.plan(wages.average(anna["vu/wageGap"], tag="nobody"), request="sqlDataRequest")


def test_dy09_a_milder_change(connect: Connect, agree: Any) -> None:
    agree(agreement("vu", relation()))
    anna = connect("anna")
    source = wages.query(anna["vu/wageGap"])
    running = ask(anna, wages.average(source, seconds=4.0, tag="dy09"))
    assert set(running.plan.request.archetypes.values()) == {C2D}
    time.sleep(1.5)
    agree(agreement("vu", relation(archetypes=(TTP,))))
    (graph,) = each(anna, "dy09 again", "vu")
    after = anna.plan(graph, request="sqlDataRequest")
    assert after.request.archetypes == {"vu": TTP}
    assert after.assignment_by_key[graph.key].site in ("surf", "desk")
    assert means(running.result(60)) == pytest.approx(expected("vu"), abs=0.001)
    assert means(anna.submit(after).result(60)) == pytest.approx(expected("vu"), abs=0.001)


@pytest.mark.parametrize("archetype", [C2D, TTP])
def test_dy10_revoked(
    universities: Federation, connect: Connect, agree: Any, archetype: str
) -> None:
    agree(agreement("vu", relation(archetypes=(archetype,))))
    anna = connect("anna")
    source = wages.query(anna["vu/wageGap"])
    graph = wages.average(source, seconds=30.0, tag=f"dy10 {archetype}")
    job = ask(anna, graph)
    (segment,) = (part for part in job.plan.segments if graph.key in part.steps)
    assert (segment.site == "vu") == (archetype == C2D)
    limit = time.monotonic() + 90
    while job._refreshed().units[segment.id].status != "running":
        assert time.monotonic() < limit, job
        time.sleep(0.1)
    time.sleep(1.0)
    begun = time.monotonic()
    agree(agreement("vu"))
    assert job.wait(10) == "failed"
    assert time.monotonic() - begun < 5
    with pytest.raises(PolicyError, match="vu: agreement 'wages' has no relation for user 'anna'"):
        job.result()
    with pytest.raises(NotGranted):
        ask(anna, wages.average(source, tag="dy10 next"))
    # the rows that were selected for her are gone, at every site that had them.
    if archetype == TTP:
        places = [universities.results("vu") / "results", universities.results("surf") / "copies"]
        places.append(universities.results("desk") / "copies")
        while any(path for place in places for path in place.glob(f"*/{source.key}/COMMIT.json")):
            assert time.monotonic() - begun < 10, "rows lie on"
            time.sleep(0.1)
        limit = time.monotonic() + 10
        while ("removed", source.key) not in {
            (entry["what"], entry.get("object")) for entry in audit(universities, "vu")
        }:
            assert time.monotonic() < limit, "nobody wrote it down"
            time.sleep(0.1)
        limit = time.monotonic() + 10
        while anna._participant.snapshot().replicas_of(source.key):
            assert time.monotonic() < limit, "the catalog still has them"
            time.sleep(0.1)


def test_rows_go_nowhere_by_themselves(connect: Connect, agree: Any) -> None:
    """Not to the user, whatever is granted but fetching; results go to whoever asked."""
    agree(agreement("vu", relation()))
    anna = connect("anna")
    with pytest.raises(NotGranted, match="request type ''"):
        anna.open("vu/wageGap")
    (graph,) = each(anna, "own", "vu")
    ask(anna, graph).result(60)
    eve = connect("eve")
    limit = time.monotonic() + 10
    while not eve.datasets(name="sql-algorithm"):
        assert time.monotonic() < limit
        time.sleep(0.1)
    with pytest.raises(NotGranted, match="no relation for user 'eve'"):
        eve.open(graph.key)


def test_a_steward_takes_no_code_and_no_other_operation(connect: Connect, agree: Any) -> None:
    agree(agreement("vu", relation()))
    anna = connect("anna")

    @flow.operation(role="computeProvider", name="sql-algorithm", version="1", lazy=False)
    def disguised(table: Any) -> Any:
        return table

    with pytest.raises((SiteRefused, NoAllowedSite, PolicyError, DataflowError)):
        ask(anna, disguised(anna["vu/wageGap"])).result(60)


def test_dy11_agent_loss(universities: Federation, connect: Connect, agree: Any) -> None:
    agree(*(agreement(site, relation(archetypes=(C2D,))) for site in TABLES))
    anna = connect("anna")
    quick = wages.average(wages.query(anna["vu/wageGap"]), tag="dy11")
    slow = wages.average(wages.query(anna["uva/wageGap"]), seconds=20.0, tag="dy11")
    whole = ask(anna, [quick, slow])
    part = ask(anna, [quick, slow], partial=True)
    time.sleep(2.0)
    universities.wires["uva"].cut()
    begun = time.monotonic()
    assert whole.wait(20) == "failed"
    assert time.monotonic() - begun < 10
    with pytest.raises(DataflowError, match="uva"):
        whole.result()
    assert part.wait(20) == "done"
    assert means(part.result(20)) == pytest.approx(expected("vu"), abs=0.001)
    assert "uva" in next(iter(part.missing.values()))
    assert "incomplete" in part.view().message


def test_dy12_third_party_offline(universities: Federation, connect: Connect, agree: Any) -> None:
    only = relation(archetypes=(TTP,), compute_providers=("desk",))
    agree(*(agreement(site, only) for site in TABLES))
    anna = connect("anna")
    universities.kill("desk")
    limit = time.monotonic() + 20
    while "desk" not in anna.topology().away:
        assert time.monotonic() < limit
        time.sleep(0.1)
    graphs = each(anna, "dy12", "vu", "uva")
    begun = time.monotonic()
    with pytest.raises(NoAllowedSite, match="desk: the site does not answer"):
        anna.plan(graphs, request="sqlDataRequest")
    assert time.monotonic() - begun < 2
    both = relation(archetypes=(TTP,), compute_providers=("desk", "surf"))
    agree(*(agreement(site, both) for site in TABLES))
    plan = anna.plan(graphs, request="sqlDataRequest")
    assert {plan.assignment_by_key[graph.key].site for graph in graphs} == {"surf"}
    answers = anna.submit(plan).result(60)
    assert means(answers[1]) == pytest.approx(expected("uva"), abs=0.001)
