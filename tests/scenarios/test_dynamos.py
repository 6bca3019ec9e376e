"""DY-01 … DY-12 over real site agents: two stewards with data, two third parties. The ids are those
of the specification.

The tables have the numbers of rows and the means of the original, and nothing else of it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import numpy as np
import pandas as pd
import pytest

import dataflow as flow
from dataflow.agreements import Agreement, Relation, Request
from dataflow.catalog.entries import replica_id
from dataflow.documents import to_document, to_json
from dataflow.errors import (
    DataflowError,
    NoAllowedSite,
    NotGranted,
    NotReproduced,
    OutOfOrder,
    PolicyError,
    SiteRefused,
    UnknownNegotiation,
)
from dataflow.execution.events import TransferOrder
from dataflow.participant.audit import Audit, verify
from dataflow.placement.solve import solve
from dataflow.placement.why import chosen
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
OPERATIONS = ["query", "anonymize", "average", "average_of_all", "rows", "drawn", "all_but"]

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


def knows(session: Any, site: str) -> bool:
    return bool(session.datasets(name="wageGap", site=site))


@pytest.fixture
def connect(universities: Federation, tmp_path: Path) -> Iterator[Connect]:
    with ExitStack() as stack:
        known: dict[str, Any] = {}

        def of(user: str) -> Any:
            if user not in known:
                file = universities.sites_file_of(user)
                state = tmp_path / user
                known[user] = stack.enter_context(flow.connect(file, user=user, state=state))
                limit = time.monotonic() + 10  # what is slow to answer is heard of a little later
                while not all(knows(known[user], site) for site in TABLES):
                    assert time.monotonic() < limit, "the news of the tables does not arrive"
                    time.sleep(0.05)
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
            of_hers = [r for r in one.relations if "anna" in r.users]
            while (
                not anna.agreements(one.site)  # one without a relation shows none either
                or [r.id for r in _seen(anna, one.site)] != [r.id for r in of_hers]
                or _terms(_seen(anna, one.site)) != _terms(of_hers)
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
            r.anonymity,
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
    assert time.monotonic() - begun < 10, "two seconds, where nobody else is at work"
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
    # Rows that no other test has had stored: such are removed with the relation, and then their
    # absence is the reason.
    mine, theirs = (
        wages.average(wages.all_but(who["vu/wageGap"], count=5), tag="dy05") for who in (anna, eve)
    )
    limit = time.monotonic() + 10
    while not eve.agreements("vu"):  # that there is one, and nothing in it for her
        assert time.monotonic() < limit, "the news of the agreement does not arrive"
        time.sleep(0.05)
    with pytest.raises(NotGranted, match="no relation for user 'eve'"):
        eve.plan(theirs, request="sqlDataRequest")
    with pytest.raises(NotGranted, match="request type 'federated' is not among sqlDataRequest"):
        anna.plan(mine, request="federated")
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


def test_rows_that_single_somebody_out_alone_or_by_two_questions(
    universities: Federation, connect: Connect, agree: Any
) -> None:
    # 50 rows have the unknown scale: with 51 that have to be alike nobody sees one of them.
    agree(agreement("uva", relation(anonymity=51, among=("Salschal",))))
    anna = connect("anna")
    source = anna["uva/wageGap"]
    plan = anna.plan(wages.rows(source, tag="alike"), request="sqlDataRequest")
    assert any("common-rows was put in" in note for note in plan.notes)
    found = anna.submit(plan).result(60)
    assert len(found) == 18_639
    assert 99 not in set(found["Salschal"])
    agree(agreement("uva", relation(row_floor=10)))

    def mean_without(count: int, tag: str = "differs") -> Any:
        return ask(anna, wages.average(wages.all_but(source, count=count), tag=tag))

    mean_without(0).result(60)
    with pytest.raises(NotGranted, match="'anna': these rows may differ by fewer than 10"):
        mean_without(1).result(60)
    mean_without(10).result(60)
    ask(anna, wages.average(source, tag="the same rows")).result(60)
    refused = [e for e in audit(universities, "uva") if e["what"] == "rows"]
    assert [(e["user"], e["allowed"]) for e in refused] == [("anna", False)]


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

    def made() -> Any:
        (found,) = [
            d for d in anna.datasets(job=job.id) if d.key in plan.outputs and d.site == "vu"
        ]
        return found.lineage

    # That it is proven is news of the owner's site, on its way when the result is there.
    limit = time.monotonic() + 30
    while (said := made().reproduced) is None and time.monotonic() < limit:
        time.sleep(0.05)
    assert said is not None
    assert (said.site, said.equal, said.differs) == ("desk", True, ())
    assert said.environment == made().environment
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
    # X-03: the rows that were selected for her are gone, at every site that had them.
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


def asked(universities: Federation, who: str, method: str, url: str, **options: Any) -> Any:
    """One plain request to an agent, as somebody with a token and no session may send it."""
    headers = {"authorization": f"Bearer {universities.token(who)}", **options.pop("headers", {})}
    with httpx2.Client(trust_env=False, timeout=30) as http:
        return http.request(method, url, headers=headers, **options)


def refusals(universities: Federation, *sites: str) -> list[tuple[str, str, str]]:
    """Who was refused what where, in the sites' own audit logs."""
    return [
        (site, entry["user"], entry["what"])
        for site in sites
        for entry in audit(universities, site)
        if entry.get("allowed") is False
    ]


def test_an_agent_is_nobodys_deputy(universities: Federation, connect: Connect, agree: Any) -> None:
    """A third party that may have rows fetches and shows them for nobody who may not."""
    agree(agreement("vu", relation(archetypes=(TTP,))))
    anna = connect("anna")
    source = wages.query(anna["vu/wageGap"])
    graph = wages.average(source, tag="deputy")
    plan = anna.plan(graph, request="sqlDataRequest", scope={"sql-algorithm": "surf"})
    assert means(anna.submit(plan).result(60)) == pytest.approx(expected("vu"), abs=0.001)
    limit = time.monotonic() + 10
    copies: dict[str, Any] = {}
    while {"vu", "surf"} - set(copies):
        copies = {r.site: r for r in anna._participant.snapshot().replicas_of(source.key)}
        assert time.monotonic() < limit, copies
        time.sleep(0.05)

    def fetched(who: str, by: str, key: str) -> str:
        """Have an agent fetch the rows from their owner; how that ends."""
        order = TransferOrder(
            id=f"deputy {who} {by}",
            job="deputy",
            site=by,
            key=key,
            replica=copies["vu"],
            user="anna",
            request=plan.request,
        )
        orders = f"{universities.address(by)}/v1/orders"
        said = asked(universities, who, "POST", orders, json={"order": to_document(order)})
        assert said.status_code == 204, said.text
        reports, limit = [], time.monotonic() + 30
        while not reports or reports[-1]["type"] not in ("broke", "ended"):
            where = f"{orders}/{quote(order.id)}/reports?since={len(reports)}&wait=5"
            reports += asked(universities, who, "GET", where).json()
            assert time.monotonic() < limit, reports
        return str(reports[-1].get("error", {}).get("kind", "ended"))

    others = universities.results("desk") / "copies"
    before = refusals(universities, "vu", "surf", "desk")

    def new() -> set[tuple[str, str, str]]:
        found = refusals(universities, "vu", "surf", "desk")
        for one in before:
            found.remove(one)
        before.extend(found)
        assert found, "who refused wrote it down"
        return set(found)

    # Desk itself looks after what it runs, and may be the first to find that nobody grants it.
    own = {("desk", who, "revoked") for who in ("eve", "anna")}
    # Eve says that it is for anna; and anna has an agent fetch that the owner does not name.
    assert fetched("eve", "desk", source.key) == "not-granted"
    assert new() <= {("vu", "eve", "read"), *own}
    agree(agreement("vu", relation(archetypes=(TTP,), compute_providers=("surf",))))
    assert fetched("anna", "desk", source.key) == "not-granted"
    assert new() <= {("vu", "anna", "read"), *own}
    assert not list(others.glob(f"*/{source.key}/COMMIT.json"))
    # What surf has by right it shows to nobody: not to eve in anna's name, nor to anna herself.
    where = f"{universities.address('surf')}/v1/data/{replica_id(copies['surf'])}"
    told = {"x-dataflow-user": "anna", "x-dataflow-to": "surf"}
    told["x-dataflow-request"] = quote(to_json(plan.request, Request))
    for who in ("eve", "anna"):
        answer = asked(universities, who, "GET", where, headers=told)
        assert answer.status_code == 403, answer.text
        assert new() - own == {("surf", who, "read")}
    # Nor does the owner give desk what it says that surf wants.
    where = f"{universities.address('vu')}/v1/data/{replica_id(copies['vu'])}"
    assert asked(universities, "desk", "GET", where, headers=told).status_code == 403
    assert [(site, what) for site, _, what in new() - own] == [("vu", "read")]


def test_x03_a_site_that_loses_its_right_loses_its_copy(
    universities: Federation, connect: Connect, agree: Any
) -> None:
    """By one plain request to the owner's agent; everybody is sent to another copy then."""
    agree(agreement("vu", relation(archetypes=(TTP,))))
    anna = connect("anna")
    source = wages.query(anna["vu/wageGap"])
    surf = anna.plan(
        wages.average(source, tag="x03 surf"),
        request="sqlDataRequest",
        scope={"sql-algorithm": "surf"},
    )
    anna.submit(surf).result(60)
    running = ask(
        anna, wages.average(source, seconds=30.0, tag="x03"), scope={"sql-algorithm": "surf"}
    )
    part = next(p for p in running.plan.segments if p.site == "surf")
    limit = time.monotonic() + 60
    while running._refreshed().units[part.id].status != "running":
        assert time.monotonic() < limit, running
        time.sleep(0.1)
    begun = time.monotonic()
    milder = agreement("vu", relation(archetypes=(TTP,), compute_providers=("desk",)))
    where = f"{universities.address('vu')}/v1/agreements/wages"
    body = {"agreement": to_document(milder)}
    assert asked(universities, "root", "PUT", where, json=body).status_code == 204
    copies = universities.results("surf") / "copies"

    def known() -> set[str]:
        return {r.site for r in anna._participant.snapshot().replicas_of(source.key)}

    while list(copies.glob(f"*/{source.key}/COMMIT.json")) or "surf" in known():
        assert time.monotonic() - begun < 10, "the copy lies on, or readers are sent to it"
        time.sleep(0.1)
    assert "vu" in known()
    after = anna.plan(wages.average(source, tag="x03 desk"), request="sqlDataRequest")
    assert after.assignment_by_key[after.outputs[0]].site == "desk"
    assert means(anna.submit(after).result(60)) == pytest.approx(expected("vu"), abs=0.001)
    running.cancel()
    running.wait(10)


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
    tag = f"dy11 {time.time()}"  # what an attempt before this one has left does not count
    quick = wages.average(wages.query(anna["vu/wageGap"]), tag=tag)
    slow = wages.average(wages.query(anna["uva/wageGap"]), seconds=20.0, tag=tag)
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
    assert time.monotonic() - begun < 10, "two seconds, where nobody else is at work"
    both = relation(archetypes=(TTP,), compute_providers=("desk", "surf"))
    agree(*(agreement(site, both) for site in TABLES))
    plan = anna.plan(graphs, request="sqlDataRequest")
    assert {plan.assignment_by_key[graph.key].site for graph in graphs} == {"surf"}
    answers = anna.submit(plan).result(60)
    assert means(answers[1]) == pytest.approx(expected("uva"), abs=0.001)


def test_x05_a_third_party_collects(universities: Federation, connect: Connect, agree: Any) -> None:
    largest = pd.concat([table("vu"), table("uva")], ignore_index=True)
    path = universities.data("desk") / "wageGap.parquet"
    largest.to_parquet(path)
    root, anna = connect("root"), connect("anna")
    root.register(path.as_uri(), name="wageGap", site="desk")
    sites = ["vu", "uva", "desk"]
    agree(
        *(
            agreement(site, relation(archetypes=(TTP,), compute_providers=("surf",)))
            for site in sites
        )
    )
    asked = [wages.query(anna[f"{site}/wageGap"]) for site in sites]
    plan = anna.plan(
        wages.median_of_three(*asked, tag="x05"), request="sqlDataRequest", aggregate=True
    )
    (collector,) = [a for a in plan.assignments if plan.label(a.key) == "median"]
    assert collector.site == "surf"
    refused = {c.site: c.because for c in collector.candidates if not c.allowed}
    assert set(refused) >= set(sites), "not the holder of the largest set either"
    found = anna.submit(plan).result(60)
    whole = pd.concat([table("vu"), table("uva"), largest])["Salschal"]
    assert float(found["median"].iloc[0]) == whole[whole != 99].median()


def test_x11_catalogue_and_negotiation(
    universities: Federation, connect: Connect, agree: Any
) -> None:
    hidden = relation(hidden=("Gebdat",))
    agree(agreement("vu", hidden), agreement("uva", relation(users=("bob",))))
    root, anna, eve = (connect(name) for name in ("root", "anna", "eve"))
    (offer,) = (offer for offer in anna.offers(name="wageGap") if offer.site in TABLES)
    assert (offer.site, offer.columns) == ("vu", ("Geslacht", "Salschal"))
    assert (offer.request_types, offer.archetypes) == (("sqlDataRequest",), (C2D, TTP))
    assert eve.offers() == []

    (question,) = each(anna, "x11", "uva")
    with pytest.raises(NotGranted):
        anna.plan(question, request="sqlDataRequest")
    wanted = relation(id="", users=(), archetypes=(C2D,), compute_providers=())
    asked = anna.negotiations.begin("uva", "wages", wanted)
    assert eve.negotiations.all() == []
    with pytest.raises(PolicyError, match="between others"):
        eve.negotiations.move(asked, "terminate")
    with pytest.raises(OutOfOrder, match="requested"):
        anna.negotiations.move(asked, "verify")
    with pytest.raises(UnknownNegotiation):
        anna.negotiations.get(replace(asked, id="none"))
    (seen,) = root.negotiations.all("uva")
    assert seen == asked
    for who, move in ((root, "agree"), (anna, "verify")):
        asked = who.negotiations.move(asked, move)
    assert _seen(anna, "uva") == []
    assert root.negotiations.move(asked, "finalize").state == "finalized"
    limit = time.monotonic() + 10
    while [r.id for r in _seen(anna, "uva")] != [asked.id]:
        assert time.monotonic() < limit, "the news of the relation does not arrive"
        time.sleep(0.05)
    answer = anna.submit(anna.plan(question, request="sqlDataRequest")).result(60)
    assert means(answer) == pytest.approx(expected("uva"), abs=0.001)
    entries = [e for e in audit(universities, "uva") if e["object"] == asked.id and e["allowed"]]
    assert [e["what"] for e in entries] == [
        f"negotiation: {move}" for move in ("request", "agree", "verify", "finalize")
    ]


def test_x10_the_record_explains_and_is_chosen_again(connect: Connect, agree: Any) -> None:
    agree(
        agreement("vu", relation(compute_providers=("surf",))),
        agreement("uva", relation(compute_providers=("surf",))),
    )
    anna, root = connect("anna"), connect("root")
    one, other = (wages.query(anna[f"{site}/wageGap"]) for site in ("vu", "uva"))
    asked = {
        "apart": (each(anna, "x10", "vu", "uva"), C2D, {}),
        "together": (wages.average_of_all(one, other, tag="x10"), TTP, {"aggregate": True}),
    }
    for graph, archetype, how in asked.values():
        job = ask(anna, graph, **how)
        job.wait(60)
        plan = root.job(job.id).plan  # as the site has it that keeps the job
        assert plan == job.plan
        assert set(plan.request.archetypes.values()) == {archetype}
        assert any(f"archetype {archetype}: chosen, " in note for note in plan.notes)
        rules: set[str] = set()
        for step in plan.steps:
            why = plan.why(step.key)
            if plan.assignment_by_key[step.key].reused:
                assert why.because == "its result is stored there already"
                continue
            assert [c.site for c in why.candidates if c.because == "chosen"] == [why.site]
            assert sorted(c.site for c in why.candidates) == ["desk", "surf", "uva", "vu"]
            for candidate in why.candidates:
                assert candidate.because
                assert candidate.allowed or candidate.rule
                rules.add(candidate.rule)
            assert repr(why) == repr(job.plan.why(step.key))
        assert "agreement" in rules, rules
        assert plan.model is not None
        found = solve(plan.model.problem(), aim=plan.model.aim)
        assert found.sites == chosen(plan)
