"""Sites by SSH on the test bed: how long until one can work there, and until a loss is noticed.

    python benchmarks/reach.py [--quick] [--json]

Needs root and the test bed (``make bed``). The notebook is this machine's own namespace; sites are hosts
behind shaped links with a real sshd, one of them with a real Grid Engine. Baselines of the same run: a bare
``ssh HOST true``, the same with an interpreter that imports Dask and xarray, and ``qsub -sync y``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import dataflow as flow
from dataflow.testing.bed import GRID_ENGINE, Bed
from dataflow.testing.bed.commands import BedError


@flow.operation(kind="opaque", lazy=False, output="scalar")
def total(x: Any, *, number: int) -> Any:
    return x.sum() + number


def sites_module() -> Any:
    """What the tests of the bed put on hosts."""
    path = Path(__file__).parents[1] / "tests" / "bed" / "sites.py"
    spec = importlib.util.spec_from_file_location("bed_sites", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def timed(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def until(holds: Callable[[], bool], seconds: float = 120) -> None:
    limit = time.perf_counter() + seconds
    while not holds():
        if time.perf_counter() > limit:
            raise TimeoutError("it did not come about")
        time.sleep(0.02)


def figure(name: str, seconds: float, goal: float, baseline: float, what: str) -> dict[str, Any]:
    return {
        "figure": name,
        "value": round(seconds, 2),
        "unit": "s",
        "baseline": round(baseline, 2),
        "baseline_is": what,
        "ratio": round(seconds / baseline, 1),
        "goal": f"< {goal:g} s",
        "holds": seconds < goal,
    }


def figures(bed: Bed, rounds: int) -> Iterator[dict[str, Any]]:
    sites = sites_module().Sites
    with tempfile.TemporaryDirectory(prefix="reach-") as name:
        folder = Path(name)
        (folder / "edge").mkdir()
        (folder / "hpc").mkdir()
        yield from of_connecting(bed, lambda n: sites(bed, folder / "edge", ["edge"]), rounds)
        backend = {"workers": 1, "memory": "500 MB", "sge": GRID_ENGINE}
        more = {"hpc": {"site": {"name": "hpc"}, "backend": backend}}
        yield of_grid_engine(bed, sites(bed, folder / "hpc", ["hpc"], more=more), rounds)


def of_connecting(bed: Bed, make: Callable[[int], Any], rounds: int) -> Iterator[dict[str, Any]]:
    def ssh(*words: str) -> float:
        command = ["ssh", "-F", str(bed.ssh_config), "edge", *words]
        return timed(lambda: subprocess.run(command, check=True, stdin=subprocess.DEVNULL))

    bare = statistics.median(ssh("true") for _ in range(rounds))
    imports = statistics.median(
        ssh(str(bed.python), "-c", "'import dask.array, xarray, distributed'")
        for _ in range(rounds)
    )
    fresh, again, lost, healed = [], [], [], []
    for number in range(rounds):
        site = make(number)
        for found in (fresh, again):
            begun = time.perf_counter()
            with flow.connect(site.file, state=site.folder / f"notebook{number}") as session:
                until(lambda: not session.topology().away and bool(session.sites()))
                found.append(time.perf_counter() - begun)
        with flow.connect(site.file, state=site.folder / f"notebook{number}") as session:
            until(lambda: not session.topology().away and bool(session.sites()))
            link = bed.link("edge")
            link.cut()
            lost.append(timed(lambda: until(lambda: "edge" in session.topology().away)))
            link.heal()
            healed.append(timed(lambda: until(lambda: not session.topology().away)))
        site.end()
    median = statistics.median
    yield figure("connect, no agent runs there", median(fresh), 3, imports, "ssh and imports there")
    yield figure("connect, its agent runs", median(again), 3, bare, "ssh true")
    yield figure("cut link noticed", median(lost), 10, bare, "ssh true")
    yield figure("healed link used again", median(healed), 10, bare, "ssh true")


def of_grid_engine(bed: Bed, site: Any, rounds: int) -> dict[str, Any]:
    """From submit to result with no worker there, without what Grid Engine itself takes to start a job."""
    host = bed.host("hpc")
    queued = statistics.median(
        timed(lambda: host.run("qsub -sync y -b y -o /dev/null -e /dev/null true"))
        for _ in range(rounds)
    )
    taken = []
    with site.session() as session:
        for number in range(rounds):
            until(lambda: not host.run("qstat").stdout.strip())
            graph = total(session["hpc"], number=number)
            taken.append(timed(lambda: session.submit(graph).result(120)) - queued)  # noqa: B023
    site.end()
    until(lambda: not host.run("qstat").stdout.strip())
    seconds = statistics.median(taken)
    return figure(
        "first Grid Engine worker, after the job starts", seconds, 5, queued, "qsub -sync y"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    arguments = parser.parse_args()
    try:
        bed = Bed.of_this_python()
    except BedError as error:
        print(f"cannot run: {error}", file=sys.stderr)
        return 2
    bed.restore()
    held = True
    for line in figures(bed, 1 if arguments.quick else 5):
        held = held and line["holds"]
        if arguments.json:
            print(json.dumps(line), flush=True)
        else:
            print(
                f"{line['figure']:48} {line['value']:7} s  {line['goal']:7} "
                f"{'holds' if line['holds'] else 'FAILS':6} {line['baseline_is']} {line['baseline']} s",
                flush=True,
            )
    bed.restore()
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
