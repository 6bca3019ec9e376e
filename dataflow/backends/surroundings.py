"""Where an agent is, as those see it that are to find it: Pods, and other hosts of its site."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from dataflow.config.records import Backend


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a Pod is told about itself by its manifest; all empty outside of a cluster.

    Attributes
    ----------
    pod, uid, namespace, address
        Of the Pod that the agent runs in.
    service_account
        Directory of its token; ``None`` for the usual one.
    """

    pod: str = ""
    uid: str = ""
    namespace: str = ""
    address: str = ""
    service_account: str | None = None


def read_surroundings(environ: Mapping[str, str]) -> Surroundings:
    """From the variables that the agent's manifest sets: ``POD_NAME``, ``POD_UID`` and so on."""
    return Surroundings(
        pod=environ.get("POD_NAME", ""),
        uid=environ.get("POD_UID", ""),
        namespace=environ.get("POD_NAMESPACE", ""),
        address=environ.get("POD_IP", ""),
    )


def is_ours(address: str) -> bool:
    """Whether this machine has this address, so that one can listen on it."""
    try:
        wanted = ipaddress.ip_address(address)
    except ValueError:
        return False
    return wanted.is_loopback or any(
        one.address == str(wanted) for found in psutil.net_if_addrs().values() for one in found
    )


def own_address(host: str, port: int) -> str:
    """The address by which this machine reaches another one; nothing is sent to it."""
    with contextlib.suppress(OSError):
        family, kind, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(where)
            return str(probe.getsockname()[0])
    return "127.0.0.1"


def tls_address(host: str, port: int) -> str:
    """The address of a scheduler, as Dask writes it.

    Examples
    --------
    >>> tls_address("fd00::1", 8786)
    'tls://[fd00::1]:8786'
    """
    return f"tls://{f'[{host}]' if ':' in host else host}:{port}"


def inner_host(backend: Backend, *, elsewhere: bool) -> str:
    """The address of this host by which those that run notebooks reach it.

    Parameters
    ----------
    elsewhere
        Whether they run on other hosts; otherwise nobody else can reach it.
    """
    if not elsewhere:
        return "127.0.0.1"
    settings = backend.settings
    name = getattr(settings, "scheduler_interface", None) or getattr(settings, "interface", None)
    for one in psutil.net_if_addrs().get(name or "", ()):
        if one.family == socket.AF_INET:
            return str(one.address)
    from distributed.utils import get_ip

    return str(get_ip())  # type: ignore[no-untyped-call]
