"""Plan: what runs where, what moves, what it costs and why; finished and frozen before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Any, Literal

from dataflow._quantities import format_bytes, format_seconds
from dataflow.agreements import Request
from dataflow.datasets import Dataset, Extent, Replica
from dataflow.graph.operation import Step
from dataflow.placement.model import Model
from dataflow.sites import Topology

if TYPE_CHECKING:
    from dataflow.placement.compare import Difference
    from dataflow.placement.why import Why

Keep = Literal["results", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One site an operation could run at, with its price; or the reason why it may not.

    ``seconds`` and ``nbytes`` are the cost of the whole plan with this step at this site and all
    else as planned; both are 0 where it is not allowed. ``because`` is what forbids it, or the
    difference to the plan in words; ``rule`` the name of the rule that forbids it. ``likely`` is
    between what and what ``seconds`` is in eight of ten runs, where as many bytes move as planned.
    """

    site: str
    allowed: bool
    because: str
    seconds: float = 0.0
    nbytes: int = 0
    rule: str = ""
    likely: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Where one step runs and what that is predicted to take.

    ``seconds`` is its own work, ``memory`` the most that one worker holds at once (bytes),
    ``reused`` is the copy of its result that exists already: then nothing runs, and it is in no
    segment. ``starts`` is when it begins in the predicted run, in seconds from its start; ``likely``
    between what and what ``seconds`` is in eight of ten runs.
    """

    key: str
    site: str
    seconds: float
    memory: int
    because: str
    candidates: tuple[Candidate, ...] = ()
    reused: Replica | None = None
    starts: float = 0.0
    likely: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One copy over one link: the data of ``key`` from ``source`` to ``target``.

    ``nbytes`` is the prediction, ``replica`` the copy to read if the data exists already; without
    one it is what a segment at ``source`` stores under ``key``. ``via`` is the site that carries it
    over, if the target cannot ask the source itself; the job has to be kept there. ``at`` is the
    site that carries it out where that is not the target, because the target has stores only;
    ``direct`` that whoever carries it out opens the store at the other end himself. A ``patient``
    one waits for its target as long as it takes: no other site would do. Of a ``clean`` one
    nothing is left at the target if it does not come about.
    """

    id: str
    key: str
    source: str
    target: str
    nbytes: int
    seconds: float
    replica: Replica | None = None
    via: str = ""
    patient: bool = False
    at: str = ""
    direct: bool = False
    clean: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A part of the plan that one site runs in one go.

    ``steps`` in order; ``inputs`` are keys that must be at the site before it starts, ``outputs``
    the keys that it stores. Each input is either in ``replicas`` (a copy that was at the site
    before the plan began), or an output of an earlier segment at the site, or brought by a transfer.
    """

    id: str
    site: str
    steps: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    seconds: float
    replicas: Mapping[str, Replica] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The end of a move: the copy ``replica`` at ``site`` is given up, when one at ``target`` equals it."""

    id: str
    key: str
    site: str
    target: str
    replica: Replica


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A result at ``site`` is compared with what the second run at ``other`` came to.

    ``replica`` is the copy at ``site`` if it was there before the plan began.
    """

    id: str
    key: str
    site: str
    other: str
    replica: Replica | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondRun:
    """The graph once more at another site, after the first run, in its environment.

    ``transfers`` bring what it reads; results are given out after their comparison.
    """

    site: str
    segment: Segment
    transfers: tuple[Transfer, ...]
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Likely:
    """Between what and what figures are in eight of ten runs; one of ten is below, one above.

    Attributes
    ----------
    seconds, nbytes
        From start to end, and over all links.
    """

    seconds: tuple[float, float]
    nbytes: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Least:
    """What no plan for the same steps can beat, within the sites that are open to each.

    Attributes
    ----------
    seconds, nbytes
        No plan ends before, or moves less.
    optimal
        Every choice was tried, or left off because it cannot be better: by the objective, no plan
        is.
    """

    seconds: float
    nbytes: int
    optimal: bool = False

    def gap(self, seconds: float, nbytes: float) -> tuple[float, float]:
        """How far a plan may be above the least possible: 0.1 is at most 10 %."""
        return _gap(seconds, self.seconds), _gap(nbytes, self.nbytes)


def _gap(value: float, least: float) -> float:
    if value <= least * (1 + 1e-8):  # bounds are a little lower, against rounding
        return 0.0
    return value / least - 1.0 if least > 0 else inf


@dataclass(frozen=True, kw_only=True, repr=False)
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
        For each key that existed before and is read or asked for, a copy of it; where several
        sites read copies of their own, :attr:`Segment.replicas` and :attr:`Transfer.replica` say
        which is read where.
    result_at
        Site at which the results must end, empty for "where they are computed".
    seconds, nbytes
        Predicted time from start to end, and bytes over all links.
    least
        What no plan for these steps can beat; ``None`` in plans of earlier versions.
    money, energy
        Price of the transfers, by what sites and links ask for bytes, and joules of the workers.
    model
        The numbers that the plan was chosen by; ``None`` for large graphs.
    topology
        The world as it was read when the plan was made.
    keep
        ``"results"`` stores what was asked for or crosses a link; ``"all"`` every step.
    notes
        What the reader should know: guesses that were made, things that were not possible.
    options
        How it was asked for, such as the collector's rule.
    copies
        Key of a result → sites that shall have a copy of it in the end, where that was asked for.
    request
        How owners of the data are asked, and under which archetypes.
    missing
        Label of each result that is left out → why.
    releases
        Copies that are given up in the end.
    originals
        Steps of the graph as the user built it that stand otherwise in ``steps`` or not at all: what
        was split, and what need not run; :func:`dataflow.placement.make.graph_of` needs them.
    likely
        Between what and what ``seconds`` and ``nbytes`` are in eight of ten runs, by what was seen
        so far; ``None`` for large graphs.
    again
        The second run, where an owner wants results to be reproduced before they are given out;
        not part of the segments and transfers, nor of the prices.
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
    originals: tuple[Step, ...] = ()
    copies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    request: Request = field(default_factory=Request)
    missing: Mapping[str, str] = field(default_factory=dict)
    releases: tuple[Release, ...] = ()
    least: Least | None = None
    money: float = 0.0
    energy: float = 0.0
    model: Model | None = None
    again: SecondRun | None = None
    likely: Likely | None = None

    @cached_property
    def step_by_key(self) -> Mapping[str, Step]:
        return {step.key: step for step in self.steps}

    @cached_property
    def assignment_by_key(self) -> Mapping[str, Assignment]:
        return {assignment.key: assignment for assignment in self.assignments}

    @cached_property
    def segment_by_id(self) -> Mapping[str, Segment]:
        again = (self.again.segment,) if self.again is not None else ()
        return {segment.id: segment for segment in (*self.segments, *again)}

    @cached_property
    def transfer_by_id(self) -> Mapping[str, Transfer]:
        again = self.again.transfers if self.again is not None else ()
        return {transfer.id: transfer for transfer in (*self.transfers, *again)}

    @cached_property
    def release_by_id(self) -> Mapping[str, Release]:
        return {release.id: release for release in self.releases}

    @cached_property
    def comparison_by_id(self) -> Mapping[str, Comparison]:
        found = self.again.comparisons if self.again is not None else ()
        return {comparison.id: comparison for comparison in found}

    @property
    def gap(self) -> tuple[float, float] | None:
        """How far seconds and bytes may be above the least possible: 0.1 is at most 10 %."""
        return None if self.least is None else self.least.gap(self.seconds, self.nbytes)

    @cached_property
    def memory(self) -> Mapping[str, int]:
        """Site → the most that one worker there holds at once, in bytes."""
        most: dict[str, int] = {}
        for assignment in self.assignments:
            if assignment.reused is None:
                most[assignment.site] = max(most.get(assignment.site, 0), assignment.memory)
        return most

    @cached_property
    def _labels(self) -> Mapping[str, str]:
        names = {step.key: step.label for step in self.originals}
        names |= {step.key: step.label for step in self.steps}
        return names | {key: dataset.name for key, dataset in self.sources.items()}

    def label(self, key: str) -> str:
        """A word for a key: the dataset's name or the step's label."""
        return self._labels[key]

    def why(self, label: str) -> Why:
        """Why a step runs where it does: candidates, prices, reasons, and what would change it.

        Parameters
        ----------
        label
            The step's label, as in the picture; its key does as well.

        Raises
        ------
        PlacementError
            If the plan has no such step.
        """
        from dataflow.placement.why import why

        return why(self, label)

    def diff(self, old: Plan) -> Difference:
        """What is otherwise in this plan than in an older one: steps, transfers, figures."""
        from dataflow.placement.compare import difference

        return difference(old, self)

    def compare(self, other: Plan) -> Difference:
        """Another plan for the same work beside this one: where, what moves, and how much more."""
        from dataflow.placement.compare import difference

        return difference(self, other)

    def table(self) -> str:
        """The plan as plain text, for terminals and logs."""
        from dataflow.placement.explain import text

        return text(self)

    def __repr__(self) -> str:
        running = [a for a in self.assignments if a.reused is None]
        sites = len({a.site for a in running})
        reused = len(self.assignments) - len(running)
        return (
            f"<Plan {_count(len(running), 'operation')} at {_count(sites, 'site')}, "
            + (f"{reused} reused, " if reused else "")
            + f"{format_bytes(self.nbytes)} moved, {format_seconds(self.seconds)}"
            + (f", costs {self.money:.4g}" if self.money else "")
            + (f", {self.energy / 3.6e6:.3g} kWh" if self.energy else "")
            + ">"
        )

    def _repr_html_(self) -> str:
        from dataflow.placement.explain import html

        return html(self)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
