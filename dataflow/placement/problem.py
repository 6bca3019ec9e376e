"""Problem: the question "what runs where" as arrays, without names, rules or records.

Items are numbered: first those that exist already (*held*: sources and stored results), then one
per step that has to run, in an order in which they can run. Sites are numbered in the order of
preference between equals. The solver sees nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Numbers = NDArray[np.intp]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """A placement problem; ``H`` held items, ``T`` steps, ``S`` sites.

    Attributes
    ----------
    sites, workers
        Names, and workers of each site.
    bandwidth, latency
        ``S x S``, bytes/s and seconds, from row to column; endless and 0 on the diagonal.
    held, tasks
        Keys of held items and of steps.
    inputs
        Per step the numbers of the items it reads, each once.
    held_source, held_bytes
        ``H x S``: from which site an item is fetched to a site and how many bytes that moves
        (0 from itself).
    nbytes
        ``T``: bytes of each result when it moves.
    seconds
        ``T x S``: time each step takes on one worker of each site.
    allowed
        ``T x S``: the verdicts.
    within
        ``T x S``: where the solver looks; within ``allowed``, and parts of split steps stay with
        their data.
    deliver, client
        Items that must end at site number ``client`` (-1 for none).
    collectors
        Numbers of the steps that combine the parts of a split step.
    input_bytes
        ``T x S``: for collectors, bytes of the split step's inputs that each site holds.
    egress, watts
        ``S x S`` and ``S``: money for a byte from row to column, and power of a worker at work;
        ``None`` where nobody has said any.
    begins
        ``S``: seconds until a site may begin what it finds there; ``None`` for at once. What comes
        from elsewhere has it in its latency.
    lead
        Seconds until what is held may leave: what passes before the first order of all, which is in
        ``begins`` too.
    """

    sites: tuple[str, ...]
    workers: tuple[int, ...]
    bandwidth: Floats
    latency: Floats
    held: tuple[str, ...]
    tasks: tuple[str, ...]
    inputs: tuple[tuple[int, ...], ...]
    held_source: Numbers
    held_bytes: Floats
    nbytes: Floats
    seconds: Floats
    allowed: Bools
    within: Bools
    deliver: tuple[int, ...] = ()
    client: int = -1
    collectors: tuple[int, ...] = ()
    input_bytes: Mapping[int, Floats] | None = None
    egress: Floats | None = None
    watts: Floats | None = None
    begins: Floats | None = None
    lead: float = 0.0

    @cached_property
    def users(self) -> tuple[tuple[int, ...], ...]:
        """Per item the steps that read it."""
        found: list[list[int]] = [[] for _ in range(len(self.held) + len(self.tasks))]
        for task, items in enumerate(self.inputs):
            for item in items:
                found[item].append(task)
        return tuple(map(tuple, found))

    @cached_property
    def edges(self) -> tuple[Numbers, Numbers]:
        """Steps and the items they read, as two arrays of equal length."""
        lengths = [len(items) for items in self.inputs]
        tasks = np.repeat(np.arange(len(self.tasks)), lengths)
        items = np.fromiter((i for items in self.inputs for i in items), np.intp, sum(lengths))
        return tasks, items

    @cached_property
    def held_seconds(self) -> Floats:
        """``H x S``: time to fetch each held item to each site over a free link."""
        target = np.arange(len(self.sites))
        source = self.held_source
        seconds: Floats = (
            self.lead
            + self.latency[source, target]
            + self.held_bytes / self.bandwidth[source, target]
        )
        begins = 0.0 if self.begins is None else self.begins
        return np.asarray(np.where(source == target, begins, seconds))

    @cached_property
    def move_seconds(self) -> Floats:
        """``T x S x S``: time to move each result from row to column over a free link."""
        seconds: Floats = self.latency + self.nbytes[:, None, None] / self.bandwidth
        return seconds

    @cached_property
    def move_bytes(self) -> Floats:
        """``T x S x S``: bytes on a link if each result moves from row to column."""
        apart = 1.0 - np.eye(len(self.sites))
        nbytes: Floats = self.nbytes[:, None, None] * apart
        return nbytes

    @cached_property
    def _plain(self) -> tuple[Any, Any, Any, Any, int]:
        """What :meth:`arrival` reads, as lists: single numbers out of arrays are slow."""
        return (
            self.held_source.tolist(),
            self.held_bytes.tolist(),
            self.nbytes.tolist(),
            self.bandwidth.tolist(),
            len(self.held),
        )

    def arrival(self, item: int, sites: Sequence[int], target: int) -> tuple[int, float, float]:
        """How an item comes to a site: from where, bytes, seconds that the link is busy."""
        held_source, held_bytes, nbytes, bandwidth, held = self._plain
        if item < held:
            source, moved = held_source[item][target], held_bytes[item][target]
        else:
            source = sites[item - held]
            moved = nbytes[item - held] if source != target else 0.0
        return source, moved, moved / bandwidth[source][target]

    @cached_property
    def seconds_rows(self) -> list[list[float]]:
        """:attr:`seconds` as lists."""
        rows: list[list[float]] = self.seconds.tolist()
        return rows

    @cached_property
    def egress_rows(self) -> list[list[float]] | None:
        """:attr:`egress` as lists."""
        return None if self.egress is None else self.egress.tolist()

    @cached_property
    def latency_rows(self) -> list[list[float]]:
        """:attr:`latency` as lists."""
        rows: list[list[float]] = self.latency.tolist()
        return rows

    @cached_property
    def home(self) -> list[list[bool]]:
        """``H x S``: whether a site has a held item."""
        here: list[list[bool]] = (self.held_source == np.arange(len(self.sites))).tolist()
        return here
