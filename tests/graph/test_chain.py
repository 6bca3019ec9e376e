"""Chains: the vectors of DYNAMOS's service table, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.errors import GraphError
from dataflow.graph.chain import RequestType, Service, chain, edges, picture

QUERY, ANONYMIZE, AGGREGATE = "sql-query", "sql-anonymize", "sql-aggregate"
ALGORITHM, GRAPH = "sql-algorithm", "sql-graph"
SERVICES = {
    service.name: service
    for service in (
        Service(name=QUERY, label="dataProvider", outputs=(AGGREGATE, ALGORITHM, ANONYMIZE)),
        Service(name=ANONYMIZE, label="dataProvider", outputs=(AGGREGATE, ALGORITHM)),
        Service(
            name=AGGREGATE,
            label="computeProvider",
            outputs=(ALGORITHM,),
            invalid_archetypes=("computeToData",),
        ),
        Service(name=ALGORITHM, label="computeProvider", outputs=(GRAPH,)),
        Service(name=GRAPH, label="computeProvider"),
    )
}
REQUEST = RequestType(
    name="sqlDataRequest",
    required=(QUERY, ALGORITHM),
    optional={ANONYMIZE: "anonymize", GRAPH: "graph", AGGREGATE: "aggregate"},
)
GENERIC = RequestType(name="genericRequest")


@pytest.mark.parametrize(
    ("role", "options", "expected"),
    [
        ("all", [], [QUERY, ALGORITHM]),
        ("all", ["graph"], [QUERY, ALGORITHM, GRAPH]),
        ("all", ["anonymize"], [QUERY, ANONYMIZE, ALGORITHM]),
        ("dataProvider", [], [QUERY]),
        ("dataProvider", ["anonymize"], [QUERY, ANONYMIZE]),
        ("computeProvider", [], [ALGORITHM]),
        ("computeProvider", ["aggregate", "graph"], [AGGREGATE, ALGORITHM, GRAPH]),
    ],
)
def test_dy07_vectors(role: str, options: list[str], expected: list[str]) -> None:
    assert list(chain(REQUEST, SERVICES, role, options)) == expected
    assert chain(GENERIC, SERVICES, role, options) == ()


def test_dy07_what_the_archetype_rules_out() -> None:
    with pytest.raises(GraphError, match=r"sql-aggregate cannot be used under .*computeToData"):
        chain(REQUEST, SERVICES, "all", ["aggregate"], archetype="computeToData")
    other = chain(REQUEST, SERVICES, "computeProvider", ["aggregate"], archetype="dataThroughTtp")
    assert other == (AGGREGATE, ALGORITHM)


def test_dy07_a_circle_is_refused_with_its_services() -> None:
    circular = {**SERVICES, GRAPH: replace(SERVICES[GRAPH], outputs=(ALGORITHM,))}
    with pytest.raises(GraphError, match=r"circle: .*sql-(algorithm|graph) → sql-"):
        chain(REQUEST, circular, "all", ["graph"])


def test_dy07_what_falls_apart_is_refused_with_its_services() -> None:
    cut = {**SERVICES, QUERY: replace(SERVICES[QUERY], outputs=(AGGREGATE,))}
    with pytest.raises(GraphError, match="takes what sql-algorithm and sql-query give"):
        chain(REQUEST, cut, "all")


def test_unknown_services_are_named() -> None:
    with pytest.raises(GraphError, match="sql-anonymize, which is unknown"):
        chain(REQUEST, {n: s for n, s in SERVICES.items() if n != ANONYMIZE}, "all", ["anonymize"])


def test_a_forced_service_is_in_the_chain_unasked() -> None:
    assert chain(REQUEST, SERVICES, "dataProvider", forced=[ANONYMIZE]) == (QUERY, ANONYMIZE)
    assert chain(REQUEST, SERVICES, "computeProvider", forced=[ANONYMIZE]) == (ALGORITHM,)


def test_picture() -> None:
    names = chain(REQUEST, SERVICES, "all", ["graph"])
    assert picture(names, SERVICES) == (
        "sql-query (dataProvider) → sql-algorithm (computeProvider) → sql-graph (computeProvider)"
    )
    assert edges(names, SERVICES) == [(QUERY, ALGORITHM), (ALGORITHM, GRAPH)]


@given(st.permutations(list(SERVICES)), st.sets(st.sampled_from(["anonymize", "graph"])))
def test_the_order_of_the_table_does_not_matter(names: list[str], options: set[str]) -> None:
    shuffled = {name: SERVICES[name] for name in names}
    mixed = replace(REQUEST, required=tuple(n for n in names if n in REQUEST.required))
    found = chain(mixed, shuffled, "all", options)
    assert found == chain(REQUEST, SERVICES, "all", options)
    for one, other in edges(found, SERVICES):
        assert found.index(one) < found.index(other)
