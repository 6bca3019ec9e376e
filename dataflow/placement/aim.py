"""Aim: what a plan is to be good at, and what it must keep to.

A choice of sites has four figures: seconds from start to end, bytes over links, money for bytes
that leave a site, and energy of workers at work. An aim orders choices by them: by a weighted sum,
or by one figure after the other; a deadline or a budget comes before everything. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dataflow.errors import PlacementError

Measure = Literal["seconds", "bytes", "money", "energy"]
#: What a user may ask for: a word, words in the order in which they count, or their weights.
Objective = str | Sequence[str] | Mapping[str, float]
#: A weighted sum: measure → weight.
Stage = tuple[tuple[Measure, float], ...]

#: Seconds that a byte over a link costs apart from the time it takes: links are shared with
#: others, so that moving data has to pay more than a little before it is done (10 ms per MB).
PRICE = 1e-8

_WORDS: dict[str, Measure] = {
    "time": "seconds",
    "seconds": "seconds",
    "bytes": "bytes",
    "money": "money",
    "energy": "energy",
}
_BALANCED: Stage = (("seconds", 1.0), ("bytes", PRICE))
#: Differences below this share count as none.
_NEGLIGIBLE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a choice of sites comes to: seconds, bytes, money (in the site file's unit), joules."""

    seconds: float
    nbytes: float
    money: float = 0.0
    energy: float = 0.0

    def of(self, measure: Measure) -> float:
        """One figure by its name."""
        return {
            "seconds": self.seconds,
            "bytes": self.nbytes,
            "money": self.money,
            "energy": self.energy,
        }[measure]


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """How choices are compared: the least of the first stage, among equals that of the next.

    ``deadline`` (seconds) and ``budget`` (money) are kept before anything else counts.
    """

    stages: tuple[Stage, ...] = (_BALANCED,)
    deadline: float | None = None
    budget: float | None = None

    def score(self, figures: Figures) -> tuple[float, ...]:
        """Less is better, from left to right; the first is how far limits are exceeded."""
        excess = 0.0
        if self.deadline is not None:
            excess += max(0.0, figures.seconds / self.deadline - 1.0)
        if self.budget is not None and figures.money > self.budget:
            excess += figures.money / self.budget - 1.0 if self.budget else math.inf
        sums = (sum(w * figures.of(measure) for measure, w in stage) for stage in self.stages)
        return (excess, *sums)

    @property
    def guide(self) -> Mapping[Measure, float]:
        """One sum to be guided by where choices are looked for: later stages count next to nothing."""
        found: dict[Measure, float] = {}
        for number, stage in enumerate(self.stages):
            for measure, weight in stage:
                found[measure] = found.get(measure, 0.0) + weight * 1e-6**number
        return found


#: Seconds, and a little for every byte, since links are shared with others.
BALANCED = Aim()


def better(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether a score is less than another by more than rounding."""
    for a, b in zip(one, other, strict=True):
        if math.isinf(a) and math.isinf(b):
            continue
        if abs(a - b) > _NEGLIGIBLE * (1 + abs(b)):
            return a < b
    return False


def aim_of(
    objective: Objective = "balanced", *, deadline: float | None = None, budget: float | None = None
) -> Aim:
    """The aim in a user's words.

    Parameters
    ----------
    objective
        ``balanced`` (seconds, and 10 ms for every MB over a link), ``time``, ``bytes``, ``money``
        or ``energy``; several in the order in which they count; or a mapping of them to weights,
        per second, byte, unit of money and joule.
    deadline, budget
        Seconds that the run may take, and money that its transfers may cost.

    Raises
    ------
    PlacementError
        If a word is not known, or a number is out of range.
    """
    for name, limit in (("deadline", deadline), ("budget", budget)):
        if limit is not None and not (_is_number(limit) and limit >= 0):
            raise PlacementError(f"{name}: {limit!r} is not a number from 0 on")
    if deadline == 0:
        raise PlacementError("deadline: nothing is done in 0 seconds")
    return Aim(stages=_stages(objective), deadline=deadline, budget=budget)


def _stages(objective: Objective) -> tuple[Stage, ...]:
    if isinstance(objective, Mapping):
        for word, weight in objective.items():
            if not (_is_number(weight) and weight >= 0):
                raise PlacementError(f"objective: the weight of {word!r} is {weight!r}")
        if not any(objective.values()):
            raise PlacementError("objective: all weights are 0, so that every plan is as good")
        return (tuple((_measure(word), float(weight)) for word, weight in objective.items()),)
    words = [objective] if isinstance(objective, str) else list(objective)
    stages: list[Stage] = [
        _BALANCED if word == "balanced" else ((_measure(word), 1.0),) for word in words
    ]
    if not stages:
        raise PlacementError("objective: nothing is asked for")
    if stages[-1] != _BALANCED:
        named = {measure for stage in stages for measure, _ in stage}
        stages += [_BALANCED] if "seconds" not in named else []
        stages += [(("bytes", 1.0),)] if "seconds" in named and "bytes" not in named else []
    return tuple(stages)


def _measure(word: Any) -> Measure:
    if word not in _WORDS:
        raise PlacementError(
            f"objective: {word!r} is not known; there are balanced, time, bytes, money, energy"
        )
    return _WORDS[word]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
