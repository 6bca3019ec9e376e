"""Plan: what runs where, what moves, what it costs and why; finished and frozen before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from dataflow.datasets import Dataset, Extent, Replica
from dataflow.graph.operation import Step
from dataflow.sites import Topology

Keep = Literal["results", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One site an operation could run at, with its price; or the reason why it may not.

    ``seconds`` and ``nbytes`` are the cost of the whole plan with this operation at this site and
    all else chosen best for it; both are 0 where it is not allowed.
    """

    site: str
    allowed: bool
    because: str
    seconds: float = 0.0
    nbytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Where one step runs and what that is predicted to take.

    ``seconds`` is its own work, ``memory`` the most that one worker holds at once (bytes),
    ``reused`` names the replica whose key already has the result: then nothing runs.
    """

    key: str
    site: str
    seconds: float
    memory: int
    because: str
    candidates: tuple[Candidate, ...] = ()
    reused: Replica | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One copy over one link: the data of ``key`` from ``source`` to ``target``.

    ``nbytes`` is the prediction, ``replica`` the copy to read if the data exists already.
    """

    id: str
    key: str
    source: str
    target: str
    nbytes: int
    seconds: float
    replica: Replica | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A part of the plan that one site runs in one go.

    ``steps`` in order; ``inputs`` are keys that must be at the site before it starts, ``outputs``
    the keys that it stores.
    """

    id: str
    site: str
    steps: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A finished plan: plain data that can be saved, compared, approved and replayed.

    Attributes
    ----------
    id
        Digest of what is to be done where.
    sources, steps, outputs, extents
        The graph as it will run, after splitting.
    assignments
        One per step, in order.
    segments, transfers
        What the driver carries out.
    replicas
        The copies of the sources that are read, by key.
    result_at
        Site at which the results must end, empty for "where they are computed".
    seconds, nbytes
        Predicted time from start to end, and bytes over all links.
    topology
        The world as it was read when the plan was made.
    keep
        ``"results"`` stores what was asked for or crosses a link; ``"all"`` every step.
    notes
        What the reader should know: guesses that were made, things that were not possible.
    """

    id: str
    sources: Mapping[str, Dataset]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    extents: Mapping[str, Extent]
    assignments: tuple[Assignment, ...]
    segments: tuple[Segment, ...]
    transfers: tuple[Transfer, ...]
    replicas: Mapping[str, Replica]
    seconds: float
    nbytes: int
    topology: Topology
    result_at: str = ""
    keep: Keep = "results"
    notes: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def step_by_key(self) -> Mapping[str, Step]:
        return {step.key: step for step in self.steps}

    @cached_property
    def assignment_by_key(self) -> Mapping[str, Assignment]:
        return {assignment.key: assignment for assignment in self.assignments}

    @cached_property
    def segment_by_id(self) -> Mapping[str, Segment]:
        return {segment.id: segment for segment in self.segments}

    @cached_property
    def transfer_by_id(self) -> Mapping[str, Transfer]:
        return {transfer.id: transfer for transfer in self.transfers}

    def label(self, key: str) -> str:
        """A word for a key: the dataset's name or the step's label."""
        if key in self.sources:
            return self.sources[key].name
        return self.step_by_key[key].label
