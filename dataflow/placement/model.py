"""Model: the numbers that a plan was chosen by, kept with it.

With them a saved plan can say what it would take for another site to win, and the same choice can be
made again, without asking anybody anything. Plain frozen data; large graphs go without.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any, Literal

from dataflow.placement.aim import BALANCED, Aim

if TYPE_CHECKING:
    from dataflow.placement.problem import Problem

#: Plans of more steps times sites than this are saved without their numbers.
KEPT_NUMBERS = 2_000

Rows = tuple[tuple[float, ...], ...]
Flags = tuple[tuple[bool, ...], ...]
#: What can be changed about a model: the rate of a link, the bytes of an item, the time of a step.
Fact = Literal["bandwidth", "size", "work"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A placement problem as plain numbers; see :class:`~dataflow.placement.problem.Problem`.

    Attributes
    ----------
    sites, workers, bandwidth, latency
        As there; the bandwidth of a site with itself stands as 0.
    held, copies
        Keys of what exists already, and for each its copies: (site number, bytes), in the order in
        which one is taken if they are equally near.
    tasks, reads
        Keys of the steps, and the items that each reads, with repetitions.
    sizes
        Bytes in memory of every item, held ones first.
    fixed, per_byte
        Seconds of each step at each site: at least, and per byte that it reads.
    allowed, within
        Where each step may run, and where it was looked for.
    deliver, client, collectors, input_bytes, egress, watts
        As there.
    aim
        What was to be least.
    moves
        Bytes of each result when it moves; empty where they are as many as in memory.
    begins, lead
        As there.
    """

    sites: tuple[str, ...]
    workers: tuple[int, ...]
    bandwidth: Rows
    latency: Rows
    held: tuple[str, ...]
    copies: tuple[tuple[tuple[int, float], ...], ...]
    tasks: tuple[str, ...]
    reads: tuple[tuple[int, ...], ...]
    sizes: tuple[float, ...]
    fixed: Rows
    per_byte: Rows
    allowed: Flags
    within: Flags
    deliver: tuple[int, ...] = ()
    client: int = -1
    collectors: tuple[int, ...] = ()
    input_bytes: tuple[tuple[float, ...], ...] = ()
    egress: Rows | None = None
    watts: tuple[float, ...] | None = None
    aim: Aim = BALANCED
    moves: tuple[float, ...] = ()
    begins: tuple[float, ...] | None = None
    lead: float = 0.0

    def problem(self) -> Problem:
        """The arrays that the solver sees."""
        import numpy as np  # not with the records: whoever only reads a plan does not wait for it

        from dataflow.placement.problem import Problem

        width, steps, held = len(self.sites), len(self.tasks), len(self.held)
        bandwidth = np.array(self.bandwidth, dtype=float).reshape(width, width)
        np.fill_diagonal(bandwidth, inf)
        nearest = [self._nearest(copies) for copies in self.copies]
        source = np.array([[at for at, _ in row] for row in nearest], dtype=np.intp)
        moved = np.array([[nbytes for _, nbytes in row] for row in nearest], dtype=float)
        read = np.array([sum(self.sizes[item] for item in row) for row in self.reads], dtype=float)

        def table(rows: Any, kind: Any = float) -> Any:
            return np.array(rows, dtype=kind).reshape(steps, width)

        return Problem(
            sites=self.sites,
            workers=self.workers,
            bandwidth=bandwidth,
            latency=np.array(self.latency, dtype=float).reshape(width, width),
            held=self.held,
            tasks=self.tasks,
            inputs=tuple(tuple(dict.fromkeys(row)) for row in self.reads),
            held_source=source.reshape(held, width),
            held_bytes=moved.reshape(held, width),
            nbytes=np.array(self.moves or self.sizes[held:], dtype=float),
            seconds=table(self.fixed) + table(self.per_byte) * read[:, None],
            allowed=table(self.allowed, bool),
            within=table(self.within, bool),
            deliver=self.deliver,
            client=self.client,
            collectors=self.collectors,
            input_bytes={
                task: np.array(row, dtype=float)
                for task, row in zip(self.collectors, self.input_bytes, strict=True)
            },
            egress=None if self.egress is None else np.array(self.egress, dtype=float),
            watts=None if self.watts is None else np.array(self.watts, dtype=float),
            begins=None if self.begins is None else np.array(self.begins, dtype=float),
            lead=self.lead,
        )

    def _nearest(self, copies: tuple[tuple[int, float], ...]) -> list[tuple[int, float]]:
        """For each site the copy that is soonest there, and the bytes that this moves."""
        found = []
        for target in range(len(self.sites)):
            if any(site == target for site, _ in copies):
                found.append((target, 0.0))
                continue

            def price(copy: tuple[int, float], target: int = target) -> tuple[float, float]:
                site, nbytes = copy
                wait = self.latency[site][target]
                return wait + nbytes / self.bandwidth[site][target], nbytes

            found.append(min(copies, key=price))
        return found

    def changed(self, fact: Fact, where: tuple[int, int], factor: float) -> Model:
        """The same with one fact multiplied.

        Parameters
        ----------
        fact, where
            ``bandwidth`` from a site to another, ``size`` of an item (the second number is not
            looked at), ``work`` of a step at a site.
        """
        one, other = where
        if fact == "bandwidth":
            return replace(self, bandwidth=_times(self.bandwidth, one, other, factor))
        if fact == "work":
            return replace(
                self,
                fixed=_times(self.fixed, one, other, factor),
                per_byte=_times(self.per_byte, one, other, factor),
            )
        sizes = (*self.sizes[:one], self.sizes[one] * factor, *self.sizes[one + 1 :])
        if one >= len(self.held):
            made = one - len(self.held)
            moves = self.moves
            if moves:
                moves = (*moves[:made], moves[made] * factor, *moves[made + 1 :])
            return replace(self, sizes=sizes, moves=moves)
        copies = tuple((site, nbytes * factor) for site, nbytes in self.copies[one])
        return replace(
            self, sizes=sizes, copies=(*self.copies[:one], copies, *self.copies[one + 1 :])
        )


def _times(rows: Rows, row: int, column: int, factor: float) -> Rows:
    mine = rows[row]
    mine = (*mine[:column], mine[column] * factor, *mine[column + 1 :])
    return (*rows[:row], mine, *rows[row + 1 :])
