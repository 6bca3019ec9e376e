"""Site, Link, Topology: where computers are and how fast the roads between them.

Plain frozen facts. Nothing here opens a connection; measuring is done elsewhere and arrives as a
new :class:`Topology`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import log10
from typing import Literal

from dataflow import _html
from dataflow._quantities import format_bytes, format_rate, format_seconds
from dataflow._ring import Road, Spot, ring, style, svg
from dataflow.stores import Store, opened_as

Trust = Literal["lab", "steward"]
#: ``timed``: its latency was measured, its bandwidth not yet; ``closed``: nobody known could carry
#: anything over.
LinkOrigin = Literal["assumed", "timed", "declared", "measured", "closed"]

#: What is believed of a road nobody has declared or measured: a slow one, so that a plan that
#: needs it looks as expensive as it may turn out to be.
ASSUMED_BANDWIDTH = 10e6
ASSUMED_LATENCY = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A place with computers, under one administration.

    Attributes
    ----------
    name
        Unique in the federation.
    address
        URL of the site's agent, or ``None`` for the site that this process itself serves.
    workers
        Worker processes that may run at once.
    threads
        Threads of each worker.
    memory
        Bytes each worker may use.
    speed
        Relative to a worker of speed 1.0; a task of ``w`` seconds takes ``w / speed``.
    trust
        ``"lab"`` runs any function that an authenticated user sends, ``"steward"`` only what is
        installed there.
    operations
        ``name@version`` of all that a steward has installed and runs for others.
    credentials
        Name of the token to show its agent; the token itself is looked up where it is used.
    stores_only
        There are stores and neither computers nor an agent: whoever opens the stores reads and
        writes there himself.
    watts
        Power of one worker at work.
    egress, egress_to
        Money for each byte that leaves the site, in whatever unit the federation counts; and where
        it goes to a site for which that is another amount, as sorted pairs.
    walltime
        Seconds that a worker lives at most; 0 if nothing ends it.
    """

    name: str
    address: str | None = None
    workers: int = 1
    threads: int = 1
    memory: int = 2_000_000_000
    speed: float = 1.0
    trust: Trust = "lab"
    operations: tuple[str, ...] = ()
    credentials: str | None = None
    stores_only: bool = False
    watts: float = 0.0
    egress: float = 0.0
    egress_to: tuple[tuple[str, float], ...] = ()
    walltime: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A directed road between two sites: ``bandwidth`` in bytes/s, ``latency`` in seconds.

    ``via`` is the site that has to carry everything over, where neither end can ask the other.
    """

    source: str
    target: str
    bandwidth: float
    latency: float
    origin: LinkOrigin = "declared"
    measured_at: float | None = None
    via: str = ""

    def seconds(self, nbytes: float) -> float:
        """Time for one transfer of ``nbytes`` that has the link to itself."""
        return self.latency + nbytes / self.bandwidth


@dataclass(frozen=True, kw_only=True)
class Topology:
    """All sites, stores and links at one moment; what a plan may assume about the world.

    ``away`` holds the sites that did not answer lately: they keep their place in the picture and
    are not candidates. ``taken_at`` is the time (s since the epoch) of the reading. ``views`` are
    the stores of others that a site opens itself, by its own word: pairs of that site and the store.
    """

    sites: tuple[Site, ...]
    stores: tuple[Store, ...] = ()
    links: tuple[Link, ...] = ()
    away: frozenset[str] = field(default_factory=frozenset)
    taken_at: float = 0.0
    views: tuple[tuple[str, Store], ...] = ()

    @cached_property
    def site_by_name(self) -> Mapping[str, Site]:
        return {site.name: site for site in self.sites}

    @cached_property
    def _link_by_pair(self) -> Mapping[tuple[str, str], Link]:
        return {(link.source, link.target): link for link in self.links}

    def link(self, source: str, target: str) -> Link:
        """The road from ``source`` to ``target``; free and instant within one site.

        A pair without a record uses the way back, then the cautious constants of this module,
        and says so in ``origin``.
        """
        if source == target:
            return Link(source=source, target=target, bandwidth=float("inf"), latency=0.0)
        found = self._link_by_pair.get((source, target))
        if found is not None:
            return found
        back = self._link_by_pair.get((target, source))
        if back is not None:
            return replace(back, source=source, target=target, origin="assumed")
        return Link(
            source=source,
            target=target,
            bandwidth=ASSUMED_BANDWIDTH,
            latency=ASSUMED_LATENCY,
            origin="assumed",
        )

    def stores_at(self, site: str) -> tuple[Store, ...]:
        """Stores of one site, in the order of its file."""
        return tuple(store for store in self.stores if store.site == site)

    @cached_property
    def stores_only(self) -> frozenset[str]:
        """Sites that have neither computers nor an agent."""
        return frozenset(site.name for site in self.sites if site.stores_only)

    def opened_at(self, site: str) -> tuple[Store, ...]:
        """Stores that a site opens itself: its own, and those of others that it says."""
        return (*self.stores_at(site), *(store for who, store in self.views if who == site))

    def sees(self, site: str, url: str, *, at: str, store: str) -> bool:
        """Whether ``site`` itself opens ``url``, which lies in the store ``store`` of site ``at``."""
        home = next((known for known in self.stores_at(at) if known.name == store), None)
        return opened_as(self.opened_at(site), url, site=at, name=store, home=home) is not None

    def sees_results(self, site: str, at: str) -> bool:
        """Whether ``site`` itself opens the store in which results at ``at`` are put first."""
        first = next((store for store in self.stores_at(at) if store.purpose == "results"), None)
        return first is not None and self.sees(site, first.url, at=at, store=first.name)

    def __repr__(self) -> str:
        return f"<Topology {len(self.sites)} sites, {len(self.away)} away>"

    def _ipython_key_completions_(self) -> list[str]:
        return list(self.site_by_name)

    def __getitem__(self, name: str) -> Site:
        """The site of this name.

        Raises
        ------
        KeyError
            If there is none.
        """
        return self.site_by_name[name]

    def _repr_html_(self) -> str:
        return _html.block(*map_of(self)).text


#: Sites up to which a map is drawn; of more there is the table alone.
MAPPED_SITES = 16


def map_of(topology: Topology) -> list[_html.Markup]:
    """A map of the federation: sites in a ring, links with what they carry, and tables to unfold."""
    sites = sorted(topology.sites, key=lambda site: site.name)
    links = [
        link
        for link in topology.links
        if link.source != link.target and {link.source, link.target} <= set(topology.site_by_name)
    ]
    words = ". ".join(f"{site.name}: {_computers(site, topology)}" for site in sites)
    words += "".join(f". {_road(link)}" for link in links[:40])
    spots = [
        Spot(
            site.name,
            _computers(site, topology),
            _about(site, topology),
            site.name in topology.away,
        )
        for site in sites
    ]
    roads = [
        Road(link.source, link.target, _width(link), _carries(link), _road(link)) for link in links
    ]
    title = repr(topology).strip("<>")
    parts = []
    if 0 < len(sites) <= MAPPED_SITES:
        inside, size = ring(spots, roads)
        picture = svg("flow-map", size, title, words, style("flow-map"), inside)
        parts.append(_html.Markup(picture))
    rows = [
        (
            site.name,
            "away" if site.name in topology.away else "answers",
            "-" if site.stores_only else site.workers,
            "-" if site.stores_only else format_bytes(site.memory),
            site.trust,
            ", ".join(f"{store.name} ({store.purpose})" for store in topology.stores_at(site.name)),
        )
        for site in sites
    ]
    gone = [number for number, site in enumerate(sites) if site.name in topology.away]
    header = ("site", "", "workers", "memory of each", "trust", "stores")
    table = _html.table(header, rows, numbers=(2, 3), faint=gone)
    parts.append(_html.disclosure(f"{len(sites)} sites", table, opened=not parts))
    if links:
        rates = [
            (
                a.source,
                a.target,
                format_rate(a.bandwidth),
                format_seconds(a.latency),
                a.origin,
                a.via,
            )
            for a in links
        ]
        header = ("from", "to", "carries", "delay", "known by", "over")
        table = _html.table(header, rates, numbers=(2, 3))
        parts.append(_html.disclosure(f"{len(links)} links", table))
    return parts


def _computers(site: Site, topology: Topology) -> str:
    if site.name in topology.away:
        return "does not answer"
    if site.stores_only:
        return "stores only"
    return f"{site.workers} worker{'' if site.workers == 1 else 's'}, {format_bytes(site.memory)}"


def _about(site: Site, topology: Topology) -> str:
    stores = ", ".join(store.name for store in topology.stores_at(site.name)) or "none"
    return f"{site.name}: {_computers(site, topology)}, {site.trust}, stores: {stores}"


def _carries(link: Link) -> str:
    return "closed" if link.origin == "closed" else format_rate(link.bandwidth)


def _road(link: Link) -> str:
    way = f", over {link.via}" if link.via else ""
    return (
        f"{link.source} to {link.target}: {_carries(link)}, {format_seconds(link.latency)} delay, "
        f"{link.origin}{way}"
    )


def _width(link: Link) -> float:
    """1 px at 10 kB/s, one more for every tenfold."""
    return min(8.0, max(1.0, log10(max(link.bandwidth, 1.0)) - 3))
