"""Rights: rows are followed through a graph, and each owner's word counts wherever they are read."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow.agreements import Agreement
from dataflow.graph.graph import Graph, merge, of_dataset
from dataflow.graph.operation import operation
from dataflow.policy.agreement import Asked
from dataflow.policy.archetype import SHIPPED
from dataflow.policy.check import AGREEMENT, Verdict, check
from dataflow.policy.rights import Right, follow, right_of, standing
from dataflow.sites import Site, Topology
from tests.policy.examples import ANNA, BOTH, agreement, relation, wages

C2D, TTP = BOTH
SITES = ("vu", "uva", "surf", "lab")
WORLD = Topology(sites=tuple(Site(name=name) for name in SITES))
ASKED = Asked(user=ANNA, type="sqlDataRequest")
VU, UVA = wages("vu"), wages("uva")


@operation(role="dataProvider", version="1")
def query(x: Any) -> Any:
    return x


@operation(role="dataProvider", name="sql-anonymize", version="1")
def anonymize(x: Any) -> Any:
    return x


@operation(role="computeProvider", version="1")
def mean(x: Any) -> Any:
    return x


@operation(version="1")
def together(a: Any, b: Any) -> Any:
    return a, b


def rights(archetype: str = C2D, **agreements: Agreement) -> dict[str, tuple[Right, ...]]:
    found = {}
    for dataset in (VU, UVA):
        about = agreements.get(dataset.site, agreement(dataset.site, relation()))
        how = standing([about], [dataset], ASKED, steward=False)
        assert how is not None
        found[dataset.key] = (right_of(how, archetype, SHIPPED, ASKED),)
    return found


def row(graph: Graph, **how: Any) -> dict[str, Verdict]:
    return check(graph, WORLD, rights=rights(**how))[graph.key]


def where(graph: Graph, **how: Any) -> list[str]:
    return [site for site, verdict in row(graph, **how).items() if verdict]


def test_compute_to_data_stays_there() -> None:
    graph = mean(query(of_dataset(VU)))
    assert where(graph) == ["vu"]
    refused = row(graph)["surf"]
    assert refused.rule == AGREEMENT
    assert refused.because == (
        "vu: agreement 'wages', relation 'GUID': computeToData keeps 'wageGap' at vu"
    )


def test_through_a_third_party_each_has_its_role() -> None:
    selected = query(of_dataset(VU))
    table = check(mean(selected), WORLD, rights=rights(TTP))
    assert [s for s, v in table[selected.key].items() if v] == ["vu"], "queries stay at the data"
    assert where(mean(selected), archetype=TTP) == ["surf"]
    assert (
        "under dataThroughTtp a third party computes"
        in row(mean(selected), archetype=TTP)["vu"].because
    )
    assert "'lab' is no permitted compute provider; permitted is surf" in (
        row(mean(selected), archetype=TTP)["lab"].because
    )


def test_nobody_reads_the_rows_of_two_owners_but_a_third_party() -> None:
    graph = together(of_dataset(VU), of_dataset(UVA))
    assert where(graph) == []
    assert where(graph, archetype=TTP) == ["surf"]


def test_results_are_free() -> None:
    graph = together(mean(of_dataset(VU)), mean(of_dataset(UVA)))
    assert where(graph) == list(SITES)


def test_fetch_goes_anywhere() -> None:
    about = {s: agreement(s, relation(archetypes=("fetch",)), archetypes=("fetch",)) for s in SITES}
    assert where(mean(of_dataset(VU)), archetype="fetch", **about) == list(SITES)


def test_a_denial_holds_everywhere() -> None:
    row_of = row(mean(of_dataset(VU)), vu=agreement("vu"))
    assert not any(row_of.values())
    assert {v.because for v in row_of.values()} == {
        f"vu: agreement 'wages' has no relation for user {ANNA!r}"
    }


def test_an_archetype_that_is_not_allowed() -> None:
    about = agreement("uva", relation(archetypes=(TTP,)))
    verdict = row(mean(of_dataset(UVA)), uva=about)["uva"]
    assert "archetype 'computeToData' is not allowed, only dataThroughTtp" in verdict.because


def test_forced_services_come_first() -> None:
    about = {"uva": agreement("uva", relation(forced={"sqlDataRequest": ("sql-anonymize",)}))}
    source = of_dataset(UVA)
    assert where(mean(source), **about) == []
    assert (
        "sql-anonymize must be applied to 'wageGap' first"
        in row(mean(source), **about)["uva"].because
    )
    assert where(mean(anonymize(source)), **about) == ["uva"]
    assert where(mean(query(anonymize(source))), **about) == ["uva"]
    assert where(query(source), **about) == [], "not even a query goes before it"


def test_the_strictest_of_several_names_of_the_same_bytes_counts() -> None:
    mine = wages("vu", owner="mallory")
    about = agreement("vu", relation(), owner="hr")
    theirs = wages("vu", owner="hr")
    for order in ([mine, theirs], [theirs, mine]):
        found = standing([about], order, Asked(user="mallory"), steward=False)
        assert found is not None
        assert found.denial is not None


@pytest.mark.parametrize("steward", [False, True])
def test_no_agreement_is_free_at_a_lab_and_refused_at_a_steward(steward: bool) -> None:
    found = standing([], [VU], ASKED, steward=steward)
    assert (found is None) != steward
    if found is not None:
        assert found.denial is not None
        assert found.denial.because == "vu: no agreement is about 'wageGap'"


def test_one_of_several_owners_is_enough() -> None:
    free = rights(TTP)[VU.key][0]
    refused = rights(TTP, uva=agreement("uva"))[UVA.key][0]
    table = check(mean(of_dataset(VU)), WORLD, rights={VU.key: (refused, free)})
    assert [s for s, v in table[mean(of_dataset(VU)).key].items() if v] == ["surf"]


def test_rows_of_stored_results_go_on_being_rows() -> None:
    graph = mean(of_dataset(wages("surf", "stored")))
    key = wages("surf", "stored").key
    table = check(graph, WORLD, rights=rights(), given={key: {VU.key: 0}})
    assert [s for s, v in table[graph.key].items() if v] == ["vu"]


def test_rows_themselves_go_only_where_they_may() -> None:
    assert rights(C2D)[VU.key][0].goes_to("surf", 0) is not None
    through = rights(TTP)[VU.key][0]
    assert through.goes_to("surf", 0) is None
    assert through.goes_to("lab", 0) is not None
    hidden = rights(TTP, vu=agreement("vu", relation(hidden=("name",))))[VU.key][0]
    denial = hidden.goes_to("surf", 0)
    assert denial is not None
    assert denial.rule == "hidden columns"


def test_terms_of_two_relations_are_not_mixed() -> None:
    """The mild one names no third party, and the one that names it hides a column."""
    mild = relation(id="mild", compute_providers=())
    strict = relation(id="strict", hidden=("name",))
    for order in ((mild, strict), (strict, mild)):
        (right,) = rights(TTP, vu=agreement("vu", *order))[VU.key]
        assert right.goes_to("surf", 0) is not None
        assert right.goes_to("surf", 1) is None
    other = relation(
        id="other", forced={"*": ("sql-anonymize",)}, compute_providers=("otherCompany",)
    )
    (right,) = rights(TTP, vu=agreement("vu", relation(), other))[VU.key]
    assert right.goes_to("surf", 0) is None
    assert right.goes_to("otherCompany", 0) is not None


def test_following_takes_the_rows_that_went_through_least() -> None:
    source = of_dataset(UVA)
    forced = rights(C2D, uva=agreement("uva", relation(forced={"*": ("sql-anonymize",)})))
    graph = together(source, anonymize(source))
    found = follow(graph.steps.values(), {UVA.key: {UVA.key: 0}}, forced)
    assert found[graph.key].reads == {UVA.key: 0}
    assert found[anonymize(source).key].carries == {UVA.key: 1}
    assert found[graph.key].carries == {}


def test_without_rights_nothing_changes() -> None:
    graph = merge([mean(of_dataset(VU)), mean(of_dataset(UVA))])
    assert check(graph, WORLD) == check(graph, WORLD, rights={})
