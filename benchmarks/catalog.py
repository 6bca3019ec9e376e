"""A listing of the catalog with filters, out of a million datasets.

    python benchmarks/catalog.py [--quick] [--json] [--datasets N]

Datasets of 50 owners at 20 sites, each with three tags and one copy, are made in memory as a session has
them. Each question is asked as `session.datasets` asks it. `first` is the first question of its kind after
the catalog has changed, which makes the index that it needs; `again` are those after it. Baseline, in the
same run: to look at every dataset, as a question does that nothing can narrow. Ten answers, a name and a
beginning of a name are to be found within a fiftieth of that, and making an index may take as long as
looking at all once. Not counted is what reads the catalog's file. The million takes about 2 GB and some minutes;
--quick has a tenth.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from dataflow.catalog import search as searching
from dataflow.catalog.snapshot import Snapshot
from dataflow.datasets import Dataset, Extent, Replica
from dataflow.sites import Site, Topology

OWNERS, SITES = 50, 20
REPEATS = 5
#: What may be taken of the time that the baseline takes.
AGAIN, FIRST = 0.02, 1.0


def federation(count: int) -> Snapshot:
    """So many datasets, sorted as a catalog has them."""
    extent = Extent(nbytes=1000)
    datasets = [
        Dataset(
            id=f"{at:08x}",
            name=f"run-{at:08}",
            key=f"key-{at:08}",
            kind="table",
            extent=extent,
            site=f"s{at % SITES:02}",
            owner=f"owner-{at % OWNERS:02}",
            tags={
                "topic": f"t{at % 1000:03}",
                "batch": f"b{at // 10:07}",
                "year": str(2000 + at % 25),
            },
        )
        for at in range(count)
    ]
    replicas = {
        one.key: (
            Replica(
                key=one.key,
                site=one.site,
                store="data",
                url=f"file:///data/{one.name}",
                format="parquet",
                nbytes=1000,
            ),
        )
        for one in datasets
    }
    sites = tuple(Site(name=f"s{at:02}") for at in range(SITES))
    return Snapshot(datasets=tuple(datasets), replicas=replicas, topology=Topology(sites=sites))


def seconds(ask: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    ask()
    return time.perf_counter() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the datasets")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument("--datasets", type=int, default=1_000_000)
    arguments = parser.parse_args()
    count = arguments.datasets // 10 if arguments.quick else arguments.datasets
    snapshot = federation(count)
    gc.freeze()  # a session does not look through the catalog for garbage at each question either
    middle = count // 2
    questions: dict[str, dict[str, Any]] = {
        "ten by a tag": {"tags": {"batch": f"b{middle // 10:07}"}},
        "one by name": {"name": f"run-{middle:08}"},
        "a beginning of a name": {"name": f"run-{middle:08}"[:-1] + "*"},
        "a topic of one owner": {"tags": {"topic": "t042"}, "owner": "owner-42"},
    }
    lines, fine = [], True
    for title, asked in questions.items():

        def each(asked: dict[str, Any] = asked) -> Any:
            found = searching.search(
                snapshot.datasets, tags_of=snapshot.tags_of, copies_of=snapshot.sites_of, **asked
            )
            return snapshot.distinct(found)

        fresh = Snapshot(
            datasets=snapshot.datasets, replicas=snapshot.replicas, topology=snapshot.topology
        )
        ask = partial(fresh.search, **asked)
        first = seconds(ask)
        again = statistics.median(seconds(ask) for _ in range(REPEATS))
        if ask() != each():
            print(f"{title}: another answer than by looking at each", file=sys.stderr)
            return 1
        baseline = statistics.median(seconds(each) for _ in range(3))
        for figure, value, goal in (("first", first, FIRST), ("again", again, AGAIN)):
            ratio = value / baseline
            fine &= ratio <= goal
            lines.append(
                {
                    "figure": f"{title}, {figure}, of {count} datasets",
                    "value": round(value, 5),
                    "unit": "s",
                    "baseline": round(baseline, 5),
                    "ratio": round(ratio, 5),
                    "goal": goal,
                    "holds": ratio <= goal,
                }
            )
    for line in lines:
        if arguments.json:
            print(json.dumps(line))
        else:
            print(
                f"{line['figure']}: {line['value']} s; looking at each: {line['baseline']} s, "
                f"ratio {line['ratio']} (goal {line['goal']}: {'holds' if line['holds'] else 'fails'})"
            )
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
