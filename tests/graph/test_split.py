"""Splitting: same results, same keys, the operation on every term."""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.datasets import Dataset, Extent
from dataflow.graph.graph import Graph, merge, of_dataset
from dataflow.graph.keys import decode
from dataflow.graph.operation import Step, operation
from dataflow.graph.split import needs_check, split, taken_apart
from dataflow.testing.strategies import (
    centre,
    dataset,
    graphs,
    lowest_top,
    reverse,
    square,
    total,
    weighted,
)

N = 12
a, b, c = (of_dataset(dataset(name, N)) for name in ("run1", "run2", "run3"))
HOMES = {"run1": frozenset({"ams"}), "run2": frozenset({"delft"}), "run3": frozenset({"uva"})}


@operation(kind="linear", output="same")
def triple(x: Any) -> Any:
    return 3 * x


def call(graph: Graph, step: Step, values: dict[str, Any]) -> Any:
    """What the text of `dataflow.graph.split` says runs at each stage, word for word."""
    functions = graph.functions[step.operation.code]
    parameters = {name: decode(value) for name, value in step.parameters.items()}
    inputs = [values[key] for key in step.inputs]
    linear = step.operation.kind == "linear"
    combine = operator.add if linear else functions.combine
    finish = functions.finish or (lambda x: x)

    def function(slots: tuple[str, ...], given: list[Any]) -> Any:
        assert functions.function is not None
        named = {s: x for s, x in zip(slots, given, strict=True) if s != "*"}
        starred = [x for s, x in zip(slots, given, strict=True) if s == "*"]
        return functions.function(*starred, **named, **parameters)

    if step.stage == "whole" and not step.pieces:
        result = function(step.slots, inputs)
        return finish(result) if step.operation.kind == "reduction" else result
    if step.stage == "part":
        count = len(step.parts) + len(step.absent) if step.absent else len(inputs)
        kept = iter(zip(step.slots, inputs, strict=True))
        zeros = iter(
            (slot, np.zeros(graph.extents[key].variables[0].shape)) for slot, key in step.absent
        )
        order = [
            next(kept) if not step.absent or position in step.parts else next(zeros)
            for position in range(count)
        ]
        return function(tuple(slot for slot, _ in order), [value for _, value in order])
    if step.stage == "whole":
        inputs = [function((s,), [x]) for s, x in zip(step.slots, inputs, strict=True)]
    folded = functools.reduce(combine, inputs)  # type: ignore[arg-type]
    return folded if linear or step.stage == "merge" else finish(folded)


def run(graph: Graph, data: dict[str, Any]) -> dict[str, Any]:
    values = dict(data)
    for key, step in graph.steps.items():
        values[key] = call(graph, step, values)
    return values


def labels(graph: Graph) -> list[str]:
    return [step.label for step in graph.steps.values()]


@given(graphs(elements=N), st.data())
def test_results_stay_the_same(graph: Graph, data: st.DataObject) -> None:
    sites = st.frozensets(st.sampled_from(["ams", "delft", "uva"]), min_size=1, max_size=2)
    homes = {key: data.draw(sites) for key in graph.sources}
    apart = split(graph, homes)
    numbers = np.random.default_rng(3)
    values = {key: numbers.integers(-9, 9, N).astype(float) for key in graph.sources}
    before, after = run(graph, values), run(apart, values)
    assert apart.outputs == graph.outputs
    for key in graph.outputs:
        np.testing.assert_allclose(after[key], before[key])
    for key in set(graph.steps) & set(apart.steps):  # what has the same key is the same
        np.testing.assert_allclose(after[key], before[key])
        assert apart.steps[key].label == graph.steps[key].label
    assert [s.key for s in needs_check(graph, apart)] == list(taken_apart(graph, apart))
    once_more = split(apart, homes)
    assert run(once_more, values).keys() >= set(graph.outputs)


@given(graphs(elements=N))
def test_one_site_leaves_everything_alone(graph: Graph) -> None:
    assert split(graph, {key: frozenset({"ams"}) for key in graph.sources}) is graph


def test_pieces_of_a_linear_operation() -> None:
    graph = total(a, b)
    apart = split(graph, HOMES)
    assert labels(apart) == ["total[run1]", "total[run2]", "total"]
    first, second, last = apart.steps.values()
    assert first.key == total(a).key
    assert second.key == total(b).key
    assert last.key == graph.key
    assert [s.stage for s in apart.steps.values()] == ["part", "part", "combine"]
    assert first.mother == second.mother == graph.key
    assert needs_check(graph, apart) == [graph.steps[graph.key]]


def test_a_part_that_the_user_asked_for_keeps_its_name() -> None:
    apart = split(merge([total(b), total(a, b)]), HOMES)
    assert labels(apart) == ["total", "total-2[run1]", "total-2"]


def test_parts_of_a_reduction_are_shared_between_steps() -> None:
    apart = split(merge([lowest_top(a, b), lowest_top(b, c)]), HOMES)
    assert len(apart.steps) == 5
    assert all(key != lowest_top(b).key for key in apart.steps), "a part is not finished"


def test_partial_results_of_one_site_are_merged_before_they_travel() -> None:
    homes = HOMES | {"run3": frozenset({"ams"})}
    apart = split(total(a, b, c), homes)
    assert labels(apart) == [
        "total[run1]",
        "total[run3]",
        "total[run1, run3]",
        "total[run2]",
        "total",
    ]
    merged = next(step for step in apart.steps.values() if step.stage == "merge")
    assert merged.key == total(a, c).key
    in_order = split(lowest_top(a, b, c), homes)
    assert not [step for step in in_order.steps.values() if step.stage == "merge"]


def test_several_arguments() -> None:
    graph = weighted(a, b)
    first, second, last = split(graph, HOMES).steps.values()
    assert (first.slots, first.parts, first.absent) == (("x",), (0,), (("y", "run2"),))
    assert (second.slots, second.parts, second.absent) == (("y",), (1,), (("x", "run1"),))
    assert last.key == graph.key


def test_several_arguments_of_which_two_are_together() -> None:
    @operation(kind="linear", output="scalar")
    def three(x: Any, y: Any, z: Any) -> Any:
        return x.sum() - y.sum() + 2 * z.sum()

    graph = three(a, b, c)
    apart = split(graph, HOMES | {"run3": frozenset({"ams"})})
    assert [s.parts for s in apart.steps.values()] == [(0, 2), (1,), ()]
    values = {key: np.arange(N) * n for n, key in enumerate(HOMES, 2)}
    assert run(apart, values)[graph.key] == run(graph, values)[graph.key]


def test_zeros_of_unknown_shape_are_not_made() -> None:
    nothing = Dataset(id="u", name="u", key="u", kind="table", extent=Extent(nbytes=8), site="ams")
    graph = weighted(a, of_dataset(nothing))
    assert split(graph, HOMES | {"u": frozenset({"delft"})}) is graph


def test_the_outer_operation_stays_on_the_inner_part() -> None:
    @operation(kind="linear", output=str(8 * N // 2))
    def half(x: Any) -> Any:
        return x[::2]

    graph = total(a + triple(b + c))
    apart = split(graph, HOMES)
    assert labels(apart) == ["total[run1]", "add", "triple", "total[triple]", "total"]
    inner = half(b + c)
    both = split(total(inner, a), HOMES)
    assert labels(both)[:3] == ["half[run2]", "half[run3]", "half"]
    assert "total[half]" in labels(both)


def test_unknown_sizes_are_taken_to_shrink() -> None:
    apart = split(reverse(b + c), HOMES)
    assert labels(apart) == ["reverse[run2]", "reverse[run3]", "reverse"]


def test_factors_and_differences() -> None:
    graph = total((a - b) * 3)
    apart = split(graph, HOMES)
    values = {"run1": np.arange(N) + 4.0, "run2": np.arange(N) * 2.0, "run3": np.zeros(N)}
    assert run(apart, values)[graph.key] == pytest.approx(run(graph, values)[graph.key])
    assert "add" not in labels(apart)
    assert "subtract" not in labels(apart)


def test_a_scalar_that_would_be_spread_is_not_a_term() -> None:
    graph = total(a + total(b))
    apart = split(graph, HOMES)
    assert apart.steps[graph.key].stage == "whole"


def test_a_sum_that_is_needed_as_such_is_not_opened() -> None:
    both = a + b
    assert split(merge([total(both), both]), HOMES).steps[total(both).key].stage == "whole"
    assert split(merge([total(both), centre(both)]), HOMES).steps[total(both).key].stage == "whole"


def test_what_cannot_pay_is_left_alone() -> None:
    for graph in (triple(a + b), a + b, a - b, square(a), centre(a + b)):
        assert split(graph, HOMES) is graph


def test_known_sizes_decide() -> None:
    graph = reverse(a + b)
    assert split(graph, HOMES, sizes={graph.key: 8 * N}) is graph
    assert split(graph, HOMES, sizes={graph.key: 4 * N}) is not graph


def test_only_some() -> None:
    first, second = total(a, b), lowest_top(a, b)
    apart = split(merge([first, second]), HOMES, only={second.key})
    assert taken_apart(merge([first, second]), apart) == (second.key,)


def test_stored_results_are_left_alone() -> None:
    graph = total(a, b)
    assert split(graph, HOMES | {graph.key: frozenset({"uva"})}) is graph


def test_copies_at_one_site_are_enough() -> None:
    homes = {"run1": frozenset({"ams", "uva"}), "run2": frozenset({"uva"})}
    graph = total(a, b)
    assert split(graph, homes) is graph
