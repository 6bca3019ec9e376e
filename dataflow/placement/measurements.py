"""What placement can use of earlier runs; and what it assumes where nothing was measured.

Placement owns the shape, others fill it in: the session from journals and ledgers. Whatever is a
guess says so, and its words end up in the notes of the plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from dataflow.graph.operation import Operation
from dataflow.sites import Link, Site, Topology

#: Bytes of input per second that a worker of speed 1 is taken to get through.
GUESSED_RATE = 200e6
#: Seconds that a step is taken to cost however small its input is.
GUESSED_FIXED = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long an operation took at a site: ``fixed + per_byte * input bytes`` seconds.

    Input bytes count as in memory. ``runs`` is the number of runs that this rests on.
    """

    fixed: float
    per_byte: float
    runs: int = 1

    def times(self, factor: float) -> Pace:
        """The same on a machine that needs ``factor`` times as long."""
        return Pace(fixed=self.fixed * factor, per_byte=self.per_byte * factor, runs=self.runs)


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
    """

    paces: Mapping[str, Mapping[str, Pace]] = field(default_factory=dict)
    output_ratio: Mapping[str, float] = field(default_factory=dict)
    links: tuple[Link, ...] = ()
    load: Mapping[str, float] = field(default_factory=dict)

    def pace(self, operation: Operation, site: Site, topology: Topology) -> tuple[Pace, str]:
        """Pace of an operation at a site and, if it was not measured there, on what it rests.

        Without a run at this site the median of the other sites is used, scaled by their speeds;
        without any run a worker of speed 1 is taken to read 200 MB/s and to need 10 ms at least.
        """
        slower = 1 / (1 - min(max(self.load.get(site.name, 0.0), 0.0), 0.95))
        known = self.paces.get(identity(operation), {})
        if site.name in known:
            return known[site.name].times(slower), ""
        speeds = topology.site_by_name
        elsewhere = [known[name].times(speeds[name].speed) for name in known if name in speeds]
        if elsewhere:
            typical = Pace(
                fixed=median(pace.fixed for pace in elsewhere),
                per_byte=median(pace.per_byte for pace in elsewhere),
                runs=sum(pace.runs for pace in elsewhere),
            )
            return typical.times(slower / site.speed), "as at other sites"
        guess = Pace(fixed=GUESSED_FIXED, per_byte=1 / GUESSED_RATE, runs=0)
        return guess.times(slower / site.speed), "never run"

    def apply_to(self, topology: Topology) -> Sequence[Sequence[Link]]:
        """The road between each pair of sites, as ``roads[from][to]`` in the topology's order."""
        lately = {(link.source, link.target): link for link in self.links}
        names = [site.name for site in topology.sites]

        def road(a: str, b: str) -> Link:
            known, measured = topology.link(a, b), lately.get((a, b))
            if measured is None or measured.via == known.via:
                return measured or known
            return replace(measured, via=known.via)

        return [[road(a, b) for b in names] for a in names]


def identity(operation: Operation) -> str:
    """What runs of an operation are filed under: ``name@version``."""
    return f"{operation.name}@{operation.version}"
