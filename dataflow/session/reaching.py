"""Reaching: agents behind SSH are being started while this process still imports what it needs.

Both take about a second. A session that was imported first would then wait for nothing else.
"""

from __future__ import annotations

import asyncio

from dataflow.client.reaches import reaching
from dataflow.config import Federation
from dataflow.session.loop import LoopThread
from dataflow.storage import credentials as secrets

#: Logins that take longer than this (s) go on beside what is imported meanwhile.
LOGINS_SECONDS = 1.0


class Reaching:
    """An event loop, and on it the ways to all sites behind SSH.

    Who takes it over closes both; until then :meth:`close` does.

    Raises
    ------
    ConfigError
        If an address is wrong, or a credential that the site file names is not there.
    """

    def __init__(self, federation: Federation) -> None:
        for peer in federation.peers:  # before anything is asked of anybody
            secrets.resolve(peer.credentials)
        self.reaches = reaching(federation)
        self.loop = LoopThread()

    def begin(self) -> None:
        """Log in everywhere, and have agents started; what fails is told to who asks again."""
        if not self.reaches:
            return
        try:
            self.loop.run(self._begin())
        except BaseException:
            self.close()
            raise

    async def _begin(self) -> None:
        logins = [asyncio.ensure_future(reach.begin()) for reach in self.reaches.values()]
        _, late = await asyncio.wait(logins, timeout=LOGINS_SECONDS)
        for login in late:  # of which nobody waits for the end any more
            login.cancel()
        await asyncio.gather(*logins, return_exceptions=True)

    def close(self) -> None:
        """Give all connections up, and the loop."""
        try:
            self.loop.run(self._close())
        finally:
            self.loop.close()

    async def _close(self) -> None:
        await asyncio.gather(*(reach.close() for reach in self.reaches.values()))
