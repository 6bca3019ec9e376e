"""What finished work teaches: how long operations take, and how fast links are.

Pure: reports in, bodies of catalog records out. Runs of an operation at a site are filed in a record
of kind ``measurement`` with the id :func:`pace_id`. Not the runs themselves are kept but sums over
them, in which a run counts half as much after twenty more, so that a site with new machines is soon
believed. From the sums the time is regressed as ``fixed + per_byte * input bytes``, neither of them
negative. Several sites may have written about the same operation at the same site; the sums of all
are put together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from dataflow.execution.events import Crossed, Report, Stored, UnitReported
from dataflow.graph.operation import Step
from dataflow.placement.measurements import Measurements, Pace, identity
from dataflow.placement.plan import Plan, Segment
from dataflow.sites import ASSUMED_LATENCY, Link

#: What a run still counts when the next one is added: half after 20 runs.
KEPT = 0.5 ** (1 / 20)
#: From this input size (bytes) on, time is put down to the bytes if only one size was seen.
LARGE = 1_000_000
#: Sizes that spread less than this, relative to their mean, are one size.
_SPREAD = 1e-6
#: Bounds that keep all sums finite: more seconds and bytes than anybody has.
_LONGEST, _LARGEST = 1e12, 1e18
#: More than any sum of those can be.
_HUGE = 1e45

#: Transfers smaller than this (bytes) say more about latency than about bandwidth.
TELLING_TRANSFER = 256_000
#: What a new transfer counts in the average bandwidth.
TRANSFER_WEIGHT = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One run of an operation (:func:`~dataflow.placement.measurements.identity`) at a site.

    Bytes are counted as in memory; ``output_nbytes`` is ``None`` where the result was not stored.
    """

    operation: str
    site: str
    input_nbytes: int
    output_nbytes: int | None
    seconds: float


def observations(plan: Plan, reports: Iterable[Report | UnitReported]) -> list[Observation]:
    """What the reports of a job say about the operations of its plan.

    A report tells the time of an output, and with it that of the steps before it in the segment
    that were not stored: it is shared out among them as the plan had predicted. Merging and
    combining are left out, as they are not the operation's own work; so are copies, results that
    were there already, and reports without a time.
    """
    stored = [r for r in map(_report, reports) if isinstance(r, Stored)]
    extents = dict(plan.extents)
    extents |= {key: dataset.extent for key, dataset in plan.sources.items()}
    extents |= {r.key: r.dataset.extent for r in stored}
    found, told = [], set[tuple[str, str]]()
    for report in stored:
        step, site = plan.step_by_key.get(report.key), report.replica.site
        segment = _segment(plan, report.key, site)
        if step is None or segment is None or report.reused or not 0 < report.seconds < _LONGEST:
            continue
        steps = [s for s in _unstored(plan, segment, step) if (s.key, site) not in told] + [step]
        told.update((s.key, site) for s in steps)
        shares = _shares(plan, steps)
        for part, share in zip(steps, shares, strict=True):
            if part.stage not in ("whole", "part"):
                continue
            found.append(
                Observation(
                    operation=identity(part.operation),
                    site=site,
                    input_nbytes=sum(extents[key].nbytes for key in part.inputs),
                    output_nbytes=extents[part.key].nbytes if part is step else None,
                    seconds=report.seconds * share,
                )
            )
    return found


def _report(report: Report | UnitReported) -> Report:
    return report.report if isinstance(report, UnitReported) else report


def _segment(plan: Plan, key: str, site: str) -> Segment | None:
    """The segment that was to store a key at a site; none if it came there as a copy."""
    return next((s for s in plan.segments if s.site == site and key in s.outputs), None)


def _unstored(plan: Plan, segment: Segment, step: Step) -> list[Step]:
    """Steps of a segment that run for a step and leave nothing behind, inputs first."""
    inner = set(segment.steps) - set(segment.outputs)
    needed = {step.key}
    for key in reversed(segment.steps):
        if key in needed:
            needed.update(inner.intersection(plan.step_by_key[key].inputs))
    return [plan.step_by_key[key] for key in segment.steps if key in needed - {step.key}]


def _shares(plan: Plan, steps: Collection[Step]) -> list[float]:
    predicted = [plan.assignment_by_key[step.key].seconds for step in steps]
    whole = sum(predicted)
    return [seconds / whole if whole > 0 else 1 / len(steps) for seconds in predicted]


# --- records ------------------------------------------------------------------------------------


def pace_id(operation: str, site: str) -> str:
    """Id of the record about an operation (its identity) at a site."""
    return f"pace:{operation}:{site}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sums:
    """Weighted sums over runs: input bytes are ``x``, seconds ``y``.

    ``xx`` and ``xy`` are about the means, which keeps their digits where sizes are large and close.
    ``read`` and ``made`` are bytes of input and output of the runs whose result was stored.
    """

    weight: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0
    read: float = 0.0
    made: float = 0.0
    runs: int = 0

    @classmethod
    def read_from(cls, body: Mapping[str, Any]) -> _Sums:
        """The sums of a record; none at all if it is not one of ours."""
        sums = body.get("sums")
        if not isinstance(sums, Mapping) or set(sums) != set(cls.__slots__):
            return cls()
        numbers = all(isinstance(v, int | float) and abs(v) <= _HUGE for v in sums.values())
        if not numbers or any(v < 0 for name, v in sums.items() if name != "xy"):
            return cls()
        if not sums["weight"] or not sums["runs"]:
            return cls()
        return cls(**sums)

    def __add__(self, other: _Sums) -> _Sums:
        weight = self.weight + other.weight
        if not weight:
            return self
        share, apart = other.weight / weight, (other.x - self.x, other.y - self.y)
        between = self.weight * share
        return _Sums(
            weight=weight,
            x=self.x + apart[0] * share,
            y=self.y + apart[1] * share,
            xx=self.xx + other.xx + apart[0] * apart[0] * between,
            xy=self.xy + other.xy + apart[0] * apart[1] * between,
            read=self.read + other.read,
            made=self.made + other.made,
            runs=self.runs + other.runs,
        )

    def faded(self) -> _Sums:
        return replace(
            self,
            weight=self.weight * KEPT,
            xx=self.xx * KEPT,
            xy=self.xy * KEPT,
            read=self.read * KEPT,
            made=self.made * KEPT,
        )

    def pace(self) -> Pace:
        """The line through the runs, by least squares, that starts and rises at 0 or more."""
        if self.xx <= self.weight * (_SPREAD * self.x) ** 2:
            large = self.x >= LARGE
            per_byte = self.y / self.x if large else 0.0
            return Pace(fixed=0.0 if large else self.y, per_byte=per_byte, runs=self.runs)
        per_byte = max(0.0, self.xy / self.xx)
        fixed = self.y - per_byte * self.x
        if fixed < 0:
            # Through the origin: the best line among those that start there.
            fixed, products = 0.0, self.xy + self.weight * self.x * self.y
            per_byte = products / (self.xx + self.weight * self.x**2)
        return Pace(fixed=fixed, per_byte=per_byte, runs=self.runs)

    def output_ratio(self) -> float | None:
        return self.made / self.read if self.read >= 1 else None


def fold(old: Mapping[str, Any] | None, new: Observation) -> dict[str, Any]:
    """The record about an operation at a site, with one more run in it.

    Parameters
    ----------
    old
        Body of the record so far; ``None`` for the first run. One that cannot be read counts as
        none.
    new
        The run; its numbers are brought into bounds.

    Returns
    -------
    dict
        JSON-ready: ``operation``, ``site``, ``runs``, ``fixed`` (s), ``per_byte`` (s),
        ``output_ratio`` (``None`` if no result was stored), and the ``sums`` to go on with.
    """
    read = _bounded(new.input_nbytes, _LARGEST)
    known = new.output_nbytes is not None
    run = _Sums(
        weight=1.0,
        x=read,
        y=_bounded(new.seconds, _LONGEST),
        read=read if known else 0.0,
        made=_bounded(new.output_nbytes or 0, _LARGEST) if known else 0.0,
        runs=1,
    )
    sums = _Sums.read_from(old or {}).faded() + run
    pace = sums.pace()
    return {
        "operation": new.operation,
        "site": new.site,
        "runs": pace.runs,
        "fixed": pace.fixed,
        "per_byte": pace.per_byte,
        "output_ratio": sums.output_ratio(),
        "sums": {name: getattr(sums, name) for name in _Sums.__slots__},
    }


def measurements_of(records: Iterable[Mapping[str, Any]]) -> Measurements:
    """What records of kind ``measurement``, of all sites, say together; others are passed over."""
    runs: dict[tuple[str, str], _Sums] = {}
    for body in records:
        place = body.get("operation"), body.get("site")
        sums = _Sums.read_from(body)
        if sums.runs and isinstance(place[0], str) and isinstance(place[1], str):
            runs[place[0], place[1]] = runs.get((place[0], place[1]), _Sums()) + sums
    paces: dict[str, dict[str, Pace]] = {}
    everywhere: dict[str, _Sums] = {}
    for (operation, site), sums in sorted(runs.items()):
        paces.setdefault(operation, {})[site] = sums.pace()
        everywhere[operation] = everywhere.get(operation, _Sums()) + sums
    ratios = {operation: sums.output_ratio() for operation, sums in everywhere.items()}
    return Measurements(
        paces=paces,
        output_ratio={operation: r for operation, r in ratios.items() if r is not None},
    )


def _bounded(value: float, most: float) -> float:
    return min(max(float(value), 0.0), most) if value == value else 0.0


# --- links --------------------------------------------------------------------------------------


def link_of(crossed: Crossed, known: Link | None, now: float) -> Link | None:
    """A link as it is to be believed after a transfer over it.

    Bandwidth becomes the average of what was known and what was seen, which counts 0.3; latency
    stays. A bandwidth that was only assumed counts nothing.

    Returns
    -------
    Link or None
        ``None`` if the transfer says nothing: cut off, too small, without a time, or within a site.
    """
    if not crossed.whole or crossed.nbytes < TELLING_TRANSFER or not 0 < crossed.seconds < _LONGEST:
        return None
    if crossed.source == crossed.target:
        return None
    latency = ASSUMED_LATENCY if known is None else known.latency
    # A latency that was too high an estimate must not make a road look endlessly wide.
    seen = crossed.nbytes / max(crossed.seconds - latency, crossed.seconds / 2)
    if known is not None and known.origin not in ("assumed", "timed") and isfinite(known.bandwidth):
        seen = (1 - TRANSFER_WEIGHT) * known.bandwidth + TRANSFER_WEIGHT * seen
    return Link(
        source=crossed.source,
        target=crossed.target,
        bandwidth=seen,
        latency=latency,
        origin="measured",
        measured_at=now,
    )
