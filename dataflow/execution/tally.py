"""Tally: what the orders of a site have come to since it started, as figures for whoever watches it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from dataflow.execution.events import Broke, Crossed, Ended, Order, Report, SegmentOrder, Stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number that is worth watching.

    Attributes
    ----------
    name
        In the words of Prometheus, its unit last: ``dataflow_link_bytes``.
    about
        One line for people; the same for all figures of a name.
    kind
        A counter only grows as long as the process lives.
    """

    name: str
    about: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    kind: Literal["gauge", "counter"] = "gauge"


class Tally:
    """Sums over the reports of orders; it remembers no order, so that it stays small."""

    def __init__(self) -> None:
        self._going: Counter[str] = Counter()
        self._ended: Counter[tuple[str, str]] = Counter()
        self._crossed: Counter[tuple[str, str]] = Counter()
        self._seconds: dict[str, float] = {}
        self._stored: Counter[tuple[str, bool]] = Counter()

    def began(self, order: Order) -> None:
        """An order is under way."""
        self._going[order.type] += 1

    def told(self, order: Order, report: Report) -> None:
        """An order has reported; every report is told once."""
        match report:
            case Ended() | Broke():
                self._going[order.type] -= 1
                self._ended[order.type, "done" if isinstance(report, Ended) else report.fault] += 1
            case Crossed():
                self._crossed[report.source, report.target] += report.nbytes
            case Stored():
                name = _operation(order, report.key)
                self._stored[name, report.reused] += 1
                if not report.reused:
                    self._seconds[name] = self._seconds.get(name, 0.0) + report.seconds
            case _:
                pass

    def figures(self) -> Iterator[Figure]:
        """All sums, in the order of their names and labels."""
        for kind, count in sorted(self._going.items()):
            labels = {"type": kind}
            yield Figure(
                name="dataflow_orders_running", about="Orders under way", value=count, labels=labels
            )
        for (kind, how), count in sorted(self._ended.items()):
            yield Figure(
                name="dataflow_orders_ended",
                about="Orders that ended: done, or whose fault it was",
                value=count,
                labels={"type": kind, "end": how},
                kind="counter",
            )
        for (source, target), nbytes in sorted(self._crossed.items()):
            yield Figure(
                name="dataflow_link_received_bytes",
                about="Bytes that came over a link for orders of this site",
                value=nbytes,
                labels={"source": source, "target": target},
                kind="counter",
            )
        for name, seconds in sorted(self._seconds.items()):
            yield Figure(
                name="dataflow_operation_seconds",
                about="Seconds of work by operation",
                value=seconds,
                labels={"operation": name},
                kind="counter",
            )
        for (name, reused), count in sorted(self._stored.items()):
            yield Figure(
                name="dataflow_outputs",
                about="Outputs stored, or found stored already",
                value=count,
                labels={"operation": name, "reused": str(reused).lower()},
                kind="counter",
            )


def _operation(order: Order, key: str) -> str:
    """Which operation makes this output; a copy is made by none."""
    if not isinstance(order, SegmentOrder):
        return "copy"
    return next((step.operation.name for step in order.steps if step.key == key), "part")
