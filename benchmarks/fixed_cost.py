"""What the toolkit costs when there is nothing to do.

    python benchmarks/fixed_cost.py [--quick] [--json]

- ``import dataflow``: a fresh interpreter, start to end, beside one that imports nothing.
- round trip: a no-op operation on a small array, from ``submit`` to the loaded result, in a
  session that is its own site, and through the agent of another site over HTTP. Each trip has a
  parameter of its own, so nothing is reused: planned, run on a Dask worker, stored as Zarr,
  committed, journalled and read back. Baseline: ``client.submit(…).result()`` of the same function
  on a Dask worker with data in memory, which stores nothing.
- planning a graph of 1,000 operations over three sites; baseline: what Dask does with as many
  tasks before it runs them (``dask.order``).
- submit: until the job's id is there; baseline: ``client.submit`` of Dask, until the future is.

Medians. The process is warm, except for the first figure.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import dataflow as flow


@flow.operation(kind="elementwise", lazy=False)
def same(x: Any, *, number: int) -> Any:
    """Nothing; ``number`` makes each call a new one."""
    return x


def median(run: Callable[[int], float], rounds: int) -> float:
    """Median of what ``run`` says, after two runs that do not count."""
    return statistics.median([run(n) for n in range(rounds + 2)][2:])


def timed(action: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def imports(rounds: int) -> Iterator[dict[str, Any]]:
    def start(program: str) -> float:
        command = [sys.executable, "-c", program]
        return median(lambda _: timed(lambda: subprocess.run(command, check=True)), rounds)

    bare = start("pass")
    yield figure("import dataflow (fresh process)", start("import dataflow"), 0.3, bare)


def figure(name: str, seconds: float, goal: float, baseline: float) -> dict[str, Any]:
    return {
        "figure": name,
        "value": round(seconds * 1e3, 2),
        "unit": "ms",
        "baseline": round(baseline * 1e3, 2),
        "ratio": round(seconds / baseline, 2),
        "goal": f"< {goal * 1e3:g} ms",
        "holds": seconds < goal,
    }


def dask_alone(rounds: int) -> tuple[float, float]:
    """Seconds of ``client.submit(…).result()`` and of ``client.submit`` alone."""
    from distributed import Client, LocalCluster

    values = np.arange(100)
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None, protocol="tcp"
        ) as cluster,
        Client(cluster) as client,
    ):

        def trip(n: int) -> float:
            return timed(lambda: client.submit(same.function, values, number=n).result())

        def submit(n: int) -> float:
            futures: list[Any] = []
            seconds = timed(
                lambda: futures.append(client.submit(same.function, values, number=-n - 1))
            )
            futures[0].result()
            return seconds

        return median(trip, rounds), median(submit, rounds)


def sessions(rounds: int) -> Iterator[dict[str, Any]]:
    from dataflow.testing.federation import Federation

    trip_of_dask, submit_of_dask = dask_alone(rounds)
    with tempfile.TemporaryDirectory(prefix="fixed-cost-") as name:
        folder = Path(name)
        np.save(folder / "small.npy", np.arange(100))
        with flow.connect(state=folder / "alone") as session:
            session.register((folder / "small.npy").as_uri(), name="small")
            trip, submit = trips(session, rounds)
            yield figure("no-op round trip, in process", trip, 0.02, trip_of_dask)
            yield figure("submit, in process", submit, 0.2, submit_of_dask)
        with Federation(folder / "sites", ["one", "two", "three"], wires=False) as federation:
            np.save(federation.data("one") / "small.npy", np.arange(100))
            with flow.connect(federation.sites_file, state=folder / "notebook") as session:
                url = (federation.data("one") / "small.npy").as_uri()
                session.register(url, name="small", site="one")
                trip, submit = trips(session, rounds)
                yield figure("no-op round trip, agent over HTTP", trip, 0.06, trip_of_dask)
                yield figure("submit, agent over HTTP", submit, 0.2, submit_of_dask)
                yield planning(session, rounds)


def trips(session: Any, rounds: int) -> tuple[float, float]:
    """Seconds from submit to the loaded result, and of submit alone."""
    small, submits = session["small"], []

    def trip(n: int) -> float:
        graph = same(small, number=n)
        begun = time.perf_counter()
        job = session.submit(graph)
        submits.append(time.perf_counter() - begun)
        values = np.asarray(job.result())
        seconds = time.perf_counter() - begun
        assert values[-1] == 99
        return seconds

    return median(trip, rounds), statistics.median(submits[2:])


def planning(session: Any, rounds: int) -> dict[str, Any]:
    import dask.order

    def plan(n: int) -> float:
        layer = [same(session["small"], number=1000 * n + i) for i in range(500)]
        while len(layer) > 1:
            pairs = zip(layer[::2], layer[1::2], strict=False)
            rest = layer[len(layer) // 2 * 2 :]
            layer = [left + right for left, right in pairs] + rest
        graph = same(layer[0], number=-n - 1)
        assert len(graph.steps) == 1000
        return timed(lambda: session.plan(graph))

    def order(n: int) -> float:
        layer = [f"leaf{i}" for i in range(500)]
        tasks: dict[str, Any] = dict.fromkeys(layer, (abs, 1))
        while len(layer) > 1:
            above = []
            for i in range(0, len(layer) - 1, 2):
                key = f"n{len(tasks)}"
                tasks[key] = (max, layer[i], layer[i + 1])
                above.append(key)
            layer = above + layer[len(layer) // 2 * 2 :]
        return timed(lambda: dask.order.order(tasks))

    return figure("planning 1,000 operations", median(plan, rounds), 0.1, median(order, rounds))


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    arguments = parser.parse_args()
    rounds = 7 if arguments.quick else 25
    held = True
    for part in (imports, sessions):
        for line in part(rounds):
            held = held and line["holds"]
            if arguments.json:
                print(json.dumps(line), flush=True)
            else:
                print(
                    f"{line['figure']:40} {line['value']:10} ms  {line['goal']:10} "
                    f"{'holds' if line['holds'] else 'FAILS':6} baseline {line['baseline']:8} ms  "
                    f"ratio {line['ratio']}",
                    flush=True,
                )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
