"""Ports of the loopback interface for servers that are told theirs before they start."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

_LOWEST = 10_000
#: Where Linux says which ports it gives to outgoing connections; elsewhere those from 32768 are taken for it.
_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port that nobody listens on.

    None of those that outgoing connections get: one of these may have it before the server does.

    Raises
    ------
    OSError
        If no such port is found.
    """
    highest = int(_OUTGOING.read_text().split()[0]) if _OUTGOING.exists() else 32_768
    for _ in range(1000):
        port = _LOWEST + secrets.randbelow(max(highest - _LOWEST, 1))
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
    raise OSError(f"no free port from {_LOWEST} to {highest - 1}")
