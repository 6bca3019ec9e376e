"""Verdicts: each refusal names its rule, and shares of a step inherit."""

from __future__ import annotations

from typing import Any

from hypothesis import given

from dataflow.graph.graph import Graph, merge, of_dataset
from dataflow.graph.operation import operation
from dataflow.graph.split import split
from dataflow.policy.check import check, inherit, memory_needed
from dataflow.sites import Site, Topology
from dataflow.testing.strategies import dataset, graphs, square, total, weighted

A, B = of_dataset(dataset("a", 1000)), of_dataset(dataset("b", 1000))
HOMES = {"a": frozenset({"p1"}), "b": frozenset({"p2"})}


def topology(**fields: Any) -> Topology:
    sites = (
        Site(name="p1"),
        Site(name="p2", **fields),
        Site(name="p3", trust="steward"),
        Site(name="p4"),
    )
    return Topology(sites=sites, away=frozenset({"p4"}))


def rules(graph: Graph, world: Topology, **how: Any) -> dict[str, str]:
    return {name: verdict.rule for name, verdict in check(graph, world, **how)[graph.key].items()}


def test_each_refusal_has_its_rule() -> None:
    graph = square(A)
    name = f"square@{square.operation.version}"
    assert rules(graph, topology()) == {
        "p1": "allowed",
        "p2": "allowed",
        "p3": "trust",
        "p4": "away",
    }
    assert rules(graph, topology(), installed={"p3": frozenset({name})})["p3"] == "allowed"
    assert rules(graph, topology(), excluded={"p1": "lost"})["p1"] == "excluded"
    assert rules(graph, topology(), scope={"square": "p1"})["p2"] == "scope"


def test_a_scope_names_label_operation_or_role() -> None:
    @operation(role="crunch")
    def work(x: Any) -> Any:
        return x

    graph = merge([work(A), work(B)])
    first, second = graph.steps
    table = check(graph, topology(), scope={"work-2": "p2", "crunch": "p1"})
    assert table[first]["p1"].allowed
    assert not table[first]["p2"].allowed
    assert table[second]["p2"].allowed
    assert not table[second]["p1"].allowed


def test_memory_counts_what_is_loaded_at_once() -> None:
    @operation(kind="linear", output="scalar", lazy=False)
    def loaded(x: Any) -> Any:
        return x.sum()

    world = topology(memory=10_000)
    graph = loaded(A, B)
    verdict = check(graph, world)[graph.key]["p2"]
    assert (verdict.rule, bool(verdict)) == ("memory", False)
    assert verdict.because == "needs 16 kB at once, a worker there has 10 kB"
    assert rules(total(A, B), world)["p2"] == "allowed", "lazy inputs stream"
    apart = split(graph, HOMES)
    table = inherit(check(graph, world), apart, world)
    assert {step.label: table[key]["p2"].rule for key, step in apart.steps.items()} == {
        "loaded[a]": "allowed",
        "loaded[b]": "allowed",
        "loaded": "allowed",
    }
    assert memory_needed(graph.steps[graph.key], [A.extent, B.extent]) == 16_000


def test_shares_inherit_every_other_refusal() -> None:
    graph = weighted(A, B)
    table = check(graph, topology(), scope={"weighted": "p1"})
    apart = split(graph, HOMES)
    for row in inherit(table, apart, topology()).values():
        assert row == table[graph.key]


def test_shares_of_shares_inherit_too() -> None:
    graph = total(2 * A - B, A)
    apart = split(graph, HOMES)
    assert len(apart.steps) > 3
    table = check(graph, topology(), scope={"total": "p2"})
    found = inherit(table, apart, topology())
    assert all(found[key] == table[graph.key] for key in apart.steps if key not in graph.steps)


@given(graphs())
def test_every_step_of_every_split_has_verdicts(graph: Graph) -> None:
    homes = {key: frozenset({f"p{n % 2 + 1}"}) for n, key in enumerate(graph.sources)}
    apart = split(graph, homes)
    found = inherit(check(graph, topology()), apart, topology())
    assert set(found) == set(apart.steps)
    for key in set(found) & set(graph.steps):
        assert found[key] == check(graph, topology())[key]
