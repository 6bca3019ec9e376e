"""Overheard: what connections tell of the road to an agent before it has answered."""

from __future__ import annotations

import asyncio
from typing import Any

from dataflow.client.distance import of_socket
from dataflow.patience import Patience

#: What cannot come about without the agent's own machine, whatever proxies are between.
_FROM_THERE = (
    "connection.start_tls.complete",
    "http11.receive_response_headers.complete",
    "http11.receive_response_body.complete",
)
_CONNECTED = "connection.connect_tcp.complete"


class Overheard:
    """Tells a :class:`~dataflow.patience.Patience` what a client's connections go through.

    A question that waits for its answer over a road that has just become slow knows nothing of it.
    Others that connect at the same time do, a round trip after they have begun.

    Parameters
    ----------
    patience
        Of the agent.
    road
        Whether connections go all the way there, and not to a forwarded port of this machine.
    """

    def __init__(self, patience: Patience, *, road: bool) -> None:
        self._patience, self._road = patience, road

    async def __call__(self, event: str, facts: dict[str, Any]) -> None:
        """One event of a connection, as httpx tells them with its extension ``trace``."""
        if event in _FROM_THERE:
            self._patience.heard(asyncio.get_running_loop().time())
        elif event == _CONNECTED and self._road:
            connected = facts["return_value"].get_extra_info("socket")
            seconds = None if connected is None else of_socket(connected)
            if seconds is not None:
                self._patience.connected(seconds)
