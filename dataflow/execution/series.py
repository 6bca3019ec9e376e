"""Series: what a number of runs say together, of which the last say most and a few may be wrong.

Pure. A run is a point: something that it depends on (bytes), and something that was seen (seconds,
or bytes). The line through them is that of Theil and Sen: the middle of the slopes between all
pairs, so that a run in ten that took a hundred times as long, as the first one of a worker does,
moves it little. How far the points are from it is told by quantiles of their ratio to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dataflow.placement.measurements import HIGH, LOW, Band

#: Runs that are kept of each series.
KEPT_RUNS = 24
#: A run counts half as much after so many more: four runs of a new machine outvote all before.
HALF_AFTER = 4
#: Values that spread less than this, relative to the largest, are one value.
SPREAD = 1e-3
#: As long as few runs are known, one half as long and one twice as long count as much as this.
DOUBT = 0.5
_PRIOR = Band()


@dataclass(frozen=True, slots=True)
class Point:
    """One run; ``weight`` is what it counts."""

    x: float
    y: float
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Line:
    """``fixed + slope * x``; ``told`` says whether the slope was seen."""

    fixed: float
    slope: float
    band: Band
    told: bool

    def at(self, x: float) -> float:
        """The middle of what is seen at ``x``."""
        return self.fixed + self.slope * x


def weights(count: int) -> list[float]:
    """What each of so many runs counts, the last of them 1."""
    return [0.5 ** ((count - 1 - number) / HALF_AFTER) for number in range(count)]


def quantile(values: Sequence[float], counts: Sequence[float], share: float) -> float:
    """The value below which this share of the weight lies, between two of them in proportion.

    Raises
    ------
    ValueError
        If there are no values.
    """
    pairs = sorted(zip(values, counts, strict=True))
    if not pairs:
        raise ValueError("no values")
    whole = sum(count for _, count in pairs)
    below, place, before = 0.0, 0.0, pairs[0][0]
    for value, count in pairs:
        middle = (below + count / 2) / whole if whole > 0 else 0.5
        if middle >= share:
            if middle <= place or value == before:
                return value
            between = before + (value - before) * (share - place) / (middle - place)
            return min(between, value)  # rounding may come out above
        below, place, before = below + count, middle, value
    return before


def line(points: Sequence[Point], *, through_origin: bool, signed: bool = False) -> Line:
    """The line that the points say.

    Parameters
    ----------
    points
        At least one; numbers from 0 on. So are both of the line's, if it is not ``signed``.
    through_origin
        Where all have the same ``x``: whether it is that on which the value depends.
    signed
        It may begin below 0, or fall.
    """
    told = _spread(points)
    slope = _slope(points) if told else 0.0
    slope = slope if signed else max(0.0, slope)
    fixed = _middle(points, [p.y - slope * p.x for p in points])
    if told and signed:
        return Line(fixed, slope, band(points, fixed, slope), told)
    if (not told and through_origin) or fixed < 0:
        away = [p for p in points if p.x > 0]
        if away:
            slope = _middle(away, [p.y / p.x for p in away])
            fixed = 0.0
    fixed = max(0.0, fixed)
    return Line(fixed, slope, band(points, fixed, slope), told)


def band(points: Sequence[Point], fixed: float, slope: float) -> Band:
    """How far the points are from a line, with some doubt while they are few."""
    ratios, counts = [], []
    for point in points:
        middle = fixed + slope * point.x
        if middle > 0:
            ratios.append(point.y / middle)
            counts.append(point.weight)
    ratios += [_PRIOR.low, _PRIOR.high]
    counts += [DOUBT, DOUBT]
    return Band(
        low=min(1.0, quantile(ratios, counts, LOW)), high=max(1.0, quantile(ratios, counts, HIGH))
    )


def _spread(points: Sequence[Point]) -> bool:
    largest, least = max(p.x for p in points), min(p.x for p in points)
    return largest - least > SPREAD * largest


def middle(values: Sequence[float], counts: Sequence[float]) -> float:
    """The middle of some values; of two the lesser, as a first run has much to start and to load."""
    return quantile(values, counts, 0.5 if len(values) > 2 else 0.0)


def _middle(points: Sequence[Point], values: Sequence[float]) -> float:
    return middle(values, [p.weight for p in points])


def _slope(points: Sequence[Point]) -> float:
    """The middle of the slopes between two that are not at nearly the same place."""
    slopes, counts = [], []
    least = SPREAD * max(p.x for p in points)
    for number, one in enumerate(points):
        for other in points[:number]:
            apart = one.x - other.x
            if abs(apart) > least:
                slopes.append((one.y - other.y) / apart)
                counts.append(one.weight * other.weight)
    return quantile(slopes, counts, 0.5)
