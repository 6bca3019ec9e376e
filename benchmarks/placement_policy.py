"""Policy: no plan of any solver breaks a verdict, on many random problems with random verdicts.

    python benchmarks/placement_policy.py [--quick] [--json] [--problems N] [--seed N]

Each problem has 3 to 9 steps, 2 to 5 sites, and for every item and step a random list of sites where it may be.
All solvers plan it: the search for each aim, every baseline, single moves and cuts, hints of load, the climb. Copies are
taken from the played plan, not from what a solver says. Problems that cannot be done must be refused, and the items
that the refusal names must be a least set that leaves no site, by trying all subsets.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from dataflow.errors import PlacementError
from dataflow.placement.engine.classics import classics
from dataflow.placement.engine.cuts import least_bytes
from dataflow.placement.engine.instance import Instance, make, offsets
from dataflow.placement.engine.loads import refine
from dataflow.placement.engine.rivals import Lists, simple
from dataflow.placement.engine.search import place
from dataflow.placement.engine.simulate import Choice, copies, simulate
from dataflow.placement.engine.warm import warm


def draw(chance: np.random.Generator) -> dict[str, Any]:
    """What :func:`make` takes, with verdicts that often leave nothing."""
    width, steps = int(chance.integers(2, 6)), int(chance.integers(3, 10))
    data = int(chance.integers(1, 4))
    strict = chance.uniform(0.0, 0.5)
    items = data + steps
    homes = [[int(chance.integers(width))] for _ in range(data)] + [[] for _ in range(steps)]
    allowed = chance.random((items, width)) > strict * chance.random()
    for item in range(data):
        allowed[item, homes[item]] = True
    inputs = [
        sorted({int(n) for n in chance.integers(0, data + step, int(chance.integers(1, 4)))})
        for step in range(steps)
    ]
    seconds = chance.lognormal(0, 1, (steps, 1)) * chance.uniform(0.5, 2, (1, width))
    seconds[chance.random((steps, width)) < 0.3 * strict] = np.inf
    client = int(chance.integers(width))
    last = items - 1
    return {
        "sites": [f"s{n}" for n in range(width)],
        "workers": chance.integers(1, 4, width),
        "bandwidth": chance.uniform(1, 9, (width, width)),
        "latency": chance.uniform(0, 0.1, (width, width)),
        "size": chance.lognormal(0, 1, items),
        "producer": [-1] * data + list(range(steps)),
        "homes": offsets(homes),
        "allowed": allowed,
        "seconds": seconds,
        "inputs": offsets(inputs),
        "deliver": [last] if allowed[last, client] and chance.random() < 0.7 else [],
        "client": client,
    }


def impossible(drawn: dict[str, Any]) -> bool:
    """By brute force: whether some step has no site at which it and all of its items may be."""
    at, flat = drawn["inputs"]
    data = drawn["producer"].count(-1)
    for step, row in enumerate(drawn["seconds"]):
        near = [*flat[at[step] : at[step + 1]], data + step]
        if not any(
            np.isfinite(row[site]) and all(drawn["allowed"][item, site] for item in near)
            for site in range(len(row))
        ):
            return True
    return False


def least(error: str, drawn: dict[str, Any]) -> bool:
    """Whether the items that a refusal names leave no site, and all but any one of them leave one."""
    named = [int(number) for number in re.findall(r"item (\d+) may be", error)]
    step = int(re.findall(r"step (\d+)", error)[0])
    at, flat = drawn["inputs"]
    near = [*flat[at[step] : at[step + 1]], drawn["producer"].count(-1) + step]
    masks = {int(item): drawn["allowed"][item] for item in near}
    if not named:  # the step's own list takes part: then the items alone must leave a site
        return bool(np.logical_and.reduce(list(masks.values())).any())
    if np.logical_and.reduce([masks[item] for item in named]).any():
        return False
    return all(
        np.logical_and.reduce([masks[item] for item in some]).any()
        for count in range(1, len(named))
        for some in itertools.combinations(named, count)
    )


def plans(instance: Instance, seed: int) -> list[Choice]:
    """One plan of every solver."""
    lists = Lists(instance)
    found = [make_one() for make_one in (classics(lists, seed) | simple(lists)).values()]
    for objective in ("makespan", "bytes", 0.5):
        found.append(place(instance, objective, seed=seed, budget=0.001).choice)  # type: ignore[arg-type]
    found.append(place(instance, seed=seed, budget=0.001, network="any").choice)
    order = lists.ranked()[1]
    start = found[0].site
    found.append(Choice(site=least_bytes(instance, start).site, order=order))
    state = np.array([1 + seed], np.int64)
    found.append(Choice(site=refine(*instance.graph, start, 2, 1.0, 1.0, state), order=order))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="1,000 problems")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument("--problems", type=int, default=0, help="how many (100,000)")
    parser.add_argument("--seed", type=int, default=90210)
    arguments = parser.parse_args()
    count = arguments.problems or (1_000 if arguments.quick else 100_000)
    warm()
    broken, refused, guessed, played = 0, 0, 0, 0
    begun = time.monotonic()
    for number in range(count):
        drawn = draw(np.random.default_rng([arguments.seed, number]))
        try:
            instance = make(**drawn)
        except PlacementError as error:
            refused += 1
            guessed += not impossible(drawn) or not least(str(error), drawn)
            continue
        guessed += impossible(drawn)
        for choice in plans(instance, number):
            played += 1
            try:
                outcome = simulate(instance, choice)
            except PlacementError:
                broken += 1
                continue
            here = choice.site[np.maximum(instance.producer, 0)]
            made = instance.producer >= 0
            own = instance.allowed[np.arange(instance.items), here] | ~made
            bad = (copies(instance, outcome) & ~instance.allowed).any() or not own.all()
            broken += bool(bad)
        if sys.stderr.isatty() and number % 1000 == 0:
            rate = (number + 1) / (time.monotonic() - begun)
            print(f"\r{number} of {count}, {rate:.0f}/s", end="", file=sys.stderr)
    lines: list[tuple[str, float, str, str | None, bool | None]] = [
        ("problems", count, "problems", None, None),
        ("plans played", played, "plans", None, None),
        ("plans against a verdict", broken, "plans", "0", broken == 0),
        ("requests refused", refused, "problems", None, None),
        ("refusals without reason, or whose reason is not a least one", guessed, "problems", "0",
         guessed == 0),
    ]  # fmt: skip
    for figure, value, unit, goal, holds in lines:
        if arguments.json:
            print(
                json.dumps(
                    {"figure": figure, "value": value, "unit": unit, "baseline": "brute force",
                     "ratio": None, "goal": goal, "holds": holds}
                )
            )  # fmt: skip
        else:
            verdict = {True: "holds", False: "FAILS", None: ""}[holds]
            print(f"{figure:62} {value:9} {unit:10} {verdict}")
    return 0 if broken == 0 and guessed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
