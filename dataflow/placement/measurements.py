"""What placement can use of earlier runs; and what it assumes where nothing was measured.

Placement owns the shape, others fill it in: the session from journals and ledgers. Whatever is a
guess says so, and its words end up in the notes of the plan. Every figure is the middle of what was
seen, with a :class:`Band` around it in which four of five runs lie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import exp, inf, isfinite, log
from statistics import NormalDist, median

from dataflow.graph.operation import Operation
from dataflow.sites import Link, LinkOrigin, Site, Topology

#: Bytes of input per second that a worker of speed 1 is taken to get through.
GUESSED_RATE = 200e6
#: Seconds that a step is taken to cost however small its input is.
GUESSED_FIXED = 0.01
#: The quantiles between which a :class:`Band` lies.
LOW, HIGH = 0.1, 0.9
#: Beyond these no quantile is asked for: of so few runs nothing is known there.
LEAST_QUANTILE, MOST_QUANTILE = 0.01, 0.99
#: So many orders of a site are needed before they tell that it is unlike the others.
OWN_ORDERS = 8
#: Runs of one site that count at most beside those of others.
MOST_COUNTED = 24
_TENTH = NormalDist().inv_cdf(HIGH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """How far runs stray from the middle: one of ten takes less than ``low`` times that, one of ten
    more than ``high`` times.

    Without any run twice as long and half as long is expected as often as that.
    """

    low: float = 0.5
    high: float = 2.0

    def factor(self, quantile: float) -> float:
        """How many times the middle is not exceeded with this probability, 0 to 1."""
        quantile = min(max(quantile, LEAST_QUANTILE), MOST_QUANTILE)
        far = NormalDist().inv_cdf(quantile) / _TENTH
        side = self.high if far > 0 else self.low
        return exp(abs(far) * log(max(side, 1e-9)))


#: Of what was never seen: a tenth as long, or ten times as long.
GUESS = Band(low=0.1, high=10.0)
#: How far roads are from what is said of them, by where that comes from.
ROADS: Mapping[LinkOrigin, Band] = {
    "declared": Band(low=0.8, high=1.5),
    "measured": Band(low=0.8, high=1.5),
    "timed": Band(low=0.1, high=3.0),
    "assumed": Band(low=0.1, high=3.0),
    "closed": Band(low=1.0, high=1.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long an operation took at a site: ``fixed + per_byte * input bytes`` seconds.

    Input bytes count as in memory. ``runs`` is the number of runs that this rests on, ``band`` how
    far they were from it.
    """

    fixed: float
    per_byte: float
    runs: int = 1
    band: Band = field(default_factory=Band)

    def times(self, factor: float) -> Pace:
        """The same on a machine that needs ``factor`` times as long."""
        return replace(self, fixed=self.fixed * factor, per_byte=self.per_byte * factor)

    def at(self, quantile: float) -> Pace:
        """The same as it is not exceeded with this probability."""
        return self.times(self.band.factor(quantile))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """Bytes that results take in a store, and so on a road: ``fixed + ratio * bytes in memory``."""

    fixed: float
    ratio: float
    band: Band = field(default_factory=Band)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """How copies came over a road: a typical one of ``nbytes`` took ``seconds``, from the order on.

    ``per_byte`` is seconds for one byte more, where sizes were various enough to tell; 0 if not.
    """

    nbytes: float
    seconds: float
    per_byte: float = 0.0
    band: Band = field(default_factory=Band)

    def over(self, road: Link) -> Link:
        """The road as copies came over it: what one takes beside its bytes is delay."""
        per_byte = self.per_byte or (1 / road.bandwidth if road.bandwidth > 0 else inf)
        beside = self.seconds - per_byte * self.nbytes
        bandwidth = 1 / self.per_byte if self.per_byte else road.bandwidth
        return replace(road, bandwidth=bandwidth, latency=max(road.latency, beside))


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What is known from earlier runs; empty means: nothing yet.

    Attributes
    ----------
    paces
        :func:`identity` of an operation → site → pace there.
    output_ratio
        Identity → bytes of the result per byte of input, in memory; used where the operation
        itself says nothing about its result's size.
    links
        Roads as lately used; they win over those of the topology.
    load
        Site → share of its workers that others keep busy, 0 to 1; work there takes
        ``1 / (1 - load)`` times as long.
    stored
        Identity → bytes of the stored result.
    beginnings
        Site → what an order takes there beside the work of its steps; ``per_byte`` is for each step.
    crossings
        Source → target → how copies came over that road. Over others they are taken to need as long
        beside their bytes and the road's own delay as is usual on these.
    starting
        What passes before the first order of a job.
    quantile
        Which of the likely values is taken of everything; ``None`` for the middle.
    """

    paces: Mapping[str, Mapping[str, Pace]] = field(default_factory=dict)
    output_ratio: Mapping[str, float] = field(default_factory=dict)
    links: tuple[Link, ...] = ()
    load: Mapping[str, float] = field(default_factory=dict)
    stored: Mapping[str, Stock] = field(default_factory=dict)
    beginnings: Mapping[str, Pace] = field(default_factory=dict)
    crossings: Mapping[str, Mapping[str, Crossing]] = field(default_factory=dict)
    starting: Pace | None = None
    quantile: float | None = None

    def at(self, quantile: float | None) -> Measurements:
        """The same with values that are not exceeded with this probability."""
        return self if quantile == self.quantile else replace(self, quantile=quantile)

    def pace(
        self, operation: Operation, site: Site, topology: Topology, stage: str = "whole"
    ) -> tuple[Pace, str]:
        """Pace of an operation at a site and, if it was not measured there, on what it rests.

        Sites are taken to differ by their declared speeds alone, until what was seen at this one
        lies apart from what was seen at the others: work must not travel after noise. Without any
        run a worker of speed 1 is taken to read 200 MB/s and to need 10 ms at least.
        """
        slower = 1 / (1 - min(max(self.load.get(site.name, 0.0), 0.0), 0.95))
        known = next((self.paces[n] for n in names_of(operation, stage) if n in self.paces), {})
        speeds = topology.site_by_name
        scaled = {n: known[n].times(speeds[n].speed / site.speed) for n in known if n in speeds}
        if site.name in scaled:
            return self._likely(_at_one(site.name, scaled).times(slower)), ""
        if scaled:
            return self._likely(_typical(list(scaled.values())).times(slower)), "as at other sites"
        guess = Pace(fixed=GUESSED_FIXED, per_byte=1 / GUESSED_RATE, runs=0, band=GUESS)
        return self._likely(guess.times(slower / site.speed)), "never run"

    def beginning(self, site: Site) -> tuple[float, float]:
        """Seconds that an order takes at a site beside the work of its steps: to begin, and for each
        step; 0 if nobody knows.
        """
        if not self.beginnings or site.stores_only or not site.workers:
            return 0.0, 0.0
        own = self.beginnings.get(site.name)
        known = _typical(list(self.beginnings.values()))
        if own is not None and own.runs >= OWN_ORDERS:
            known = _at_one(site.name, self.beginnings)
        known = self._likely(known)
        return known.fixed, known.per_byte

    @property
    def start(self) -> float:
        """Seconds before the first order of a job; 0 if nobody knows."""
        return 0.0 if self.starting is None else self._likely(self.starting).fixed

    def stock(self, operation: Operation, stage: str) -> Stock | None:
        """Bytes that a result takes in a store, as likely; ``None`` if none was ever stored."""
        known = self.stored.get(names_of(operation, stage)[0])
        if known is None or self.quantile is None:
            return known
        factor = known.band.factor(self.quantile)
        return replace(known, fixed=known.fixed * factor, ratio=known.ratio * factor)

    def ratio(self, operation: Operation, stage: str = "whole") -> float | None:
        """Bytes of the result per byte of input; ``None`` if nobody knows."""
        names = names_of(operation, stage)
        return next((self.output_ratio[n] for n in names if n in self.output_ratio), None)

    def _likely(self, pace: Pace) -> Pace:
        return pace if self.quantile is None else pace.at(self.quantile)

    def apply_to(self, topology: Topology) -> Sequence[Sequence[Link]]:
        """The road between each pair of sites, as ``roads[from][to]`` in the topology's order."""
        lately = {(link.source, link.target): link for link in self.links}
        names = [site.name for site in topology.sites]

        def road(a: str, b: str) -> Link:
            known, measured = topology.link(a, b), lately.get((a, b))
            if measured is not None and measured.via != known.via:
                measured = replace(measured, via=known.via)
            return measured or known

        roads = {(a, b): road(a, b) for a in names for b in names}
        beside = [
            max(0.0, seen.over(roads[a, b]).latency - roads[a, b].latency)
            for a, reached in self.crossings.items()
            for b, seen in reached.items()
            if _is_used(roads.get((a, b)))
        ]
        typical = median(beside) if beside else 0.0
        return [[self._crossed(roads[a, b], typical) for b in names] for a in names]

    def _crossed(self, road: Link, typical: float) -> Link:
        if road.source == road.target or road.origin == "closed":
            return road
        seen = None if road.via else self.crossings.get(road.source, {}).get(road.target)
        if seen is not None:
            road = seen.over(road)
        elif typical:
            road = replace(road, latency=road.latency + typical)
        if self.quantile is None or not isfinite(road.bandwidth):
            return road
        slower = (ROADS[road.origin] if seen is None else seen.band).factor(self.quantile)
        return replace(road, bandwidth=road.bandwidth / slower, latency=road.latency * slower)


def _is_used(road: Link | None) -> bool:
    """Whether copies come straight over it."""
    return road is not None and not road.via and road.origin != "closed"


def _typical(paces: Sequence[Pace]) -> Pace:
    """The middle of several sites, each as often as it has run: one cold start elsewhere is no rule."""
    runs = [min(max(pace.runs, 1), MOST_COUNTED) for pace in paces]
    return Pace(
        fixed=_middle([pace.fixed for pace in paces], runs),
        per_byte=_middle([pace.per_byte for pace in paces], runs),
        runs=sum(pace.runs for pace in paces),
        band=Band(
            low=_middle([pace.band.low for pace in paces], runs),
            high=_middle([pace.band.high for pace in paces], runs),
        ),
    )


def _middle(values: Sequence[float], runs: Sequence[int]) -> float:
    pairs = sorted(zip(values, runs, strict=True))
    half, below = sum(runs) / 2, 0
    for number, (value, count) in enumerate(pairs):
        below += count
        if below > half:
            return value
        if below == half:
            return (value + pairs[number + 1][0]) / 2
    raise ValueError("no values")


def _at_one(name: str, paces: Mapping[str, Pace]) -> Pace:
    """What is believed of one site: its own runs if they are apart from those of the others; else the
    middle of all, as far around it as its own runs are.
    """
    own, others = paces[name], [paces[other] for other in paces if other != name]
    if not others or _apart(own, _typical(others)):
        return own
    return replace(_typical(list(paces.values())), band=own.band)


def _apart(one: Pace, other: Pace) -> bool:
    """Whether the bands of two do not meet, for small inputs or for large ones."""
    for nbytes in (1e3, 1e9):
        mine, theirs = (pace.fixed + pace.per_byte * nbytes for pace in (one, other))
        if mine * one.band.high < theirs * other.band.low:
            return True
        if theirs * other.band.high < mine * one.band.low:
            return True
    return False


def identity(operation: Operation) -> str:
    """What runs of an operation are filed under: ``name@version``."""
    return f"{operation.name}@{operation.version}"


def staged(operation: Operation, stage: str) -> str:
    """What runs of one stage of it are filed under: parts and what puts them together differ."""
    name = identity(operation)
    if stage == "whole":
        return name
    return f"{name}/{'part' if stage == 'part' else 'combine'}"


def names_of(operation: Operation, stage: str) -> tuple[str, ...]:
    """Under what its runs may be found: its own stage first; a part and the whole stand in for
    each other, since both are the operation's own work.
    """
    own, whole = staged(operation, stage), identity(operation)
    if stage == "whole":
        return (own, staged(operation, "part"))
    return (own, whole) if stage == "part" else (own,)
