"""The least that would have to change, against trying all sets of clauses."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.errors import NoAllowedSite, from_document, to_document
from dataflow.graph.graph import merge, of_dataset
from dataflow.placement.conflict import Clause, Row, least_change
from dataflow.placement.make import make_plan
from dataflow.policy.check import check
from dataflow.sites import Site, Topology
from dataflow.testing.strategies import centre, dataset, replica, square

REFUSALS = st.tuples(
    st.sampled_from(["scope", "agreement", "memory"]), st.sampled_from(["a", "b", "c"])
)
ROWS = st.lists(
    st.dictionaries(st.sampled_from(["p0", "p1", "p2"]), REFUSALS, min_size=1),
    min_size=1,
    max_size=5,
)


def enough(rows: Sequence[Row], gone: set[tuple[str, str]]) -> bool:
    return all(any(refusal in gone for refusal in row.values()) for row in rows)


@given(ROWS)
def test_no_fewer_clauses_would_do(rows: list[dict[str, tuple[str, str]]]) -> None:
    found = least_change(rows)
    assert enough(rows, {(c.rule, c.because) for c in found})
    every = sorted({refusal for row in rows for refusal in row.values()})
    for count in range(len(found)):
        for some in itertools.combinations(every, count):
            assert not enough(rows, set(some))
    for clause in found:
        closed = {s for row in rows for s, r in row.items() if r == (clause.rule, clause.because)}
        assert set(clause.sites) == closed


def test_one_clause_in_the_way_of_many_and_the_users_own_word_first() -> None:
    rows = [
        {"p0": ("agreement", "no"), "p1": ("scope", "the scope says p2")},
        {"p0": ("memory", "too much"), "p1": ("scope", "the scope says p2")},
    ]
    assert least_change(rows) == (Clause(rule="scope", because="the scope says p2", sites=("p1",)),)
    both = [{"p0": ("agreement", "no"), "p1": ("scope", "the scope says p2")}]
    assert [c.rule for c in least_change(both)] == ["scope"]


def test_nobody_knows_a_site() -> None:
    assert least_change([{}]) == ()


def test_the_error_says_it_and_travels() -> None:
    run = of_dataset(dataset("run1", 1000))
    graph = merge([centre(run), square(run)])
    world = Topology(sites=(Site(name="p1"), Site(name="p2"), Site(name="p3")))
    verdicts = check(graph, world, scope="{centre: p1, square: p1}", excluded={"p1": "not today"})  # type: ignore[arg-type]
    with pytest.raises(NoAllowedSite) as caught:
        make_plan(
            graph, topology=world, replicas={"run1": [replica("run1", "p3", 8000)]},
            verdicts=verdicts,
        )  # fmt: skip
    error = caught.value
    assert (
        "the least that would have to be otherwise is\n  - p2, p3: the scope says p1 (scope)"
        in str(error)
    )
    assert str(from_document(to_document(error))) == str(error)
