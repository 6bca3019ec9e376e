"""Pace: how a job does beside its plan: since when each unit runs, and how long the rest may take. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dataflow._quantities import format_seconds
from dataflow.execution.events import Broke, Ended, Event, Progress, UnitReported, UnitStarted
from dataflow.execution.state import JobState, apply, replay
from dataflow.execution.units import part_of
from dataflow.placement.plan import Comparison, Release

#: Before anything has ended the plan is all there is to go by: it may be this much too long or short.
_UNPROVEN = 3.0
#: A unit this much slower or faster than planned says no more than that (s).
_LEAST_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Left:
    """How long a job may still take (s): the best guess, and between what and what it is likely."""

    seconds: float
    low: float
    high: float

    def __str__(self) -> str:
        low, high = format_seconds(self.low), format_seconds(self.high)
        return f"about {format_seconds(self.seconds)} left ({low} to {high})"


class Pace:
    """A job as its journal tells it, with the times that its state does not keep.

    Attributes
    ----------
    state
        ``None`` before the first event.
    began, ended
        Name of a unit → when its present attempt was sent, and when it was done (s since the epoch).
    reached
        Name of a unit → what its site said last about how far it is.
    heard
        Events so far.
    """

    def __init__(self) -> None:
        self.state: JobState | None = None
        self.began: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        self.reached: dict[str, Progress] = {}
        self.heard = 0

    def take(self, events: Iterable[Event]) -> bool:
        """Go on with more of the journal; whether there was any."""
        before = self.heard
        for event in events:
            self.heard += 1
            self.state = replay([event]) if self.state is None else apply(self.state, event)
            match event:
                case UnitStarted(unit=unit, time=time):
                    self.began[unit] = time
                    self.ended.pop(unit, None)
                    self.reached.pop(unit, None)
                case UnitReported(unit=unit, report=Ended(), time=time):
                    self.ended[unit] = time
                case UnitReported(unit=unit, report=Broke()):
                    self.began.pop(unit, None)
                case UnitReported(unit=unit, report=Progress() as progress):
                    self.reached[unit] = progress
        return self.heard > before

    def took(self, unit: str, now: float) -> float | None:
        """Seconds that a unit has taken, or takes so far; ``None`` if it was not begun."""
        began = self.began.get(unit)
        return None if began is None else max(0.0, self.ended.get(unit, now) - began)

    def left(self, now: float) -> Left | None:
        """How long it may still take; ``None`` if it is over, or nothing is planned.

        The plan's own time, less the share that is done, at the pace of the units that have ended:
        the middle one of them is the guess, the slower and the faster quarter are the interval.
        """
        state = self.state
        if state is None or state.over or not state.units:
            return None
        predicted = {unit: _predicted(state, unit) for unit in state.units}
        paces = sorted(
            max(self.took(unit, now) or 0.0, _LEAST_SECONDS) / max(seconds, _LEAST_SECONDS)
            for unit, seconds in predicted.items()
            if unit in self.ended and state.units[unit].status == "ended"
        )
        low, middle, high = _quarters(paces) if paces else (1 / _UNPROVEN, 1.0, _UNPROVEN)
        whole = sum(predicted.values())
        if whole <= 0:
            return None
        done = 0.0
        for unit, seconds in predicted.items():
            if state.units[unit].status == "ended":
                done += seconds
            elif state.units[unit].status == "running":
                done += min(seconds, (self.took(unit, now) or 0.0) / max(middle, 1e-9)) * 0.95
        rest = state.plan.seconds * max(0.0, 1.0 - done / whole)
        return Left(seconds=rest * middle, low=rest * low, high=rest * high)


def _quarters(sorted_: list[float]) -> tuple[float, float, float]:
    last = len(sorted_) - 1
    low, middle, high = (sorted_[round(last * share)] for share in (0.25, 0.5, 0.75))
    if last < 3:  # few have ended: none of them is the rule
        low, high = sorted_[0] / 1.5, sorted_[-1] * 1.5
    return low, middle, high


def _predicted(state: JobState, unit: str) -> float:
    part = part_of(state.plan, unit)
    return 0.0 if isinstance(part, Release | Comparison) else part.seconds
