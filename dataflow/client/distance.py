"""Distance: how far the machine is on which an agent answers, whatever that machine is busy with."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any
from urllib.parse import urlsplit

#: Seconds after which nobody is there.
GIVEN_UP_SECONDS = 10.0
#: Where Linux says in its ``tcp_info`` how long (microseconds) a segment and its answer took.
_ROUND_TRIP_AT = 68
_PORTS = {"http": 80, "https": 443}


async def distance(address: str) -> float | None:
    """Seconds there and back, as the kernels at both ends have it from the opening of a connection.

    No process has a part in it: the time of a request grows with all that its agent has to do.
    ``None`` if there is no connection, or none of this kind: by SSH, by a socket, on a system that
    does not tell.
    """
    parts = urlsplit(address)
    if parts.scheme not in _PORTS or parts.hostname is None:
        return None
    try:
        async with asyncio.timeout(GIVEN_UP_SECONDS):
            port = parts.port or _PORTS[parts.scheme]
            _, writer = await asyncio.open_connection(parts.hostname, port)
            found = of_socket(writer.get_extra_info("socket"))
            writer.transport.abort()
            await writer.wait_closed()
    except (OSError, ValueError):  # TimeoutError is one of them
        return None
    return found


def of_socket(connected: Any) -> float | None:
    """Seconds there and back of a connection, as its kernel has them; ``None`` if it does not say."""
    option = getattr(socket, "TCP_INFO", None)
    if option is None:
        return None
    try:
        told = connected.getsockopt(socket.IPPROTO_TCP, option, _ROUND_TRIP_AT + 4)
    except (AttributeError, OSError):  # closed meanwhile, or nothing of the kind
        return None
    if len(told) < _ROUND_TRIP_AT + 4:
        return None
    microseconds: int = struct.unpack_from("@I", told, _ROUND_TRIP_AT)[0]
    return microseconds / 1e6 or None
