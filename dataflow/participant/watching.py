"""Watching: a participant as figures, for a monitoring system."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from dataflow.backends.base import Lease
from dataflow.catalog.entries import JobSummary
from dataflow.execution.tally import Figure
from dataflow.execution.view import LedgerEntry


def figures(
    jobs: Sequence[JobSummary],
    leases: Sequence[Lease],
    silent: Mapping[str, float],
    served: Sequence[LedgerEntry],
    orders: Sequence[Figure],
) -> Sequence[Figure]:
    """All figures of a site.

    Parameters
    ----------
    silent
        Seconds since each other site has answered.
    served
        What was handed out, by job and receiver; it outlives the process.
    orders
        What its runner has counted.
    """
    found = []
    for (status, keeper), count in sorted(Counter((j.status, j.coordinator) for j in jobs).items()):
        found.append(
            Figure(
                name="dataflow_jobs",
                about="Jobs that this site knows of",
                value=count,
                labels={"status": status, "coordinator": keeper},
            )
        )
    for state, count in sorted(Counter(lease.status for lease in leases).items()):
        found.append(
            Figure(
                name="dataflow_leases",
                about="Workers obtained, or asked for",
                value=count,
                labels={"status": state},
            )
        )
    for site, seconds in sorted(silent.items()):
        found.append(
            Figure(
                name="dataflow_sync_silent_seconds",
                about="Seconds since another site has answered this one",
                value=seconds,
                labels={"site": site},
            )
        )
    sums: Counter[str] = Counter()
    for entry in served:
        sums[entry.target] += entry.nbytes
    for target, nbytes in sorted(sums.items()):
        found.append(
            Figure(
                name="dataflow_served_bytes",
                about="Bytes of data that this site has handed out",
                value=nbytes,
                labels={"target": target},
                kind="counter",
            )
        )
    return (*found, *orders)
