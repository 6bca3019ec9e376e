"""Plans from a snapshot, and other plans when a job is stuck."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dataflow.catalog.snapshot import Snapshot
from dataflow.datasets import Replica
from dataflow.errors import PlacementError, ScopeError
from dataflow.execution.events import JobCreated, JobStarted, SiteLost, Stored, UnitReported
from dataflow.execution.state import JobState, apply, begin
from dataflow.graph.graph import of_dataset
from dataflow.graph.operation import operation
from dataflow.participant.owners import Asking
from dataflow.participant.planning import plan_graph, plan_rest, with_relays
from dataflow.placement.measurements import Band, Measurements, Pace, identity
from dataflow.placement.plan import Plan
from dataflow.policy.archetype import Wish
from dataflow.sites import Link, Site, Topology
from dataflow.stores import Store
from dataflow.testing.strategies import centre, dataset, replica, spread, total
from tests.policy.examples import ANNA, agreement, relation

NAMES = ("ams", "delft", "uva")
SLOW = tuple(
    Link(source=a, target=b, bandwidth=1e3, latency=0.1) for a in NAMES for b in NAMES if a != b
)
WORLD = Topology(sites=tuple(Site(name=name) for name in NAMES), links=SLOW)


def snapshot(**homes: str) -> Snapshot:
    """Datasets by name, each with copies at the sites that are written in one word."""
    return Snapshot(
        datasets=tuple(dataset(name, 1000) for name in homes),
        replicas={
            name: tuple(replica(name, site, 8000) for site in sites.split())
            for name, sites in homes.items()
        },
        topology=WORLD,
    )


def running(known: Snapshot, graph: object, **asked: object) -> JobState:
    plan = plan_graph(graph, known, Measurements(), **asked)  # type: ignore[arg-type]
    return apply(begin(JobCreated(job="j", plan=plan)), JobStarted())


def sites(state: JobState, known: Snapshot) -> set[str]:
    plan = plan_rest(state, known, Measurements(), "")
    return {assignment.site for assignment in plan.assignments if assignment.reused is None}


def test_the_other_holder_takes_over() -> None:
    known = snapshot(run="ams delft")
    state = running(known, centre(of_dataset(dataset("run", 1000))))
    (first,) = {assignment.site for assignment in state.plan.assignments}
    lost = apply(state, SiteLost(site=first, reason="gone"))
    assert sites(lost, known) == {"ams", "delft"} - {first}


def test_the_only_holder_is_lost() -> None:
    known = snapshot(run="ams")
    state = running(known, centre(of_dataset(dataset("run", 1000))))
    lost = apply(state, SiteLost(site="ams", reason="gone"))
    with pytest.raises(PlacementError):
        plan_rest(lost, known, Measurements(), "")


def stored(key: str, site: str) -> Stored:
    made = dataset(key, 1, site=site)
    return Stored(key=key, replica=replica(key, site, 8), dataset=made)


def test_what_the_job_has_stored_is_used_though_the_catalog_has_not_heard_of_it() -> None:
    known = snapshot(one="ams", two="delft")
    graph = total(*(of_dataset(dataset(name, 1000)) for name in ("one", "two")))
    state = running(known, graph, pinned={"total": "uva"})
    parts = [step for step in state.plan.steps if step.stage == "part"]
    assert len(parts) == 2
    for step in parts:
        site = state.plan.assignment_by_key[step.key].site
        event = UnitReported(unit="?", attempt=1, report=stored(step.key, site))
        state = apply(state, event)
    lost = apply(state, SiteLost(site="uva", reason="gone"))
    plan = plan_rest(lost, known, Measurements(), "")
    run = [a for a in plan.assignments if a.reused is None]
    assert [plan.label(a.key) for a in run] == ["total"], "no part is computed again"
    assert run[0].site != "uva", "the pin gives way"


def test_copies_that_are_gone_are_not_read() -> None:
    known = snapshot(run="ams delft")
    state = running(known, centre(of_dataset(dataset("run", 1000))))
    gone: Replica = known.replicas["run"][0]
    assert sites(replace(state, gone=frozenset({gone.url})), known) == {"delft"}


def test_without_reuse_only_this_jobs_own_results_are_used() -> None:
    run = of_dataset(dataset("run", 1000))
    graph = centre(run)
    known = snapshot(run="ams")
    known = replace(known, replicas={**known.replicas, graph.key: (replica(graph.key, "uva", 8),)})
    assert plan_graph(graph, known, Measurements()).segments == ()
    state = running(known, graph, reuse=False)
    assert len(state.plan.segments) == 1
    again = plan_rest(state, known, Measurements(), "")
    assert len(again.segments) == 1, "the old result stays unused"


def test_scope_and_exclusion_hold_in_every_later_plan() -> None:
    known = snapshot(run="ams delft uva")
    graph = centre(of_dataset(dataset("run", 1000)))
    state = running(known, graph, scope={"centre": "delft"}, excluded={"ams": "no"})
    assert sites(state, known) == {"delft"}
    lost = apply(state, SiteLost(site="delft", reason="gone"))
    with pytest.raises(PlacementError):
        plan_rest(lost, known, Measurements(), "")


def test_what_nobody_can_ask_for_goes_over_who_can() -> None:
    known = snapshot(small="ams", large="delft")
    known = replace(
        known,
        replicas={
            "small": (replica("small", "ams", 100),),
            "large": (replica("large", "delft", 10_000),),
        },
    )
    graph = spread(*(of_dataset(dataset(name, 1000)) for name in ("small", "large")))

    def moved(world: Snapshot) -> list[tuple[str, str, str]]:
        plan = plan_graph(graph, world, Measurements())
        return [(t.source, t.target, t.via) for t in plan.transfers]

    assert moved(known) == [("ams", "delft", "")], "the small one goes to the large one"
    out = replace(known, topology=with_relays(known.topology, "ams", {"ams"}))
    assert moved(out) == [("ams", "delft", "ams")], "what lies here is brought"
    over = replace(known, topology=with_relays(known.topology, "uva", {"ams"}))
    assert moved(over) == [("ams", "delft", "uva")]
    here = replace(known, topology=with_relays(known.topology, "delft", {"ams"}))
    assert moved(here) == [("ams", "delft", "")], "who is here asks itself"


def test_a_road_over_another_site_costs_both() -> None:
    links = [
        Link(source="ams", target="uva", bandwidth=1e6, latency=0.1),
        Link(source="uva", target="delft", bandwidth=5e6, latency=0.2),
        Link(source="ams", target="delft", bandwidth=1e9, latency=0.0),
    ]
    topology = Topology(
        sites=tuple(Site(name=n) for n in ("ams", "delft", "uva")), links=tuple(links)
    )
    road = with_relays(topology, "uva", {"ams"}).link("ams", "delft")
    assert (road.bandwidth, road.via) == (1e6, "uva")
    assert road.latency == pytest.approx(0.3)
    back = with_relays(topology, "uva", {"ams"}).link("delft", "ams")
    assert (back.bandwidth, back.via) == (1e6, "uva"), "the slower of the ways back"
    measured = replace(topology, links=(*links[:2], replace(links[2], origin="measured")))
    assert with_relays(measured, "uva", {"ams"}).link("ams", "delft").via == "", "it can ask itself"


# --- copies -------------------------------------------------------------------------------------

TAKING = replace(
    WORLD,
    stores=tuple(
        Store(name="results", site=name, url=f"file:///{name}") for name in ("ams", "delft")
    ),
)


def with_stores(known: Snapshot, away: str = "") -> Snapshot:
    return replace(known, topology=replace(TAKING, away=frozenset(away.split())))


def test_copies_in_mid_run_are_held_to_the_room_that_is_left() -> None:
    run, known = of_dataset(dataset("run", 1000)), with_stores(snapshot(run="uva"))
    state = running(known, run, scope="{run: ams & delft}")

    def left(room: int) -> Snapshot:
        stores = tuple(replace(store, room=room) for store in TAKING.stores)
        return replace(known, topology=replace(TAKING, stores=stores))

    assert len(plan_rest(state, left(8000), Measurements(), "").transfers) == 2
    with pytest.raises(PlacementError, match="where there is room for 7 kB"):
        plan_rest(state, left(7000), Measurements(), "")


def test_copies_are_priced_as_surely_as_the_rest() -> None:
    run, known = of_dataset(dataset("run", 1000)), with_stores(snapshot(run="uva"))
    scope = "{run: ams & delft}"
    usual = plan_graph(run, known, Measurements(), scope=scope)
    sure = plan_graph(run, known, Measurements(), scope=scope, quantile=0.9)
    assert sure.seconds > usual.seconds > 0


def test_a_dataset_is_copied_to_every_site_that_the_scope_names() -> None:
    known = with_stores(snapshot(run="uva"), away="delft")
    plan = plan_graph(of_dataset(dataset("run", 1000)), known, Measurements(), scope="ams & delft")
    assert {(t.source, t.target, t.patient, t.nbytes) for t in plan.transfers} == {
        ("uva", "ams", True, 8000),
        ("uva", "delft", True, 8000),
    }, "a site that is away gets its copy when it is back"
    assert plan.copies == {"run": ("ams", "delft")}
    assert plan.nbytes == 16000
    assert plan.seconds > 8
    assert not plan.segments


def test_a_copy_that_is_there_is_not_made_again() -> None:
    known = with_stores(snapshot(run="uva ams"))
    run = of_dataset(dataset("run", 1000))
    plan = plan_graph(run, known, Measurements(), scope="{run: ams & delft}")
    assert [t.target for t in plan.transfers] == ["delft"]
    assert plan.copies == {"run": ("ams", "delft")}


def test_the_first_that_answers_gets_the_copy() -> None:
    run = of_dataset(dataset("run", 1000))
    known = with_stores(snapshot(run="uva"), away="ams")
    plan = plan_graph(run, known, Measurements(), scope="ams || delft")
    assert [(t.target, t.patient) for t in plan.transfers] == [("delft", False)]
    nobody = with_stores(snapshot(run="uva"), away="ams delft")
    with pytest.raises(ScopeError, match=r"none of ams \|\| delft answers"):
        plan_graph(run, nobody, Measurements(), scope="ams || delft")
    with pytest.raises(ScopeError, match="uva has no store that takes copies"):
        plan_graph(run, with_stores(snapshot(run="ams")), Measurements(), scope="ams & uva")


def test_a_result_is_copied_from_where_it_is_made() -> None:
    graph = centre(of_dataset(dataset("run", 1000)))
    known = with_stores(snapshot(run="ams"))
    plan = plan_graph(graph, known, Measurements(), scope="{centre: ams & delft}")
    (made,) = plan.assignments
    (copy,) = plan.transfers
    assert (made.site, copy.source, copy.target, copy.replica) == ("ams", "ams", "delft", None)
    inner = centre(graph)
    with pytest.raises(ScopeError, match="is not asked for"):
        plan_graph(
            inner, known, Measurements(), scope={inner.steps[graph.key].label: "ams & delft"}
        )


def test_a_dataset_goes_near_where_the_scope_says() -> None:
    run = of_dataset(dataset("run", 1000))
    known = with_stores(snapshot(run="uva"))
    plan = plan_graph(run, known, Measurements(), scope="{around: ams, 200 ms}")
    assert [t.target for t in plan.transfers] == [], "100 ms away is near enough"
    links = tuple(replace(link, latency=0.3) for link in SLOW if link.source == "uva")
    far = replace(known, topology=replace(known.topology, links=(*SLOW, *links)))
    plan = plan_graph(run, far, Measurements(), scope="{around: ams, 200 ms}")
    assert [t.target for t in plan.transfers] == ["ams"]


def test_a_new_plan_wants_the_same_copies() -> None:
    known = with_stores(snapshot(run="uva ams"))
    state = running(known, of_dataset(dataset("run", 1000)), scope="delft || ams")
    lost = apply(state, SiteLost(site="delft", reason="gone"))
    assert lost.replan
    assert plan_rest(lost, known, Measurements(), "").transfers == (), "ams has it already"


# --- sites of stores ----------------------------------------------------------------------------

BUCKET = Store(name="bucket", site="cloud", url="s3://b", options=(("endpoint", "http://e"),))


def with_cloud(*openers: str) -> Topology:
    """The three sites and a bucket, which some of them (or we) open."""
    return replace(
        WORLD,
        sites=(*WORLD.sites, Site(name="cloud", workers=0, stores_only=True)),
        stores=(BUCKET,),
        views=tuple((who, BUCKET) for who in openers),
    )


def ways(topology: Topology, me: str) -> dict[tuple[str, str], str]:
    """Over whom each road to or from the cloud goes; ``closed`` if nobody can."""
    seen = with_relays(topology, me, ())
    found = {}
    for name in NAMES:
        for pair in (("cloud", name), (name, "cloud")):
            road = seen.link(*pair)
            found[pair] = "closed" if road.origin == "closed" else road.via
    return found


def test_who_opens_a_store_reads_and_writes_there_itself() -> None:
    found = ways(with_cloud("ams"), "visitor")
    assert {pair: way for pair, way in found.items() if "ams" in pair} == {
        ("cloud", "ams"): "",
        ("ams", "cloud"): "",
    }
    assert {way for pair, way in found.items() if "ams" not in pair} == {"closed"}


def test_who_makes_the_plan_carries_over_what_it_opens() -> None:
    assert set(ways(with_cloud("visitor"), "visitor").values()) == {"visitor"}
    mixed = ways(with_cloud("visitor", "uva"), "visitor")
    assert mixed["cloud", "uva"] == mixed["uva", "cloud"] == ""
    assert mixed["cloud", "ams"] == mixed["ams", "cloud"] == "visitor"


def test_what_is_only_read_is_no_place_for_results() -> None:
    topology = with_cloud("ams")
    data = replace(BUCKET, purpose="data")
    found = ways(replace(topology, stores=(data,), views=(("ams", data),)), "visitor")
    assert found["cloud", "ams"] == ""
    assert found["ams", "cloud"] == "closed"


def test_a_plan_keeps_to_open_roads_and_says_when_there_are_none() -> None:
    topology = with_relays(with_cloud("delft"), "visitor", ())
    copy = replace(replica("run", "cloud", 8000), store="bucket", url="s3://b/run")
    known = Snapshot(datasets=(dataset("run", 1000),), replicas={"run": (copy,)}, topology=topology)
    graph = centre(of_dataset(dataset("run", 1000)))
    plan = plan_graph(graph, known, Measurements(), result_at="cloud")
    assert {a.site for a in plan.assignments} == {"delft"}
    assert [(t.source, t.target, t.at, t.direct) for t in plan.transfers] == [
        ("cloud", "delft", "", True),
        ("delft", "cloud", "delft", True),
    ]
    refused = {c.site: c.because for c in plan.assignments[0].candidates if not c.allowed}
    assert refused == {"cloud": "there are stores only, and no computers"}
    (step,) = {step.label for step in graph.steps.values()}
    with pytest.raises(PlacementError, match="in those of delft"):
        plan_graph(graph, known, Measurements(), scope={step: "ams"})


def test_a_later_plan_leaves_work_where_it_is_unless_that_pays() -> None:
    known = snapshot(run="ams delft")
    graph = centre(of_dataset(dataset("run", 1000)))
    state = running(known, graph)
    (first,) = {assignment.site for assignment in state.plan.assignments}
    (other,) = {"ams", "delft"} - {first}

    def later(factor: float) -> set[str]:
        pace = Pace(fixed=10.0, per_byte=0.0, band=Band(low=0.9, high=1.1))
        paces = {first: pace, other: pace.times(factor)}
        learned = Measurements(paces={identity(centre.operation): paces})
        plan = plan_rest(state, known, learned, "")
        return {assignment.site for assignment in plan.assignments}

    assert later(0.95) == {first}
    assert later(0.5) == {other}


@operation(role="computeProvider", version="1", kind="opaque", output="scalar")
def mean(rows: Any) -> Any:
    return rows


@pytest.mark.parametrize("rule", ["cheapest", "largest-input", "largest-intermediate", "random"])
@pytest.mark.parametrize("objective", ["balanced", "time", "bytes"])
@pytest.mark.parametrize("quantile", [None, 0.1, 0.9])
def test_what_was_learned_opens_nothing_that_an_owner_closes(
    rule: Any, objective: Any, quantile: float | None
) -> None:
    run = replace(dataset("run", 1000, site="ams"), kind="table")
    graph = mean(of_dataset(run))
    learned = Measurements(
        paces={
            identity(mean.operation): {
                "delft": Pace(fixed=1000.0, per_byte=0.0),
                "uva": Pace(fixed=0.01, per_byte=0.0),
            }
        }
    )

    def planned(*providers: str) -> Plan:
        known = Snapshot(
            datasets=(run,),
            replicas={run.key: (replica(run.key, "ams", 8000),)},
            topology=WORLD,
            agreements=(
                agreement(
                    "ams",
                    relation(datasets=("run",), compute_providers=providers),
                    compute_providers=("*",),
                ),
            ),
        )
        asking = Asking(
            user=ANNA, type="sqlDataRequest", wish=Wish(archetype="dataThroughTtp"), time=1.0
        )
        return plan_graph(
            graph,
            known,
            learned,
            asking=asking,
            rule=rule,
            objective=objective,
            quantile=quantile,
        )

    (best,) = planned("*").assignments
    assert objective == "bytes" or best.site == "uva", "it is what was learned"
    plan = planned("delft")
    (only,) = plan.assignments
    assert only.site == "delft"
    assert {t.target for t in plan.transfers} == {"delft"}
    refused = {c.site: (c.rule, c.because) for c in only.candidates if not c.allowed}
    assert refused["uva"][0] == "agreement"
    assert "'uva' is no permitted compute provider; permitted is delft" in refused["uva"][1]
