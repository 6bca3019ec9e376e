"""Likely: between what and what a plan's figures are to be expected. Pure.

The same choice of sites is played where everything is at the low, and where everything is at the
high end of what was seen: a machine that is busy is slow with all that it does. Where things are
slow one by one the truth is nearer to the middle than this says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dataflow._quantities import format_bytes, format_seconds
from dataflow.placement.amounts import Amounts, amounts_of, roads_of
from dataflow.placement.cost import bytes_moved, simulate
from dataflow.placement.facts import Facts
from dataflow.placement.measurements import HIGH, LOW, Measurements
from dataflow.placement.model import KEPT_NUMBERS
from dataflow.placement.plan import Likely, Plan
from dataflow.placement.problem import Problem

#: Figures that differ by less than this share cannot be told apart, whatever was measured.
APART = 0.03


@dataclass(frozen=True, slots=True)
class Expected:
    """What is likely of a plan, and of each of its steps (seconds), in their order.

    ``ends`` is the same question where all is at the low, and where all is at the high end.
    """

    whole: Likely
    steps: tuple[tuple[float, float], ...]
    ends: tuple[Problem, Problem]

    def with_sites(self, sites: Sequence[int]) -> tuple[float, float]:
        """Between what and what the seconds of another choice of sites are."""
        low, high = (simulate(problem, sites).seconds for problem in self.ends)
        return low, high


def expected(facts: Facts, sites: Sequence[int], measured: Measurements) -> Expected | None:
    """Between what and what a choice is likely to be; ``None`` for large graphs."""
    problem = facts.problem
    if len(problem.tasks) * len(problem.sites) > KEPT_NUMBERS:
        return None
    seconds, nbytes, steps, ends = [], [], [], []
    for quantile in (LOW, HIGH):
        amounts = _amounts(facts, measured.at(quantile))
        then = amounts.put_into(problem)
        ends.append(then)
        seconds.append(simulate(then, sites).seconds)
        nbytes.append(round(bytes_moved(then, sites)))
        steps.append([float(amounts.seconds[task, site]) for task, site in enumerate(sites)])
    whole = Likely(seconds=(seconds[0], seconds[1]), nbytes=(nbytes[0], nbytes[1]))
    return Expected(whole, tuple(zip(steps[0], steps[1], strict=True)), (ends[0], ends[1]))


def _amounts(facts: Facts, measured: Measurements) -> Amounts:
    world = facts.world
    roads = roads_of(measured, world.topology)
    return amounts_of(facts.steps, world.names, world.topology, roads, measured, facts.sizes)


def alike(one: Plan, other: Plan) -> bool:
    """Whether nothing follows from the figures of two plans, neither from seconds nor from bytes."""
    seconds, nbytes = (one.seconds, other.seconds), (one.nbytes, other.nbytes)
    if one.likely is None or other.likely is None:
        return near(*seconds) and near(*nbytes)
    mine, theirs = one.likely, other.likely
    return undecided(seconds, mine.seconds, theirs.seconds) and undecided(
        nbytes, mine.nbytes, theirs.nbytes
    )


def undecided(
    middles: tuple[float, float], mine: tuple[float, float], theirs: tuple[float, float]
) -> bool:
    """Whether nothing follows from two figures: they are near, or their order turns between the ends.

    Low is held against low and high against high: what makes one run slow makes the other slow.
    """
    if near(*middles):
        return True
    less = [one < other for one, other in zip(mine, theirs, strict=True) if not near(one, other)]
    return len(set(less)) > 1


def near(one: float, other: float) -> bool:
    """Whether two figures differ by less than anybody can predict."""
    return abs(one - other) <= APART * max(one, other)


def in_words(likely: Likely) -> str:
    """What is likely, in one line."""
    low, high = likely.seconds
    words = f"eight of ten such runs take {format_seconds(low)} to {format_seconds(high)}"
    few, many = likely.nbytes
    if many and not near(few, many):
        words += f" and move {format_bytes(few)} to {format_bytes(many)}"
    return words
