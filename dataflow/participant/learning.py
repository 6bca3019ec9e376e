"""Learning: what finished jobs teach this site of operations and links, for the next plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from dataflow.catalog.records import Records
from dataflow.execution import observe
from dataflow.execution.state import JobState
from dataflow.placement.measurements import Measurements

log = structlog.get_logger(__name__)


class Learning:
    """Measurements of one site, and what it knows of those of all.

    Parameters
    ----------
    records
        The catalog; what is learned is kept there.
    clock
        Seconds since the epoch.
    """

    def __init__(self, records: Records, clock: Callable[[], float]) -> None:
        self._records, self._clock = records, clock
        self._measured: tuple[Any, Measurements] | None = None

    def measurements(self) -> Measurements:
        """What all sites have learned from finished work."""
        seen = (
            self._records.written("measurement"),
            frozenset([self._records.site, *(site.name for site in self._records.sites())]),
        )
        if self._measured is None or self._measured[0] != seen:
            self._measured = (seen, observe.measurements_of(*seen))
        return self._measured[1]

    def from_job(self, state: JobState) -> None:
        """Fold what a finished job has shown into this site's measurements and links."""
        try:
            for seen in observe.of_job(state):
                name = observe.pace_id(seen.operation, seen.site)
                self._records.put(
                    "measurement",
                    name,
                    observe.fold(self._records.get("measurement", name, self._records.site), seen),
                )
            links = {(link.source, link.target): link for link in self._records.links()}
            for crossed in state.crossed:
                if crossed.via:
                    continue  # it says nothing about whether one can ask the other
                known = links.get((crossed.source, crossed.target))
                link = observe.link_of(crossed, known, self._clock())
                if link is not None:
                    self._records.add(link)
        except Exception:  # learning is a kindness; a job must not fail of it
            log.exception("nothing_learned", job=state.job)
