"""The benchmark of placement can lose: nothing may be better than what is proven to be the best."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dataflow.placement.engine.bounds import Bounds
from dataflow.placement.engine.exact import _Model
from dataflow.placement.engine.search import place
from dataflow.testing.problems import problem

FOLDER = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("placement_benchmark", FOLDER / "placement.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("seconds", "nbytes"), [(1.1, 0.0), (0.0, 1.1)])
def test_nothing_is_below_a_bound(benchmark: ModuleType, seconds: float, nbytes: float) -> None:
    case = benchmark.Case(problem("tree", 9, 3, data=30.0))
    heft = case.played["heft"]
    assert heft.nbytes > 0
    least = Bounds(makespan=seconds * heft.makespan, nbytes=nbytes * heft.nbytes)
    benchmark.hold("tree", {"heft": heft}, Bounds(makespan=heft.makespan, nbytes=heft.nbytes))
    with pytest.raises(benchmark.BrokenBound, match="tree: heft has"):
        benchmark.hold("tree", {"heft": heft}, least)


def test_problems_where_no_search_meets_the_bound_count(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loose(instance: Any, known: Bounds, seconds: float) -> Bounds:
        return replace(known, makespan=known.makespan / 2)

    def quick(instance: Any, objective: Any, *, seed: int, budget: float) -> Any:
        return place(instance, objective, seed=seed, budget=0.001)

    monkeypatch.setattr(benchmark, "proven", loose)
    monkeypatch.setattr(benchmark, "place", quick)
    lines = {line["figure"]: line for line in benchmark.small(1, 2)}
    assert lines["G5 share without a proven optimum"]["value"] == 1.0
    assert lines["G5 share without a proven optimum"]["holds"] is False
    assert lines["G5 makespan in 100 ms, all of them"]["holds"] is False


def test_a_quick_run_says_that_its_seed_is_fixed(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import argparse

    monkeypatch.setattr(benchmark, "measure", lambda kind, seed, *_, **__: [(kind, seed)])
    monkeypatch.setattr(benchmark, "large", lambda *_: [])
    asked = argparse.Namespace(quick=True, plans=None, prove=None, big=False, plots=None)
    assert [*benchmark._figures(asked, [benchmark.QUICK])] == [("fixed", 90210)]
    assert [*benchmark._figures(asked, [7])] == [("fresh", 7)]


def test_a_bound_allows_for_what_the_solver_takes_for_equal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    instance = problem("tree", 9, 3, data=30.0)
    largest = float(instance.size.max())
    answer = SimpleNamespace(mip_dual_bound=1e-6)  # with a plan at 0, by its tolerance it is done
    monkeypatch.setattr(optimize, "milp", lambda *_, **__: answer)
    assert _Model(instance).least(1.0, makespan=False) == 0.0
    answer.mip_dual_bound = 0.5
    assert _Model(instance).least(1.0, makespan=False) == pytest.approx(largest / 2, rel=1e-5)


def test_a_bound_allows_for_what_the_solver_takes_for_equal_of_every_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    instance = problem("chunks", 400, 3, skew="zipf")
    priced = instance.width * int((instance.size > 0).sum())
    answer = SimpleNamespace(mip_dual_bound=0.9e-7 * priced)
    assert answer.mip_dual_bound > 1e-4, "more than the solver's tolerance of the whole"
    monkeypatch.setattr(optimize, "milp", lambda *_, **__: answer)
    assert _Model(instance).least(1.0, makespan=False) == 0.0
