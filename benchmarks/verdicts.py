"""Plans that break a verdict: none, over many random tables and all solvers.

    python benchmarks/verdicts.py [--quick] [--json] [--problems N] [--seed N]

Random graphs of 1 to 12 steps over 2 to 6 sites, with random tables of verdicts, are given to every
solver: the greedy choice by all collector's rules, the planner for every objective, the trial of all
choices, the engine's proposals, its search and its rivals. Baseline: a planner that looks for the most
data and does not ask, which shows how often the tables matter. A problem takes some 50 ms.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from dataflow.placement.greedy import baselines
from dataflow.placement.problem import Problem
from dataflow.testing.verdicts import broken, table


def draw(chance: np.random.Generator) -> Problem:
    """One random problem."""
    steps, sites, held = (int(chance.integers(a, b)) for a, b in ((1, 13), (2, 7), (1, 4)))
    inputs = tuple(
        tuple(sorted({int(i) for i in chance.integers(0, held + task, int(chance.integers(1, 4)))}))
        for task in range(steps)
    )
    bandwidth = 10.0 ** chance.uniform(5, 9, (sites, sites))
    latency = chance.uniform(0, 0.2, (sites, sites))
    np.fill_diagonal(bandwidth, np.inf)
    np.fill_diagonal(latency, 0.0)
    home = chance.integers(0, sites, held)
    source = np.repeat(home[:, None], sites, axis=1)
    size = 10.0 ** chance.uniform(3, 10, held)
    deliver = bool(chance.random() < 0.5)
    allowed = table(steps, sites, chance)
    return Problem(
        sites=tuple(f"s{n}" for n in range(sites)),
        workers=tuple(int(n) for n in chance.integers(1, 5, sites)),
        bandwidth=bandwidth,
        latency=latency,
        held=tuple(f"d{n}" for n in range(held)),
        tasks=tuple(f"t{n}" for n in range(steps)),
        inputs=inputs,
        held_source=source.astype(np.intp),
        held_bytes=np.where(source == np.arange(sites), 0.0, size[:, None]),
        nbytes=10.0 ** chance.uniform(1, 10, steps),
        seconds=chance.uniform(0.1, 100, (steps, sites)),
        allowed=allowed,
        within=allowed,
        deliver=(held + steps - 1,) if deliver else (),
        client=0 if deliver else -1,
        egress=chance.uniform(0, 1e-9, (sites, sites)),
        watts=chance.uniform(1, 300, sites),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="300 problems")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument("--problems", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=90210)
    arguments = parser.parse_args()
    count = 300 if arguments.quick else arguments.problems
    chance = np.random.default_rng(arguments.seed)
    wrong, careless, begun = 0, 0, time.perf_counter()
    for number in range(count):
        problem = draw(chance)
        found = broken(problem)
        wrong += bool(found)
        for line in found[:3]:
            print(f"problem {number}: {line}", file=sys.stderr)
        anywhere = np.ones_like(problem.allowed)
        free = baselines(replace(problem, within=anywhere, allowed=anywhere))["greedy locality"]
        careless += not problem.allowed[np.arange(len(free)), free].all()
    line = {
        "figure": f"plans that break a verdict, of {count} problems",
        "value": wrong,
        "unit": "problems",
        "baseline": careless,
        "ratio": round(wrong / max(1, careless), 4),
        "goal": "0",
        "holds": wrong == 0,
    }
    if arguments.json:
        print(json.dumps(line))
    else:
        took = time.perf_counter() - begun
        print(f"{line['figure']}: {wrong}; without asking: {careless} ({took:.0f} s)")
    return 0 if wrong == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
