"""What finished work teaches: how long operations take, how large results are, how fast links are.

Pure: the state of a job in, bodies of catalog records out. Runs of an operation at a site are filed
in a record of kind ``measurement`` with the id :func:`pace_id`; what orders take beside the work, and
copies over a road, in records of their own. Each keeps its last runs, newest last, and no more than
:data:`~dataflow.execution.series.KEPT_RUNS` of them. Several sites may have written about the same
operation at the same site; the runs of all are put together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

from dataflow.execution.events import Crossed, Report, Stored, UnitReported
from dataflow.execution.series import KEPT_RUNS, Point, band, line, middle, quantile, weights
from dataflow.execution.state import JobState, Unit
from dataflow.execution.units import is_patient
from dataflow.graph.operation import Step
from dataflow.placement.measurements import Crossing, Measurements, Pace, Stock, staged
from dataflow.placement.plan import Plan, Segment
from dataflow.sites import ASSUMED_LATENCY, Link

#: From this input size (bytes) on, time is put down to the bytes if only one size was seen.
LARGE = 1_000_000
#: Bounds that keep all sums finite: more seconds and bytes than anybody has.
_LONGEST, _LARGEST = 1e12, 1e18

#: Transfers smaller than this (bytes) say more about latency than about bandwidth.
TELLING_TRANSFER = 256_000
#: What a new transfer counts in the average bandwidth.
TRANSFER_WEIGHT = 0.3
#: So many orders of a site, or copies over a road, are needed before they tell what one takes: the
#: first has workers to start, or a connection to open.
TELLING_ORDERS = 3
#: Others on its road whose bytes alone take no more of a copy's seconds than this have not held it up.
UNFELT = 0.2
#: Runs of all writers about one thing that are put together: lines through them take its square.
MOST_RUNS = 2 * KEPT_RUNS
#: What is filed beside operations, whose names all have an ``@``.
ORDERS, ROAD, JOBS = "orders", "road", "jobs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One run of an operation (:func:`~dataflow.placement.measurements.staged`) at a site.

    Bytes are counted as in memory, ``stored_nbytes`` as in the store; those of the result are
    ``None`` where it was not stored. For :data:`ORDERS`, ``seconds`` are those beside the work and
    ``input_nbytes`` is the number of steps; for :data:`JOBS`, they are those before the first order,
    wherever that is; for :data:`ROAD`, ``site`` is ``source>target`` and ``input_nbytes`` is what came.
    """

    operation: str
    site: str
    input_nbytes: int
    output_nbytes: int | None
    seconds: float
    stored_nbytes: int | None = None


def of_job(state: JobState) -> list[Observation]:
    """All that a job has shown: of its operations, and of its orders."""
    worked = worked_of(state.plan, state.stored.values())
    return [*observations(state.plan, state.stored.values()), *_orders(state, worked)]


def observations(plan: Plan, reports: Iterable[Report | UnitReported]) -> list[Observation]:
    """What the reports of a job say about the operations of its plan.

    A report tells the time of an output, and with it that of the steps before it in the segment
    that were not stored: it is shared out among them as the plan had predicted. Copies are left
    out, and so are results that were there already, and reports without a time.
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
            found.append(
                Observation(
                    operation=staged(part.operation, part.stage),
                    site=site,
                    input_nbytes=sum(extents[key].nbytes for key in part.inputs),
                    output_nbytes=extents[part.key].nbytes if part is step else None,
                    seconds=report.seconds * share,
                    stored_nbytes=report.replica.nbytes if part is step else None,
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


def worked_of(plan: Plan, reports: Iterable[Report]) -> dict[tuple[str, str], float]:
    """(Key, site) of each step that was run and stored → its seconds."""
    return {
        (r.key, r.replica.site): r.seconds
        for r in reports
        if isinstance(r, Stored) and not r.reused and 0 < r.seconds < _LONGEST
    }


def _orders(state: JobState, worked: Mapping[tuple[str, str], float]) -> Iterable[Observation]:
    """What the orders of a job took, at the clock of whoever kept it."""
    plan = state.plan
    sites = plan.topology.site_by_name
    began = min((u.began for u in state.units.values() if u.began and u.attempt == 1), default=0.0)
    if 0 < began - state.created < _LONGEST and not state.dropped:
        yield Observation(
            operation=JOBS,
            site="",
            input_nbytes=0,
            output_nbytes=None,
            seconds=began - state.created,
        )
    for name, unit in state.units.items():
        seconds = unit.over - unit.began
        if unit.status != "ended" or unit.attempt != 1 or not 0 < seconds < _LONGEST:
            continue
        if is_patient(plan, name) or held_up(state, name):
            continue
        segment, transfer = plan.segment_by_id.get(name), plan.transfer_by_id.get(name)
        if segment is not None and all((key, segment.site) in worked for key in segment.outputs):
            site = sites.get(segment.site)
            work = _duration(plan, segment, worked, max(1, site.workers) if site else 1)
            yield Observation(
                operation=ORDERS,
                site=segment.site,
                input_nbytes=len(segment.steps),
                output_nbytes=None,
                seconds=max(0.0, seconds - work),
            )
        if transfer is not None and not transfer.via:
            came = [
                c for c in state.crossed if (c.key, c.target) == (transfer.key, transfer.target)
            ]
            if len(came) == 1 and came[0].whole and not came[0].via:
                yield Observation(
                    operation=ROAD,
                    site=f"{transfer.source}>{transfer.target}",
                    input_nbytes=came[0].nbytes,
                    output_nbytes=None,
                    seconds=seconds,
                )


def held_up(state: JobState, name: str) -> bool:
    """Whether a unit was held up by others of its job, at its site or on its very road.

    It has waited for them then, for workers or for the road; plans count such waiting themselves.
    They do not count that roads to several sites may begin as one: what such a copy took is what
    copies take. And of small ones side by side each takes what it takes alone: that is not the bytes.
    """
    plan, own, busy = state.plan, state.units[name], _busy(state.plan, name)

    def meanwhile(other: Unit) -> bool:
        return 0 < other.began < own.over and (other.over or inf) > own.began

    others = [
        other
        for other, unit in state.units.items()
        if other != name and meanwhile(unit) and busy == _busy(plan, other)
    ]
    transfer = plan.transfer_by_id.get(name)
    if transfer is None:
        return bool(others)
    nbytes = sum(plan.transfer_by_id[other].nbytes for other in others)
    road = plan.topology.link(transfer.source, transfer.target)
    return nbytes > UNFELT * (own.over - own.began) * road.bandwidth


def _busy(plan: Plan, name: str) -> tuple[str, ...]:
    """What a unit keeps busy: the workers of a site, or a road."""
    segment, transfer = plan.segment_by_id.get(name), plan.transfer_by_id.get(name)
    if segment is not None:
        return (segment.site,)
    return () if transfer is None else (transfer.source, transfer.target)


def _duration(
    plan: Plan, segment: Segment, worked: Mapping[tuple[str, str], float], workers: int
) -> float:
    """Seconds that the steps of a segment kept its site busy: the longest chain, or all the work."""
    done: dict[str, float] = {}
    work = 0.0
    for key in segment.steps:
        own = worked.get((key, segment.site), 0.0)
        work += own
        done[key] = own + max((done.get(k, 0.0) for k in plan.step_by_key[key].inputs), default=0.0)
    return max(max(done.values(), default=0.0), work / workers)


# --- records ------------------------------------------------------------------------------------


def pace_id(operation: str, site: str) -> str:
    """Id of the record about an operation (as it is filed) at a site."""
    return f"pace:{operation}:{site}"


#: Bytes read, seconds, bytes of the result in memory and in the store.
_Run = tuple[float, float, float | None, float | None]


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
        ``output_ratio`` (``None`` if no result was stored), and ``lately``, the runs to go on with.
    """
    made = None if new.output_nbytes is None else _whole(new.output_nbytes)
    kept = None if new.stored_nbytes is None else _whole(new.stored_nbytes)
    run = (_whole(new.input_nbytes), _bounded(new.seconds, _LONGEST), made, kept)
    before = _runs_of(old or {})
    lately = [*before, run][-KEPT_RUNS:]
    count = int((old or {}).get("runs", 0)) + 1 if before else 1
    pace = _pace([lately], count)
    return {
        "operation": new.operation,
        "site": new.site,
        "runs": count,
        "fixed": pace.fixed,
        "per_byte": pace.per_byte,
        "output_ratio": _ratio([lately]),
        "lately": [list(one) for one in lately],
    }


def _runs_of(body: Mapping[str, Any]) -> list[_Run]:
    """The runs of a record; none at all if it is not one of ours."""
    lately, count = body.get("lately"), body.get("runs")
    if not isinstance(lately, list) or len(lately) > KEPT_RUNS:
        return []
    if not isinstance(count, int) or isinstance(count, bool) or count < len(lately):
        return []
    found: list[_Run] = []
    for run in lately:
        if not isinstance(run, list | tuple) or len(run) != 4:
            return []
        read, seconds, made, kept = run
        if not (_fine(read, 1.0, _LARGEST) and _fine(seconds, 0.0, _LONGEST)):
            return []
        if not all(value is None or _fine(value, 1.0, _LARGEST) for value in (made, kept)):
            return []
        found.append((read, seconds, made, kept))
    return found


def _fine(value: Any, least: float, most: float) -> bool:
    """Whether a number is 0, or so large and no larger: there is no half of a byte."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return value == 0 or least <= value <= most


Series = Sequence[Sequence[_Run]]


def _points(series: Series) -> list[Point]:
    """Seconds over bytes, of one writer after the other."""
    return [
        Point(run[0], run[1], weight)
        for runs in series
        for run, weight in zip(runs, weights(len(runs)), strict=True)
    ]


def _pace(series: Series, runs: int) -> Pace:
    points = _points(series)
    one = max(point.x for point in points)
    found = line(points, through_origin=one >= LARGE)
    return Pace(fixed=found.fixed, per_byte=found.slope, runs=runs, band=found.band)


def _ratio(series: Series) -> float | None:
    """The middle of the results' bytes for each byte that was read."""
    ratios, counts = [], []
    for runs in series:
        for run, weight in zip(runs, weights(len(runs)), strict=True):
            if run[2] is not None and run[0] >= 1:
                ratios.append(run[2] / run[0])
                counts.append(weight)
    return quantile(ratios, counts, 0.5) if ratios else None


def _stock(series: Series) -> Stock | None:
    """Bytes in the store over bytes in memory.

    Large results tell how far they can be packed, small ones what is stored beside the values. Where
    all were small and took less than in memory, they were packed at least so far, whatever was beside.
    """
    points = [
        Point(run[2], run[3], weight)
        for runs in series
        for run, weight in zip(runs, weights(len(runs)), strict=True)
        if run[2] is not None and run[3] is not None
    ]
    large = [point for point in points if point.x >= LARGE]
    small = [point for point in points if point.x < LARGE]
    if not points:
        return None
    ratio, fixed = 1.0, 0.0
    if telling := large or [point for point in small if point.x > 0]:
        ratio = middle([p.y / p.x for p in telling], [p.weight for p in telling])
    if not large:  # what is stored beside makes the ratio of small ones too large, never too small
        ratio = min(1.0, ratio)
    if small:
        over = [max(0.0, p.y - min(1.0, ratio) * p.x) for p in small]
        fixed = middle(over, [p.weight for p in small])
    return Stock(fixed=fixed, ratio=ratio, band=band(points, fixed, ratio))


def _crossing(series: Series) -> Crossing:
    points = _points(series)
    counts = [point.weight for point in points]
    nbytes = middle([point.x for point in points], counts)
    large = max(point.x for point in points) >= TELLING_TRANSFER
    found = line(points, through_origin=False)
    told = found.told and large and found.slope > 0
    if told:
        return Crossing(
            nbytes=nbytes, seconds=found.at(nbytes), per_byte=found.slope, band=found.band
        )
    seconds = middle([point.y for point in points], counts)
    return Crossing(nbytes=nbytes, seconds=seconds, band=found.band)


def measurements_of(
    records: Iterable[tuple[str, Mapping[str, Any]]], sites: Collection[str]
) -> Measurements:
    """What records of kind ``measurement`` say together; what cannot be is passed over.

    Parameters
    ----------
    records
        Each with the site that wrote it. Of each writer one record about an operation at a site
        counts, and all writers count alike.
    sites
        Names of all that there are; what is said of others is nothing to anybody.
    """
    series: dict[tuple[str, str], list[list[_Run]]] = {}
    counts: dict[tuple[str, str], int] = {}
    heard: set[tuple[str, str, str]] = set()
    for writer, body in records:
        operation, site = body.get("operation"), body.get("site")
        if not isinstance(operation, str) or not isinstance(site, str):
            continue
        about = {ROAD: site.split(">"), JOBS: []}.get(operation, [site])
        if not all(name in sites for name in about) or (operation == JOBS and site):
            continue
        runs = _runs_of(body)
        if runs and (writer, operation, site) not in heard:
            heard.add((writer, operation, site))
            series.setdefault((operation, site), []).append(runs)
            counts[operation, site] = counts.get((operation, site), 0) + int(body["runs"])
    series = {about: _latest(said) for about, said in series.items()}
    paces: dict[str, dict[str, Pace]] = {}
    beginnings: dict[str, Pace] = {}
    crossings: dict[str, dict[str, Crossing]] = {}
    everywhere: dict[str, list[list[_Run]]] = {}
    starting: Pace | None = None
    for (operation, site), said in sorted(series.items()):
        if operation in (ORDERS, ROAD, JOBS) and counts[operation, site] < TELLING_ORDERS:
            continue
        if operation == ORDERS:
            beginnings[site] = _pace(said, counts[operation, site])
        elif operation == JOBS:
            starting = _pace(said, counts[operation, site])
        elif operation == ROAD:
            source, _, target = site.partition(">")
            crossings.setdefault(source, {})[target] = _crossing(said)
        else:
            paces.setdefault(operation, {})[site] = _pace(said, counts[operation, site])
            everywhere.setdefault(operation, []).extend(said)
    everywhere = {operation: _latest(said) for operation, said in everywhere.items()}
    ratios = {operation: _ratio(said) for operation, said in everywhere.items()}
    stocks = {operation: _stock(said) for operation, said in everywhere.items()}
    return Measurements(
        paces=paces,
        output_ratio={operation: r for operation, r in ratios.items() if r is not None},
        stored={operation: stock for operation, stock in stocks.items() if stock is not None},
        beginnings=beginnings,
        crossings=crossings,
        starting=starting,
    )


def _latest(said: Sequence[list[_Run]]) -> list[list[_Run]]:
    """The last runs of each writer, so few that all of them are soon compared with one another."""
    each = max(1, MOST_RUNS // len(said))
    return [runs[-each:] for runs in said[:MOST_RUNS]]


def _whole(nbytes: float) -> float:
    return float(int(_bounded(nbytes, _LARGEST)))


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
