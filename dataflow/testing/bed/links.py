"""Links: the bridge, one cable per site, rates, counters; and the site's own small network."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataflow.testing.bed import control, hosts, processes
from dataflow.testing.bed import state as states
from dataflow.testing.bed.commands import BedError, run, start, wait
from dataflow.testing.bed.layout import (
    BRIDGE,
    HOSTS,
    INSIDE_NETWORKS,
    NOTEBOOK,
    STATE,
    Both,
    HostPlan,
    Shape,
    door,
    hardware_address,
    port,
)
from dataflow.testing.bed.state import State, directory

_OUTSIDE = "wan0"
_INSIDE = "lan0"
#: Bytes of headers in each frame of a TCP connection: Ethernet 14, IPv4 20, TCP with timestamps 32.
HEADERS = 66
#: Senders hand over single frames. A token bucket never lets pass what is larger than its burst, and
#: what waits while the rate is lowered may be: the link would then stand still until its next shape.
_FRAME_BY_FRAME = ("gso_max_segs", "1")
#: Seconds of traffic that may pass at once after a pause, and the least in bytes.
_BURST_SECONDS, _BURST_BYTES = 0.005, 3200


@dataclass(frozen=True, slots=True)
class Crossed:
    """Bytes, frame headers included: towards the site, and from it."""

    to: int
    from_: int

    def __sub__(self, other: object) -> Crossed:
        if not isinstance(other, Crossed):
            return NotImplemented
        return Crossed(self.to - other.to, self.from_ - other.from_)


def ensure_bridge() -> None:
    """The notebook's end of all links, and no way from it into the sites' own networks."""
    if not Path(f"/sys/class/net/{BRIDGE}").exists():
        run("ip", "link", "add", BRIDGE, "address", hardware_address(NOTEBOOK), "type", "bridge")
        run("ip", "link", "set", BRIDGE, "addrgenmode", "none", *_FRAME_BY_FRAME)
        run("ip", "addr", "add", f"{NOTEBOOK}/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
    for network in INSIDE_NETWORKS:
        # Else such packets would leave by the default route, and something out there may answer.
        run("ip", "route", "replace", "unreachable", network)


def remove_bridge() -> None:
    """Undo :func:`ensure_bridge`."""
    for network in INSIDE_NETWORKS:
        run("ip", "route", "del", "unreachable", network, check=False)
    if Path(f"/sys/class/net/{BRIDGE}").exists():
        run("ip", "link", "del", BRIDGE)


def ensure_cable(state: State, plan: HostPlan, shape: Shape) -> bool:
    """Join the site to the bridge unless it is; whether that was done."""
    site, near = plan.site, port(plan.site)
    cable = state.cables.get(site)
    if cable is not None and cable.there:
        if _has(state, site, _OUTSIDE):
            return False
        end_cable(state, site)
    far = f"{near}-x"
    own = directory(STATE / "links")
    program = Path(__file__).with_name("cable.py")
    number = start(hosts.PYTHON, "-I", program, near, far, socket(site), log=own / site)

    def there() -> bool:
        return socket(site).exists() and Path(f"/sys/class/net/{far}").exists()

    socket(site).unlink(missing_ok=True)
    state.cables[site] = states.alive(number)
    state.save()
    wait(f"the link to {site} (see {own / site})", there, seconds=10, pause=0.01)
    for name in (near, far):
        run("ip", "link", "set", name, "addrgenmode", "none")
    run("ip", "link", "set", near, "master", BRIDGE, "up")
    assert plan.outside
    run("ip", "link", "set", far, "address", hardware_address(plan.outside), *_FRAME_BY_FRAME)
    run("ip", "link", "set", far, "netns", str(hosts.pid(state, site)), "name", _OUTSIDE)
    inside(state, site, "ip", "addr", "add", f"{plan.outside}/24", "dev", _OUTSIDE)
    inside(state, site, "ip", "link", "set", _OUTSIDE, "up")
    apply(state, site, shape)
    return True


def end_cable(state: State, site: str) -> None:
    """Take the link away; its interfaces go with it."""
    cable = state.cables.pop(site, None)
    if cable is not None and not processes.end(cable.pid, cable.started):
        raise BedError(f"the link to {site}: process {cable.pid} does not end")
    socket(site).unlink(missing_ok=True)
    state.save()


def ensure_lan(state: State, plan: HostPlan) -> bool:
    """Join an inner host to its site's own network unless it is; whether that was done.

    Only the site's door has a foot in it, and forwards nothing.
    """
    site = plan.site
    if not _has(state, site, _INSIDE):
        near = door(site).inside
        assert near
        own = hardware_address(near)
        inside(state, site, "ip", "link", "add", _INSIDE, "address", own, "type", "bridge")
        inside(state, site, "ip", "link", "set", _INSIDE, "addrgenmode", "none")
        inside(state, site, "ip", "addr", "add", f"{near}/24", "dev", _INSIDE)
        inside(state, site, "ip", "link", "set", _INSIDE, "up")
    name = f"p-{plan.name}"
    if _has(state, plan.name, "eth0"):
        if _has(state, site, name):
            return False
        # Its other end is in a door that was ended: the kernel takes it away with that door's
        # network, but in its own time, which may be seconds.
        inside(state, plan.name, "ip", "link", "del", "eth0", check=False)
    inside(state, site, "ip", "link", "del", name, check=False)
    # Made from outside, where both namespaces can be named.
    run("ip", "link", "add", name, "netns", str(hosts.pid(state, site)), "type", "veth",
        "peer", "name", "eth0", "netns", str(hosts.pid(state, plan.name)))  # fmt: skip
    inside(state, site, "ip", "link", "set", name, "master", _INSIDE, "up")
    assert plan.inside
    inside(state, plan.name, "ip", "link", "set", "eth0", "address", hardware_address(plan.inside))
    inside(state, plan.name, "ip", "addr", "add", f"{plan.inside}/24", "dev", "eth0")
    inside(state, plan.name, "ip", "link", "set", "eth0", "up")
    return True


def unplug(state: State, plan: HostPlan) -> None:
    """Take a host off its network at once."""
    if plan.outside:
        end_cable(state, plan.site)
    elif hosts.is_up(state, plan.site):
        inside(state, plan.site, "ip", "link", "del", f"p-{plan.name}", check=False)


def apply(state: State, site: str, shape: Shape) -> None:
    """Make the link like that, from the next frame on."""
    for lane, rate in (("to", shape.rate.to), ("from", shape.rate.from_)):
        device = port(site) if lane == "to" else _OUTSIDE
        words = ["tc", "qdisc", "replace", "dev", device, "root"]
        if rate:
            burst = max(_BURST_BYTES, int(rate * _BURST_SECONDS))
            words += ["tbf", "rate", f"{int(rate * 8)}bit", "burst", str(burst), "latency", "50ms"]
        else:
            words[2] = "del"
        if lane == "to":
            run(*words, check=bool(rate))
        else:
            inside(state, site, *words, check=bool(rate))
    tell(
        site,
        {
            "to": {
                "rate": shape.rate.to,
                "latency": shape.latency.to,
                "loss": shape.loss.to,
                "seed": 1,
            },
            "from": {
                "rate": shape.rate.from_,
                "latency": shape.latency.from_,
                "loss": shape.loss.from_,
                "seed": 2,
            },
        },
    )


def shape_of(site: str) -> Shape:
    """What the link is like now."""
    facts = tell(site, {})

    def both(name: str) -> Both:
        return Both(facts["to"][name], facts["from"][name])

    return Shape(rate=both("rate"), latency=both("latency"), loss=both("loss"))


def tell(site: str, question: dict[str, Any]) -> dict[str, Any]:
    """Ask the cable of ``site``; BedError if it is gone."""
    try:
        return control.ask(socket(site), question)
    except OSError as error:
        raise BedError(f"the link to {site} is gone; Bed.repair() makes it again") from error


def delivered(state: State, site: str) -> Crossed:
    """Bytes that came out of the link at either end, since it was made."""
    return Crossed(to=_bytes(state, site, "rx"), from_=_bytes(None, port(site), "rx"))


def payload(state: State, site: str) -> Crossed:
    """The same without the headers of every frame, as if all of them were of TCP."""

    def one(where: State | None, name: str) -> int:
        counted = _counted(where, name, "rx")
        return counted["bytes"] - HEADERS * counted["packets"]

    return Crossed(to=one(state, site), from_=one(None, port(site)))


def sent(state: State, site: str) -> Crossed:
    """Bytes that went into the link at either end; those that a fault lost included."""
    return Crossed(to=_bytes(None, port(site), "tx"), from_=_bytes(state, site, "tx"))


def socket(site: str) -> Path:
    """Where the cable of ``site`` listens."""
    return STATE / "links" / f"{site}.sock"


def inside(state: State, name: str, *words: str, check: bool = True) -> str:
    """Run a program of this machine with the host's network alone; what it printed."""
    enter = ("nsenter", f"--net=/proc/{hosts.pid(state, name)}/ns/net")
    return run(*enter, *words, check=check).stdout


def _has(state: State, name: str, device: str) -> bool:
    return f"{device}:" in Path(f"/proc/{hosts.pid(state, name)}/net/dev").read_text()


def _bytes(state: State | None, name: str, way: str) -> int:
    return _counted(state, name, way)["bytes"]


def _counted(state: State | None, name: str, way: str) -> dict[str, int]:
    """Counters of ``name``'s outer interface, or of the interface ``name`` of this machine."""
    words = ["ip", "-s", "-j", "link", "show", "dev", name if state is None else _OUTSIDE]
    text = run(*words).stdout if state is None else inside(state, name, *words)
    counters: dict[str, int] = json.loads(text)[0]["stats64"][way]
    return counters


def inner_hosts() -> list[HostPlan]:
    """Hosts that only their site's door reaches."""
    return [plan for plan in HOSTS if plan.outside is None]
