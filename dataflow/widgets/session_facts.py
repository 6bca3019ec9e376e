"""Session facts: pages of datasets, one dataset, the federation, and answers to requests. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dataflow._quantities import format_bytes, format_rate, format_seconds
from dataflow.catalog.snapshot import Snapshot
from dataflow.datasets import Dataset, Variable
from dataflow.policy.archetype import Load
from dataflow.policy.table import Verdicts
from dataflow.sites import Topology

Facts = dict[str, Any]

#: Datasets on a page, and words that are offered to choose from.
PAGE, OFFERED = 25, 24
#: Variables of a dataset that are shown.
MOST_VARIABLES = 40


def federation(topology: Topology, loads: Mapping[str, Load]) -> Facts:
    """Sites with what they have and how busy they say they are, and links with what they carry."""
    sites = [
        {
            "name": site.name,
            "away": site.name in topology.away,
            "computers": "stores only"
            if site.stores_only
            else f"{site.workers} × {format_bytes(site.memory)}",
            "busy": _busy(loads.get(site.name)),
            "trust": site.trust,
            "stores": ", ".join(store.name for store in topology.stores_at(site.name)),
        }
        for site in topology.sites
    ]
    links = [
        [
            link.source,
            link.target,
            format_rate(link.bandwidth),
            format_seconds(link.latency),
            link.origin,
        ]
        for link in topology.links
    ]
    return {"sites": sites, "links": links[:400]}


def _busy(load: Load | None) -> str:
    """In words, for sites that tell; with what counts as loaded there if they are."""
    if load is None:
        return ""
    mark = "▲ loaded: " if load.loaded else ""
    return f"{mark}processors {load.cpu:.0%}, memory {load.memory:.0%}"


def offered(datasets: Sequence[Dataset]) -> Facts:
    """The words that stand on most datasets: tags and kinds, with how often."""
    tags: Counter[str] = Counter()
    for dataset in datasets:
        tags.update(f"{name}={value}" for name, value in dataset.tags.items())
    kinds = Counter(dataset.kind for dataset in datasets)
    return {"tags": tags.most_common(OFFERED), "kinds": sorted(kinds)}


def page(found: Sequence[Dataset], snapshot: Snapshot, number: int) -> Facts:
    """One page of a search."""
    last = max(0, (len(found) - 1) // PAGE)
    number = min(max(0, number), last)
    shown = found[number * PAGE : (number + 1) * PAGE]
    away = snapshot.topology.away
    rows = [
        {
            "id": one.id,
            "name": one.name,
            "sites": [[site, site in away] for site in snapshot.sites_of(one) or (one.site,)],
            "what": repr(one).partition(": ")[2].rstrip(">"),
            "owner": one.owner,
            "tags": " ".join(f"{name}={value}" for name, value in sorted(one.tags.items())),
        }
        for one in shown
    ]
    return {"rows": rows, "count": len(found), "page": number, "pages": last + 1}


def details(dataset: Dataset, snapshot: Snapshot, verdicts: Verdicts) -> Facts:
    """One dataset: its variables with their chunks, its copies, and what one may do with it."""
    made = dataset.lineage
    return {
        "id": dataset.id,
        "name": dataset.name,
        "line": repr(dataset).strip("<>"),
        "key": dataset.key,
        "made": f"{made.operation} at {made.site}" if made is not None else "",
        "variables": [_variable(one) for one in dataset.extent.variables[:MOST_VARIABLES]],
        "more": max(0, len(dataset.extent.variables) - MOST_VARIABLES),
        "copies": [
            [copy.site, copy.store, copy.format, format_bytes(copy.nbytes)]
            for copy in snapshot.replicas_of(dataset)
        ],
        "may": answer(verdicts),
    }


def answer(verdicts: Verdicts) -> Facts:
    """What a request would be told: for each site whether a step may run there, or why not."""
    rows = [
        [label, site, bool(verdict), "" if verdict else f"{verdict.rule}: {verdict.because}"]
        for label, row in verdicts.items()
        for site, verdict in row.items()
    ]
    return {"rows": rows, "missing": list(verdicts.missing.items()), "notes": list(verdicts.notes)}


def _variable(one: Variable) -> Facts:
    """A variable, and how its last two dimensions are cut into chunks."""
    shape = [length if length >= 0 else None for length in one.shape]
    chunks = list(one.chunks) if one.chunks else None
    counts = None
    if chunks and None not in shape and len(chunks) == len(shape):
        counts = [-(-length // cut) for length, cut in zip(shape, chunks, strict=True) if cut]  # type: ignore[operator]
    return {
        "name": one.name,
        "dims": ", ".join(
            f"{name} {'?' if length < 0 else length}"
            for name, length in zip(one.dims, one.shape, strict=False)
        ),
        "dtype": one.dtype,
        "size": format_bytes(one.nbytes),
        "shape": shape,
        "chunks": chunks,
        "counts": counts,
    }
