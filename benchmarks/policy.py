"""The verdict table beside asking every owner again for every operation and site.

    python benchmarks/policy.py [--quick] [--json]

500 operations over 50 datasets of 50 owners at 20 sites, each owner with an agreement of ten
relations; a third of the operations reads rows of two owners. Both contenders answer the same
question: which operation may run where, and because of which clause. They have to agree.

- **ours**: rights, rows followed through the graph, and :func:`dataflow.policy.check.check`.
- **asked anew**: the same rules without anything being remembered: for each operation and site the
  agreements of all owners whose rows it reads are read again.

Medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from dataflow.agreements import Agreement, Relation
from dataflow.datasets import Dataset, Extent
from dataflow.graph.graph import Graph, merge, of_dataset
from dataflow.graph.operation import operation
from dataflow.policy.agreement import Asked
from dataflow.policy.archetype import SHIPPED
from dataflow.policy.check import check
from dataflow.policy.rights import Right, follow, right_of, standing
from dataflow.sites import Site, Topology

OPERATIONS, SITES, AGREEMENTS, RELATIONS = 500, 20, 50, 10
GOAL_SECONDS = 0.05
ASKED = Asked(user="anna", type="sqlDataRequest", purpose="study", time=1000.0)

Table = dict[str, dict[str, bool]]


@operation(role="dataProvider", version="1")
def query(x: Any, *, number: int = 0) -> Any:
    return x


@operation(role="computeProvider", version="1")
def mean(x: Any, *, number: int = 0) -> Any:
    return x


@operation(version="1")
def both(a: Any, b: Any, *, number: int = 0) -> Any:
    return a, b


def world() -> tuple[Topology, list[Dataset], dict[str, Agreement]]:
    """Sites, a dataset for each owner, and its agreement by the dataset's key."""
    names = [f"site{i:02}" for i in range(SITES)]
    datasets, agreements = [], {}
    for i in range(AGREEMENTS):
        site = names[i % SITES]
        dataset = Dataset(
            id=f"d{i}",
            name=f"table{i}",
            key=f"k{i}",
            kind="table",
            extent=Extent(nbytes=10**6),
            site=site,
            owner=f"owner{i}",
        )
        relations = tuple(
            Relation(
                id=f"r{n}",
                users=("anna",) if n == RELATIONS - 1 else (f"somebody{n}",),
                request_types=("sqlDataRequest",),
                datasets=(dataset.name,),
                archetypes=("computeToData",) if i % 3 else ("dataThroughTtp",),
                compute_providers=tuple(names[:5]),
            )
            for n in range(RELATIONS)
        )
        name = f"agreement{i}"
        agreements[dataset.key] = Agreement(
            name=name, site=site, owner=dataset.owner, relations=relations
        )
        datasets.append(dataset)
    return Topology(sites=tuple(Site(name=name) for name in names)), datasets, agreements


def graph_over(datasets: list[Dataset]) -> Graph:
    """Queries, means of them, and what reads the rows of two owners."""
    sources = [of_dataset(dataset) for dataset in datasets]
    graphs: list[Graph] = []
    number = 0
    while number < OPERATIONS - 2:
        one, other = sources[number % AGREEMENTS], sources[(number * 7 + 1) % AGREEMENTS]
        selected = query(one, number=number)
        graphs += [mean(selected, number=number), both(selected, other, number=number)]
        number += 3
    graphs += [mean(sources[0], number=number + n) for n in range(OPERATIONS - number)]
    return merge(graphs)


def right(dataset: Dataset, agreements: dict[str, Agreement]) -> Right:
    found = standing([agreements[dataset.key]], [dataset], ASKED, steward=True)
    assert found is not None
    archetype = sorted(found.archetypes(SHIPPED))[0]
    return right_of(found, archetype, SHIPPED, ASKED)


def ours(
    graph: Graph, topology: Topology, datasets: list[Dataset], agreements: dict[str, Agreement]
) -> Table:
    rights = {dataset.key: (right(dataset, agreements),) for dataset in datasets}
    table = check(graph, topology, rights=rights)
    return {
        key: {site: verdict.allowed for site, verdict in row.items()} for key, row in table.items()
    }


def asked_anew(
    graph: Graph, topology: Topology, datasets: list[Dataset], agreements: dict[str, Agreement]
) -> Table:
    by_key = {dataset.key: dataset for dataset in datasets}
    readings = follow(graph.steps.values(), {key: {key: 0} for key in by_key}, {})
    return {
        key: {
            site.name: all(
                right(by_key[source], agreements).refuses(step, 0, site.name) is None
                for source in readings[key].reads
            )
            for site in topology.sites
        }
        for key, step in graph.steps.items()
    }


def seconds(work: Callable[[], Table], rounds: int) -> tuple[float, Table]:
    found, times = work(), []
    for _ in range(rounds):
        begun = time.perf_counter()
        found = work()
        times.append(time.perf_counter() - begun)
    return statistics.median(times), found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    arguments = parser.parse_args()
    topology, datasets, agreements = world()
    graph = graph_over(datasets)
    assert len(graph.steps) == OPERATIONS, len(graph.steps)
    given = (graph, topology, datasets, agreements)
    mine, table = seconds(lambda: ours(*given), 5 if arguments.quick else 21)
    theirs, expected = seconds(lambda: asked_anew(*given), 1 if arguments.quick else 3)
    assert table == expected, "the two do not agree"
    allowed = sum(fine for row in table.values() for fine in row.values())
    assert 0 < allowed < OPERATIONS * SITES
    line = {
        "figure": f"verdicts, {OPERATIONS} operations x {SITES} sites x {AGREEMENTS} agreements",
        "value": round(mine * 1000, 2),
        "unit": "ms",
        "baseline": "asked anew",
        "ratio": round(theirs / mine, 1),
        "goal": f"< {GOAL_SECONDS * 1000:.0f} ms",
        "holds": mine < GOAL_SECONDS,
    }
    if arguments.json:
        print(json.dumps(line))
    else:
        print(f"{line['figure']}: {line['value']} ms, {line['ratio']} times as fast as asked anew")
        print(f"goal {line['goal']}: {'holds' if line['holds'] else 'FAILS'}")
    return 0 if line["holds"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
