"""Which hosts, addresses and link shapes the test bed has: facts, in one place.

::

    root namespace, 10.77.0.1 ── bridge flowbr0
       ├── hpc    10.77.0.11 ── lan 10.78.0.0/24 ── hpc-n1, hpc-n2      ssh, Grid Engine
       ├── edge   10.77.0.12 ── lan 10.79.0.0/24 ── edge-w1             ssh, no batch system
       ├── cloud  10.77.0.13                                            S3 and nothing else
       └── third  10.77.0.14                                            ssh, no data
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Service = Literal["sshd", "qmaster", "execd", "radosgw", "gate"]

#: What lives as long as the bed: records, keys, sockets, logs.
STATE = Path("/run/dataflow-bed")
#: What needs a disk: virtual environments (kept), the disks of sites and hosts (removed with the bed).
DISK = Path("/var/lib/dataflow-bed")
#: Held while the bed is changed, and while a test uses it.
LOCK = Path("/run/lock/dataflow-bed")
#: Where every host sees the checkout from which it was started, read-only.
CHECKOUT = DISK / "checkout"

USER = "flowlab"
BRIDGE = "flowbr0"
NETWORK = "10.77.0"
#: The notebook: this machine's own namespace, as sites see it.
NOTEBOOK = f"{NETWORK}.1"
QUEUE = "flow.q"
SLOTS = 2
#: What a site file of ``hpc`` says of it, with short times.
GRID_ENGINE = {
    "queue": QUEUE,
    "interface": "eth0",
    "scheduler_interface": "lan0",
    "walltime": "10 min",
    "idle": "2 s",
    "look": "1 s",
    "worth": "10 s",
    "orphaned": "15 s",
}
S3_PORT = 8000
RGW_PORT = 7480


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPlan:
    """One host to be.

    Attributes
    ----------
    name
        Its host name; that of the site for the host which can be reached from outside.
    site
        The site that it belongs to. Hosts of one site share home directories.
    outside
        Address on the network between sites, if it has one.
    inside
        Address on the site's own network, if it has one.
    services
        The daemons that run there.
    """

    name: str
    site: str
    outside: str | None = None
    inside: str | None = None
    services: tuple[Service, ...] = ()


@dataclass(frozen=True, slots=True)
class Both:
    """One value per direction: towards the site, and from it."""

    to: float
    from_: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What one link is like; every value per direction or the same for both.

    Attributes
    ----------
    rate
        Bytes per second on the wire, headers included; 0 for no limit.
    latency
        Seconds that a frame is under way, one way: a round trip takes both.
    loss
        Probability that a frame is lost.
    """

    rate: Both = field(default_factory=lambda: Both(0.0, 0.0))
    latency: Both = field(default_factory=lambda: Both(0.0, 0.0))
    loss: Both = field(default_factory=lambda: Both(0.0, 0.0))


HOSTS: tuple[HostPlan, ...] = (
    HostPlan(
        name="hpc",
        site="hpc",
        outside=f"{NETWORK}.11",
        inside="10.78.0.1",
        services=("sshd", "qmaster"),
    ),
    HostPlan(name="hpc-n1", site="hpc", inside="10.78.0.11", services=("execd",)),
    HostPlan(name="hpc-n2", site="hpc", inside="10.78.0.12", services=("execd",)),
    HostPlan(
        name="edge",
        site="edge",
        outside=f"{NETWORK}.12",
        inside="10.79.0.1",
        services=("sshd",),
    ),
    HostPlan(name="edge-w1", site="edge", inside="10.79.0.11", services=("sshd",)),
    HostPlan(name="cloud", site="cloud", outside=f"{NETWORK}.13", services=("radosgw", "gate")),
    HostPlan(name="third", site="third", outside=f"{NETWORK}.14", services=("sshd",)),
)

#: The sites, in order; the first host of each is the one that others reach.
SITES: tuple[str, ...] = tuple(host.name for host in HOSTS if host.outside)

#: Networks that only their own site knows.
INSIDE_NETWORKS: tuple[str, ...] = tuple(
    f"{host.inside.rpartition('.')[0]}.0/24" for host in HOSTS if host.outside and host.inside
)


def host(name: str) -> HostPlan:
    """The host of that name; KeyError with the known ones."""
    for plan in HOSTS:
        if plan.name == name:
            return plan
    raise KeyError(f"no host {name!r} in the bed; there are {', '.join(h.name for h in HOSTS)}")


def door(site: str) -> HostPlan:
    """The host of ``site`` that others reach."""
    plan = host(site)
    if plan.outside is None:
        raise KeyError(f"{site!r} is a host inside {plan.site!r}; links go to {', '.join(SITES)}")
    return plan


def hardware_address(address: str) -> str:
    """The hardware address that belongs to an IPv4 ``address``.

    A host that was ended and comes back has the same one, as a real one would: its neighbours keep
    what they know for minutes, and would talk to nobody meanwhile.
    """
    return ":".join(f"{part:02x}" for part in (2, 0, *ipaddress.IPv4Address(address).packed))


def known_to(plan: HostPlan) -> dict[str, str]:
    """Host name → address, as this host knows them.

    A host with two addresses has one name, and inside its site that is the inner address: Grid
    Engine insists that name, address and the name of that address agree.
    """
    names = {other.name: other.inside for other in HOSTS if other.site == plan.site if other.inside}
    if plan.outside:
        names |= {
            other.name: other.outside
            for other in HOSTS
            if other.outside and other.name not in names
        }
        names["notebook"] = NOTEBOOK
    return {name: address for name, address in names.items() if address}


def port(site: str) -> str:
    """The interface of this machine that leads to ``site``."""
    return f"flow-{site}"


def _round_trip(seconds: float, rate: float = 10e6) -> Shape:
    return Shape(rate=Both(rate, rate), latency=Both(seconds / 2, seconds / 2))


#: Name → shape of each site's link. Two sites meet at the bridge, so that the round trip between
#: them is the sum of both links' round trips, and their rate the lower of the two.
PRESETS: Mapping[str, Mapping[str, Shape]] = {
    # 10 MB/s and no delay but the machine's own.
    "default": {site: _round_trip(0.0) for site in SITES},
    # As fast as the machine allows.
    "unshaped": {site: Shape() for site in SITES},
    # Round trips seen from the notebook: 10, 40, 60 and 200 ms.
    "scope": {
        "edge": _round_trip(0.010),
        "cloud": _round_trip(0.040),
        "third": _round_trip(0.060),
        "hpc": _round_trip(0.200),
    },
    # Round trips edge-hpc 1000 ms, edge-third 1500 ms, hpc-third 1200 ms; the cloud is near.
    "fog": {
        "edge": _round_trip(0.650),
        "hpc": _round_trip(0.350),
        "third": _round_trip(0.850),
        "cloud": _round_trip(0.0),
    },
    # Late and lost news: 2 s under way each way, one frame in twenty lost.
    "late": {
        site: Shape(rate=Both(10e6, 10e6), latency=Both(2.0, 2.0), loss=Both(0.05, 0.05))
        for site in SITES
    },
}
