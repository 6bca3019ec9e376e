"""Placement: makespan and bytes of plans against HEFT's and against proven bounds, and what deciding costs.

    python benchmarks/placement.py [--quick] [--json] [--seed N …] [--big] [--prove S] [--plots DIR]
                                   [--export DIR] [--plans DIR]

Workflows after real traces (recipes of WfCommons, if it is installed) and random problems of six shapes, once from
the seed that was looked at while the search was tuned (train) and once from a fresh one, which is drawn and printed
unless it is given; with `--quick` only from the fixed seed 90210. No plan and no baseline may be below a proven bound: the
benchmark ends there. Geometric means; compute-bound (d3) and data-bound (d30) problems apart, worst cases and
losses by name. `--seed` may be given more than once; `--plots DIR` draws makespan and bytes relative to the
bounds, and time by size. Twelve baselines are played in the same run. Seconds are those of this process's processor, so
that a busy machine does not count.

Anybody may submit plans: `--export DIR` writes the problems as `NAME.json`, `--plans DIR` plays every `NAME.plan.json`
that lies beside them and compares it with HEFT and with ours.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from _placement_plots import Point, draw

from dataflow.placement.engine.bounds import Bounds, bounds
from dataflow.placement.engine.classics import classics
from dataflow.placement.engine.exact import proven
from dataflow.placement.engine.instance import Instance
from dataflow.placement.engine.interchange import read_plan, read_problem, write_problem
from dataflow.placement.engine.rivals import Lists, simple
from dataflow.placement.engine.search import Placed, place
from dataflow.placement.engine.simulate import Choice, Outcome, copies, simulate
from dataflow.placement.engine.warm import warm
from dataflow.testing import workflows
from dataflow.testing.problems import problem, suite

clock = time.process_time
#: The seed that was looked at while the search was tuned.
TRAIN = 5
#: The only seed of a quick run, unless others are given.
QUICK = 90210
#: Bounds are a little higher or lower, by rounding.
ROUNDING = 1e-6


def geometric(values: Iterable[float]) -> float:
    return math.exp(float(np.mean([math.log(max(value, 1e-12)) for value in values])))


class Case:
    """One problem, its baselines, and everything that was planned for it."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        lists = Lists(instance)
        plans: dict[str, Callable[[], Choice]] = {**simple(lists), **classics(lists)}
        self.choices = {name: make() for name, make in plans.items()}
        self.played = {name: simulate(instance, one) for name, one in self.choices.items()}
        self.heft = self.played["heft"]
        self.violations = 0

    @property
    def bound(self) -> str:
        return "d30" if "-d30-" in self.instance.name else "d3"

    def bytes_ratio(self, outcome: Outcome) -> float:
        extra = 0.01 * self.instance.total_bytes
        return (outcome.nbytes + extra) / (self.heft.nbytes + extra)

    def place(self, objective: Any, **more: Any) -> tuple[Placed, float]:
        begun = clock()
        placed = place(self.instance, objective, seed=1, **more)
        seconds = clock() - begun
        outcome = simulate(self.instance, placed.choice)
        bad = (copies(self.instance, outcome) & ~self.instance.allowed).any()
        self.violations += bool(bad or outcome.makespan != placed.outcome.makespan)
        return placed, seconds


class BrokenBound(Exception):
    """A plan is below what no plan can be below: the bound is wrong, or what plays plans is."""


def hold(name: str, outcomes: Mapping[str, Outcome], least: Bounds) -> None:
    """Refuse outcomes that are below a bound, in seconds or in bytes."""
    for who, outcome in outcomes.items():
        for unit, value, bound in (
            ("s", outcome.makespan, least.makespan),
            ("bytes", outcome.nbytes, least.nbytes),
        ):
            if value < bound * (1 - ROUNDING):
                raise BrokenBound(f"{name}: {who} has {value} {unit}, below the bound of {bound}")


def figure(name: str, value: float, baseline: str, goal: float | None, unit: str = "ratio") -> Any:
    return {
        "figure": name,
        "value": round(float(value), 4),
        "unit": unit,
        "baseline": baseline,
        "ratio": round(float(value), 4),
        "goal": None if goal is None else f"<= {goal:g}",
        "holds": None if goal is None else bool(value <= goal),
    }


def halves(
    cases: list[Case], name: str, of: Callable[[Case], float], baseline: str, goal: float | None
) -> Iterator[Any]:
    for half in ("d3", "d30"):
        yield figure(
            f"{name}, {half}", geometric(of(c) for c in cases if c.bound == half), baseline, None
        )
    yield figure(name, geometric(map(of, cases)), baseline, goal)


def orientation(cases: list[Case]) -> Iterator[Any]:
    """The baselines themselves, and what HEFT moves."""
    for name in classics(Lists(cases[0].instance)):
        spans = geometric(c.played[name].makespan / c.heft.makespan for c in cases)
        nbytes = geometric(c.bytes_ratio(c.played[name]) for c in cases)
        yield figure(f"baseline {name}: makespan", spans, "HEFT", None)
        yield figure(f"baseline {name}: bytes", nbytes, "HEFT", None)


def worst(cases: list[Case], plan: dict[Case, Outcome]) -> Iterator[Any]:
    """The three least gains over HEFT or locality by name, and every loss."""
    gains = sorted(
        (
            (plan[c].makespan / min(c.heft.makespan, c.played["locality"].makespan), c)
            for c in cases
        ),
        key=lambda one: -one[0],
    )
    for rank, (ratio, case) in enumerate(gains):
        if rank < 3 or ratio > 1.0 + 1e-9:
            kind = "loss" if ratio > 1.0 + 1e-9 else "least gain"
            yield figure(f"{kind}: {case.instance.name}", ratio, "HEFT or locality", None)


def quality(cases: list[Case], prove: float, name: str, points: list[Point]) -> Iterator[Any]:
    large = [case for case in cases if case.instance.width >= 8] or cases
    quick = {c: c.place("makespan", budget=1e-5 * c.instance.steps) for c in large}
    fast = {c: placed.outcome for c, (placed, _) in quick.items()}
    pace = [1e6 * seconds / c.instance.steps for c, (_, seconds) in quick.items()]
    yield figure("G1 us a step", geometric(pace), "", 10.0, "us")
    yield figure("G1 us a step, longest", max(pace), "", None, "us")
    yield from halves(
        large,
        "G1 makespan, 10 us a step",
        lambda c: fast[c].makespan / c.heft.makespan,
        "HEFT",
        0.7,
    )
    yield from halves(large, "G1 bytes", lambda c: c.bytes_ratio(fast[c]), "HEFT", 0.65)
    full = {c: c.place("makespan") for c in cases}
    plan = {c: placed.outcome for c, (placed, _) in full.items()}
    yield from halves(
        cases, "G2 makespan", lambda c: plan[c].makespan / c.heft.makespan, "HEFT", 0.66
    )
    yield from halves(
        cases,
        "G2 makespan against the best baseline of each problem",
        lambda c: plan[c].makespan / min(o.makespan for o in c.played.values()),
        "best of all baselines",
        0.93,
    )
    yield figure(
        "G2 processor seconds over max(50 ms, 100 us a step)",
        max(s / max(0.05, 1e-4 * c.instance.steps) for c, (_, s) in full.items()),
        "the budget",
        1.0,
    )
    even = {c: c.place(0.5)[0].outcome for c in cases}
    yield from halves(
        cases, "G3 balanced makespan", lambda c: even[c].makespan / c.heft.makespan, "HEFT", 0.67
    )
    yield from halves(cases, "G3 balanced bytes", lambda c: c.bytes_ratio(even[c]), "HEFT", 0.42)
    better = {
        c: proven(c.instance, full[c][0].bounds, prove, makespan=plan[c].makespan) for c in cases
    }
    for c in cases:
        ours = {"ours": plan[c], "ours, balanced": even[c]}
        ours |= {"ours, 10 us a step": fast[c]} if c in fast else {}
        hold(c.instance.name, {**c.played, **ours}, better[c])
    points += [_point(name, c, plan[c], better[c]) for c in cases]
    yield from halves(
        cases, "G4 makespan", lambda c: plan[c].makespan / better[c].makespan, "lower bound", 1.17
    )
    for case in sorted(cases, key=lambda c: -plan[c].makespan / better[c].makespan)[:5]:
        ratio = plan[case].makespan / better[case].makespan
        yield figure(f"farthest from its bound: {case.instance.name}", ratio, "lower bound", None)
    simple_ones = [
        plan[c].makespan / min(c.heft.makespan, c.played["locality"].makespan) for c in cases
    ]
    yield figure("G8 worst of all problems", max(simple_ones), "HEFT or locality", 1.02)
    yield from worst(cases, plan)
    # Plans for links with queues do not reach the goal on links without any; those for any network do.
    yield from changed_world(cases, {c: full[c][0].choice for c in cases})
    whatever = {c: c.place("makespan", network="any") for c in cases}
    ratio = geometric(whatever[c][0].outcome.makespan / c.heft.makespan for c in cases)
    yield figure("G10 makespan, plans for any network", ratio, "HEFT", None)
    times = geometric(whatever[c][1] / full[c][1] for c in cases)
    yield figure("G10 time, plans for any network", times, "plans for links with queues", None)
    for line in changed_world(cases, {c: whatever[c][0].choice for c in cases}):
        yield {**line, "figure": f"{line['figure']}, plans for any network"}


def _point(suite_name: str, case: Case, plan: Outcome, least: Bounds) -> Point:
    extra = 0.01 * case.instance.total_bytes
    return Point(
        suite=suite_name, bound=case.bound, steps=case.instance.steps,
        makespan=plan.makespan / least.makespan, heft=case.heft.makespan / least.makespan,
        nbytes=(plan.nbytes + extra) / (least.nbytes + extra),
        heft_bytes=(case.heft.nbytes + extra) / (least.nbytes + extra),
    )  # fmt: skip


def changed_world(cases: list[Case], choices: dict[Case, Choice]) -> Iterator[Any]:
    chance = np.random.default_rng(7)

    def noisy(instance: Instance) -> Instance:
        slow = chance.lognormal(0.0, 0.4, (instance.steps, 1))
        links = chance.lognormal(0.0, 0.5, instance.pace.shape)
        return replace(instance, seconds=instance.seconds * slow, pace=instance.pace * links)

    other = {case: noisy(case.instance) for case in cases}

    def against(case: Case, network: Any) -> float:
        world = other[case] if network == "noise" else case.instance
        kind = "serial" if network == "noise" else network
        ours = simulate(world, choices[case], kind).makespan
        return ours / simulate(world, case.choices["heft"], kind).makespan

    for network, goal in (("noise", 0.72), ("fair", 0.76), ("free", 0.88)):
        value = geometric(against(case, network) for case in cases)
        yield figure(f"G10 makespan, {network}", value, "HEFT", goal)


def table(seed: int, pace: list[tuple[int, float, float]], *, big: bool) -> Iterator[Any]:
    """What plans of chunk graphs cost by size: processor time, and the greatest memory so far."""
    for steps in (1_000, 10_000, 100_000, *((1_000_000,) if big else ())):
        instance = problem("chunks", steps, seed, skew="zipf")
        begun = clock()
        placed = place(instance, "makespan", budget=1e-5 * steps)
        spent = 1e6 * (clock() - begun) / steps
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        pace.append((steps, spent, memory))
        yield figure(f"scaling, {steps} steps: time", spent, "", None, "us a step")
        yield figure(f"scaling, {steps} steps: memory so far", memory, "", None, "MiB")
        hold(instance.name, {"ours": placed.outcome}, placed.bounds)
        span = placed.outcome.makespan / placed.bounds.makespan
        yield figure(f"scaling, {steps} steps: makespan", span, "lower bound", None)


def small(seed: int, count: int) -> Iterator[Any]:
    """Small problems against bounds, and by themselves those of which a search meets the bound.

    Those where none does are dropped from the latter, so that their share has a goal as well.
    """
    ratios: dict[float, list[float]] = {0.1: [], 0.5: []}
    every: list[float] = []
    for number in range(count):
        shape: Any = ("chain", "fork-join", "tree", "layered")[number % 4]
        instance = problem(shape, 8 + number % 9, seed * 100 + number, data=(3.0, 30.0)[number % 2])
        long = place(instance, 0.0, seed=2, budget=1.0)
        least = proven(instance, bounds(instance), 4.0)
        short = {b: place(instance, 0.0, seed=3, budget=b).outcome for b in ratios}
        played = {"long": long.outcome, **{f"{b:g} s": one for b, one in short.items()}}
        hold(instance.name, played, least)
        every.append(short[0.1].makespan / least.makespan)
        if min(one.makespan for one in played.values()) > least.makespan * 1.0001:
            continue
        for budget, found in ratios.items():
            found.append(short[budget].makespan / least.makespan)
    without = 1 - len(ratios[0.1]) / count
    yield figure("G5 share without a proven optimum", without, f"of {count} problems", 0.7)
    yield figure("G5 makespan in 100 ms, all of them", geometric(every), "lower bound", 1.05)
    if ratios[0.1]:
        yield figure("G5 makespan in 100 ms", geometric(ratios[0.1]), "proven optimum", 1.01)
        off = float(np.mean([ratio > 1.05 for ratio in ratios[0.1]]))
        yield figure("G5 share more than 5 % above", off, "proven optimum", 0.05)
        yield figure("G5 makespan in 500 ms", geometric(ratios[0.5]), "proven optimum", 1.002)


def fewest(cases: list[Case]) -> Iterator[Any]:
    found, took = [], []
    for case in cases:
        if case.instance.steps > 250 or case.bound == "d30":
            continue  # the floor does not depend on the links
        placed, seconds = case.place("bytes", budget=1e-5 * case.instance.steps)
        known = placed.bounds  # of bytes alone
        floor = proven(case.instance, known, 20.0, makespan=known.makespan)
        hold(case.instance.name, {**case.played, "ours, fewest bytes": placed.outcome}, floor)
        extra = 0.01 * case.instance.total_bytes
        found.append((placed.outcome.nbytes + extra) / (floor.nbytes + extra))
        if case.instance.steps >= 150:
            took.append(1e6 * seconds / case.instance.steps)
    yield figure("G6 bytes (and 1 % of all)", geometric(found), "proven floor", 1.02)
    yield figure("G6 worst", max(found), "proven floor", 1.3)
    if took:
        yield figure("G6 us a step, 150 steps and more", max(took), "", 10.0, "us")


def large(steps: int, goals: tuple[float, float], seed: int) -> Iterator[Any]:
    instance = problem("chunks", steps, seed, skew="zipf")
    _ = instance.source
    least = bounds(instance)
    for what, goal, budget in (("one pass", goals[0], 1e-6), ("two", goals[1], 1e-5)):
        begun = clock()
        placed = place(instance, "makespan", budget=budget * steps)
        spent = 1e6 * (clock() - begun) / steps
        yield figure(f"G7 us a step, {steps} steps, {what}", spent, "", goal, "us")
        hold(instance.name, {what: placed.outcome}, least)
        span = placed.outcome.makespan / least.makespan
        yield figure(f"G7 makespan, {steps} steps, {what}", span, "longest chain or work", 1.12)


def problems(seed: int, *, quick: bool) -> list[Instance]:
    found = suite(seed, quick=quick)
    if workflows.available():
        found += workflows.suite(seed, quick=quick)
    else:
        print("without wfcommons there are no workflows: own shapes only", file=sys.stderr)
    return found


def measure(
    name: str, seed: int, points: list[Point], *, quick: bool, prove: float
) -> Iterator[Any]:
    """All goals that are measured on a suite."""
    cases = [Case(instance) for instance in problems(seed, quick=quick)]
    lines = [*orientation(cases), *quality(cases, prove, f"{name} {seed}", points)]
    lines += small(seed, 16 if quick else 60)
    lines += fewest(cases)
    broken = sum(case.violations for case in cases)
    lines.append(figure("G9 plans refused or against policy", broken, "", 0.0, "plans"))
    for line in lines:
        yield {**line, "figure": f"{name}: {line['figure']}", "seed": seed}


def export(folder: Path, seed: int, *, quick: bool) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    for instance in problems(seed, quick=quick):
        open_ = np.isfinite(instance.seconds)
        whole = np.flatnonzero(open_.all(axis=1))
        if not len(whole):
            continue  # nothing tells how fast its sites are
        speed = instance.seconds[whole[0], 0] / instance.seconds[whole[0]]
        work = np.where(open_, instance.seconds * speed, np.inf).min(axis=1)
        document = write_problem(instance, speed=speed, work=work, origin="benchmarks/placement.py")
        (folder / f"{instance.name}.json").write_text(json.dumps(document))
    return 0


def submitted(folder: Path) -> Iterator[Any]:
    """Plans that somebody has put beside the problems, against HEFT's and against ours."""
    for file in sorted(folder.glob("*.plan.json")):
        instance = read_problem(json.loads(file.with_name(f"{file.name[:-10]}.json").read_text()))
        case = Case(instance)
        plan = simulate(instance, read_plan(json.loads(file.read_text()), instance))
        ours = case.place("makespan")[0].outcome
        yield figure(f"{instance.name}: makespan", plan.makespan / case.heft.makespan, "HEFT", None)
        yield figure(f"{instance.name}: bytes", case.bytes_ratio(plan), "HEFT", None)
        yield figure(f"{instance.name}: makespan", plan.makespan / ours.makespan, "ours", None)


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help=f"fewer problems, the fixed seed {QUICK} alone"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument(
        "--seed",
        type=int,
        action="append",
        help="a fresh seed; drawn if none is given and it is not quick",
    )
    parser.add_argument("--prove", type=float, help="seconds for the bounds of each problem")
    parser.add_argument("--plots", type=Path, help="draw into this folder (needs matplotlib)")
    parser.add_argument("--big", action="store_true", help="a million steps as well")
    parser.add_argument("--export", type=Path, help="write the problems of the seed, and end")
    parser.add_argument("--plans", type=Path, help="compare the plans of this folder, and end")
    arguments = parser.parse_args()
    drawn = QUICK if arguments.quick else int.from_bytes(os.urandom(3), "big")
    seeds = arguments.seed or [drawn]
    if arguments.export:
        return export(arguments.export, seeds[0], quick=arguments.quick)
    warm()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a solver writes on its own account is no figure
    holds = True
    for line in _figures(arguments, seeds):
        holds = holds and (line["holds"] is not False or line["figure"].startswith("train"))
        if arguments.json:
            print(json.dumps(line), file=out, flush=True)
        else:
            verdict = {True: "holds", False: "FAILS", None: ""}[line["holds"]]
            print(
                f"{line['figure']:72} {line['value']:9g} {line['unit']:9} {line['baseline']:24} "
                f"{line['goal'] or '':8} {verdict}",
                file=out,
                flush=True,
            )
    return 0 if holds else 1


def _figures(arguments: argparse.Namespace, seeds: list[int]) -> Iterator[Any]:
    if arguments.plans:
        yield from submitted(arguments.plans)
        return
    points: list[Point] = []
    pace: list[tuple[int, float, float]] = []
    quick = arguments.quick
    prove = arguments.prove or (3.0 if quick else 20.0)
    if not quick:
        yield from measure("train", TRAIN, points, quick=False, prove=prove)
    for seed in seeds:
        kind = "fixed" if quick and seed == QUICK else "fresh"
        yield from measure(kind, seed, points, quick=quick, prove=prove)
    yield from large(100_000, (5.0, 10.0), seeds[0])
    if arguments.big:
        yield from large(1_000_000, (8.0, 16.0), seeds[0])
    if not quick or arguments.plots:
        yield from table(seeds[0], pace, big=arguments.big)
    if arguments.plots:
        draw(arguments.plots, points, pace)


if __name__ == "__main__":
    sys.exit(main())
