"""Forced services are put before everything else that reads the rows, and only there."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from dataflow.agreements import Agreement
from dataflow.graph.anonymity import common_rows
from dataflow.graph.graph import Graph, merge, of_dataset
from dataflow.graph.hiding import without_columns
from dataflow.policy.check import check
from dataflow.policy.forcing import Woven, weave
from dataflow.policy.rights import Right, follow
from tests.policy.examples import agreement, relation, wages
from tests.policy.test_rights import (
    TTP,
    UVA,
    VU,
    WORLD,
    anonymize,
    mean,
    query,
    rights,
    together,
)

FORCED = agreement("uva", relation(forced={"sqlDataRequest": ("sql-anonymize",)}))
OFFERED = {"uva": (anonymize.operation,)}


def woven(graph: Graph, about: Agreement = FORCED, **given: object) -> Woven:
    return weave(graph, rights(uva=about), {}, OFFERED)


def test_what_the_user_left_out_is_put_in_with_its_clause() -> None:
    source = of_dataset(UVA)
    found = woven(mean(query(source)))
    assert found.graph.outputs == mean(query(anonymize(source))).outputs
    assert found.added == {anonymize(source).key: "uva: agreement 'wages', relation 'GUID'"}
    assert found.notes == (
        "sql-anonymize was put in: uva: agreement 'wages', relation 'GUID' forces it",
    )
    table = check(found.graph, WORLD, rights=rights(uva=FORCED))
    assert [site for site, verdict in table[found.graph.key].items() if verdict] == ["uva"]


def test_hidden_columns_are_left_out_before_anything_else() -> None:
    source = of_dataset(UVA)
    about = agreement(
        "uva", relation(hidden=("b", "a"), forced={"sqlDataRequest": ("sql-anonymize",)})
    )
    found = woven(mean(source), about)
    hidden = without_columns(source, columns=["a", "b"])
    assert found.graph.key == mean(anonymize(hidden)).key
    assert without_columns.operation.code in found.graph.functions
    assert woven(mean(anonymize(hidden)), about).notes == ()
    without = woven(mean(without_columns(source, columns=["a"])), about)
    assert hidden.key in without.graph.steps
    (right,) = rights(TTP, uva=about)[UVA.key]
    assert [right.goes_to("surf", n) is None for n in (0, 1, 2)] == [False, False, True]


def test_rows_that_few_look_like_are_left_out_after_all_other_services() -> None:
    source = of_dataset(UVA)
    terms = {"hidden": ("b",), "forced": {"*": ("sql-anonymize",)}}
    about = agreement("uva", relation(anonymity=5, among=("c", "a"), **terms))
    found = woven(mean(source), about)
    asked = anonymize(without_columns(source, columns=["b"]))
    assert found.graph.key == mean(common_rows(asked, k=5, among=["a", "c"])).key
    assert common_rows.operation.code in found.graph.functions
    assert woven(mean(common_rows(asked, k=5, among=["a", "c"])), about).notes == ()
    for milder in ({"k": 4, "among": ["a", "c"]}, {"k": 5, "among": ["a"]}):
        put_in = woven(mean(common_rows(asked, **milder)), about)
        assert common_rows(asked, k=5, among=["a", "c"]).key in put_in.graph.steps
    (right,) = rights(TTP, uva=about)[UVA.key]
    assert [right.goes_to("surf", n) is None for n in range(4)] == [False, False, False, True]
    assert right.row_floor == 5


def test_milder_terms_do_not_stand_in_for_stricter_ones() -> None:
    strict = relation(anonymity=5, among=("a", "b"))
    for id, fine, fields in [
        ("none", True, {}),
        ("fewer columns", True, {"anonymity": 5, "among": ("a",)}),
        ("fewer rows", True, {"anonymity": 2, "among": ("a", "b")}),
        ("more rows", False, {"anonymity": 6, "among": ("a",)}),
        ("other columns", False, {"anonymity": 2, "among": ("c",)}),
        ("all columns", False, {"anonymity": 2}),
    ]:
        other = relation(**{**fields, "id": id})
        (right,) = rights(uva=agreement("uva", strict, other))[UVA.key]
        assert [grant.relation.id for grant in right.grants[1:]] == ([id] if fine else []), id


def test_what_he_applied_himself_is_left_alone() -> None:
    graph = mean(query(anonymize(of_dataset(UVA))))
    assert woven(graph).graph.outputs == graph.outputs
    assert woven(graph).notes == ()


def test_rows_of_others_are_left_alone() -> None:
    graph = merge([mean(of_dataset(VU)), mean(of_dataset(UVA))])
    found = woven(graph)
    assert found.graph.outputs == (mean(of_dataset(VU)).key, mean(anonymize(of_dataset(UVA))).key)
    both = together(of_dataset(VU), of_dataset(UVA))
    assert woven(both).graph.key == together(of_dataset(VU), anonymize(of_dataset(UVA))).key


def test_only_the_owners_own_service_serves() -> None:
    graph = mean(of_dataset(UVA))
    assert weave(graph, rights(uva=FORCED), {}, {}).graph.outputs == graph.outputs
    assert weave(graph, rights(uva=FORCED), {}, {"vu": OFFERED["uva"]}).notes == ()
    twice = {"uva": (replace(anonymize.operation, version="0"), anonymize.operation)}
    assert weave(graph, rights(uva=FORCED), {}, twice).graph.key == woven(graph).graph.key


def test_stored_rows_go_on_from_where_they_are() -> None:
    stored = wages("surf", "stored")
    source, given_rows = of_dataset(stored), {stored.key: {UVA.key: 0}}
    found = weave(mean(source), rights(uva=FORCED), given_rows, OFFERED)
    assert found.graph.key == mean(anonymize(source)).key
    through = {stored.key: {UVA.key: 1}}
    assert weave(mean(source), rights(uva=FORCED), through, OFFERED).notes == ()


def test_forced_services_are_done_at_home_and_rows_leave_after_them() -> None:
    fetched: dict[str, tuple[Right, ...]] = rights(
        "fetch",
        uva=agreement(
            "uva",
            relation(archetypes=("fetch",), forced={"*": ("sql-anonymize",)}),
            archetypes=("*",),
        ),
        vu=agreement("vu", relation(archetypes=("fetch",)), archetypes=("*",)),
    )
    graph = mean(anonymize(of_dataset(UVA)))
    table = check(graph, WORLD, rights=fetched)
    first = table[anonymize(of_dataset(UVA)).key]
    assert [site for site, verdict in first.items() if verdict] == ["uva"]
    assert all(table[graph.key].values())
    right = fetched[UVA.key][0]
    denial = right.goes_to("surf", 0)
    assert denial is not None
    assert denial.rule == "forced service"
    assert right.goes_to("surf", 1) is None


@given(
    st.lists(st.sampled_from(["query", "anonymize", "mean", "together"]), max_size=6),
    st.lists(st.sampled_from(["sql-anonymize", "query"]), max_size=2, unique=True),
)
def test_whatever_is_asked_no_reader_comes_before_what_is_forced(
    words: list[str], forced: list[str]
) -> None:
    graph: Graph = of_dataset(UVA)
    for word in words:
        if word == "together":
            graph = together(graph, of_dataset(UVA))
        else:
            graph = {"query": query, "anonymize": anonymize, "mean": mean}[word](graph)
    about = agreement("uva", relation(forced={"*": tuple(forced)}))
    known = rights(TTP, uva=about)
    offered = {"uva": (anonymize.operation, query.operation)}
    found = weave(graph, known, {}, offered).graph
    assert weave(found, known, {}, offered).graph.outputs == found.outputs, "once is enough"
    readings = follow(found.steps.values(), {UVA.key: {UVA.key: 0}}, known)
    for key, step in found.steps.items():
        for applied in readings[key].reads.values():
            assert applied >= len(forced) or step.operation.name == forced[applied]
