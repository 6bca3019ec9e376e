"""How much better plans are than the greedy choice, and what choosing costs.

    python benchmarks/plan_choice.py [--quick] [--json] [--seed N]

Random graphs of operations over 3 and 6 sites, data at one of them each, links of 10 to 100 MB/s, steps of 1 to
50 s that most sites run at other speeds. Baseline: the greedy choice, which is what plans were before and what
they are never worse than; by predicted seconds and 10 ms for each MB over a link. Geometric means. Seconds are
those of this process's processor.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from dataflow.placement.aim import BALANCED
from dataflow.placement.greedy import by_run, greedy
from dataflow.placement.problem import Problem
from dataflow.placement.solve import solve


def draw(steps: int, sites: int, chance: np.random.Generator) -> Problem:
    """One random problem: each step reads two results of shortly before, or data."""
    held = 6
    inputs = []
    for task in range(steps):
        near = chance.integers(max(0, held + task - 12), held + task, 2)
        far = chance.integers(0, held, 2)
        mine = np.where(chance.random(2) < 0.8, near, far)
        inputs.append(tuple(sorted({int(item) for item in mine})))
    home = chance.integers(0, sites, held)
    source = np.repeat(home[:, None], sites, axis=1).astype(np.intp)
    bandwidth = chance.uniform(1e7, 1e8, (sites, sites))
    np.fill_diagonal(bandwidth, np.inf)
    open_ = np.ones((steps, sites), bool)
    return Problem(
        sites=tuple(f"s{n}" for n in range(sites)),
        workers=(2,) * sites,
        bandwidth=bandwidth,
        latency=np.zeros((sites, sites)),
        held=tuple(f"d{n}" for n in range(held)),
        tasks=tuple(f"t{n}" for n in range(steps)),
        inputs=tuple(inputs),
        held_source=source,
        held_bytes=np.where(source == np.arange(sites), 0.0, 1e9),
        nbytes=chance.uniform(1, 1e8, steps),
        seconds=chance.uniform(1, 50, (steps, 1)) * chance.uniform(0.7, 1.5, (1, sites)),
        allowed=open_,
        within=open_,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="3 problems of each size")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument("--seed", type=int, default=90210)
    arguments = parser.parse_args()
    chance, held = np.random.default_rng(arguments.seed), True
    for steps in (6, 12, 24, 60, 150, 300):
        ratios, took, plain, proven = [], [], [], 0
        for number in range(3 if arguments.quick else 12):
            problem = draw(steps, (3, 6)[number % 2], chance)
            measure = by_run(problem, BALANCED)
            begun = time.process_time()
            before = greedy(problem, BALANCED)
            between = time.process_time()
            found = solve(problem)
            took.append(time.process_time() - between)
            plain.append(between - begun)
            proven += found.least is not None and found.least.optimal
            ratios.append(measure(np.array(found.sites))[1] / measure(before.sites)[1])
        mean = math.exp(float(np.mean(np.log(ratios))))
        line = {
            "figure": f"cost of the plan, {steps} steps ({proven} of {len(ratios)} proven best)",
            "value": round(mean, 4),
            "unit": "of the greedy choice",
            "baseline": round(max(ratios), 4),
            "ratio": round(mean, 4),
            "goal": "never above 1",
            "holds": max(ratios) <= 1 + 1e-6,
        }
        held = held and bool(line["holds"])
        if arguments.json:
            print(json.dumps(line), flush=True)
        else:
            print(
                f"{line['figure']:52} {mean:6.3f} (worst {max(ratios):.3f}) in "
                f"{1e3 * float(np.median(took)):6.1f} ms; greedy alone "
                f"{1e3 * float(np.median(plain)):6.1f} ms",
                flush=True,
            )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
