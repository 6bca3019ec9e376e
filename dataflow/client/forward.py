"""Forward: a port of the loopback interface that stays ours, whatever becomes of what lies behind it.

The port is not given back while the connection behind it is down: readers that were sent its address go
on showing a token there, and nobody else may come to listen where they do.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import structlog

log = structlog.get_logger(__name__)

_PIECE = 2**17

#: Opens a way to what lies behind: a reader and a writer of bytes, as asyncio has them.
Dial = Callable[[], Awaitable[tuple[Any, Any]]]


class Forward:
    """A port on 127.0.0.1 whose connections are carried to where ``dial`` leads at that moment."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._server: asyncio.Server | None = None
        self._carrying: set[asyncio.Task[Any]] = set()
        self._closed = False
        self.port = 0

    async def open(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> int:
        """Begin to listen; the port, which is the same for good."""
        if self._server is None:
            self._server = await asyncio.start_server(self._carry, host, 0, ssl=tls)
            self.port = int(self._server.sockets[0].getsockname()[1])
        return self.port

    async def close(self) -> None:
        """Give the port back and cut what goes through it."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)
        self._server = None

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        there: Any = None
        try:
            far, there = await self._dial()
            await _both(_pump(reader, there), _pump(far, writer))
        except asyncio.CancelledError:
            if not self._closed:  # of our own closing asyncio would complain aloud before 3.12
                raise
        except Exception as error:  # whoever is connected sees the end, and asks again
            log.debug("forward_cut", port=self.port, reason=str(error) or type(error).__name__)
        finally:
            self._carrying.discard(task)
            for end in (writer, there):
                if end is not None:
                    with suppress(Exception):
                        end.close()
            with suppress(Exception):
                await writer.wait_closed()


async def _both(one: Coroutine[Any, Any, None], other: Coroutine[Any, Any, None]) -> None:
    """Until both have ended; the failure of one ends the other."""
    async with asyncio.TaskGroup() as group:
        group.create_task(one)
        group.create_task(other)


async def _pump(source: Any, target: Any) -> None:
    while data := await source.read(_PIECE):
        target.write(data)
        await target.drain()
    with suppress(OSError, NotImplementedError):
        target.write_eof()


def inner_tls(certificate: str, key: str, *, server: bool) -> ssl.SSLContext:
    """TLS between two that have the same certificate and key (PEM), and nobody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # it names no host: to have its key is what counts
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=certificate)
    with TemporaryDirectory() as folder:  # the library reads files only; mode 0700
        file = Path(folder) / "pair.pem"
        file.touch(mode=0o600)
        file.write_text(certificate + key)
        context.load_cert_chain(file)
    return context
