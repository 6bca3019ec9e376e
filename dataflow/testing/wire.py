"""Wire: a TCP proxy that counts, slows, delays and cuts; the witness of what crossed.

A wire stands in front of one server on this machine. Whoever talks to the server talks to the
wire instead, so that its counters say what crossed without asking the program under test. It
therefore uses no other part of dataflow. Everything can be changed while it runs.

    with Wire("127.0.0.1:8080", rate=2.5e6, latency=0.02) as wire:
        urllib.request.urlopen(f"http://{wire.address}/")
        wire.bytes_out                      # what left the server through this wire

``out`` is always from the server to its clients, ``in`` towards the server. A setting is one
number for both directions, or a pair ``(in, out)``.

What a proxy can and cannot imitate: rate and delay are those of a link (shared by all of its
connections, and a new connection waits one round trip). Lost *packets* are the business of the
kernel's TCP and only show as delay; what a program sees of a bad link is a lost *message*, which
:attr:`Wire.loss` makes: a question that never arrives, or an answer that never comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Literal, NamedTuple, TypeVar

Mode = Literal["refuse", "blackhole"]
T = TypeVar("T")

#: Seconds of traffic that may pass at once after a pause: the depth of the token bucket.
BURST = 0.05
_CHUNK = 256 * 1024
_SMALLEST_CHUNK = 1024
_BUFFER = 512 * 1024
_MOST_UNDER_WAY = 64 * 1024 * 1024


class Both(NamedTuple):
    """One value per direction."""

    inward: float
    outward: float


class Crossed(NamedTuple):
    """Bytes that were handed over, per direction, since the wire was made."""

    inward: int
    outward: int

    def __sub__(self, other: object) -> Crossed:
        if not isinstance(other, Crossed):
            return NotImplemented
        return Crossed(self.inward - other.inward, self.outward - other.outward)


class Wire:
    """A TCP proxy on 127.0.0.1 in front of ``target``, served by a thread of its own.

    Parameters
    ----------
    target
        ``"host:port"``, a URL with a port, or a port on 127.0.0.1. May be changed later.
    rate
        Bytes per second, of payload, all connections together; ``None`` for no limit.
    latency
        Seconds that every byte is under way; they do not lower the rate.
    loss
        Probability that an exchange loses its question or (as often) its answer. The connection
        is then reset, since TCP itself would bring a lost packet again.
    seed
        Of the dice behind ``loss``.
    """

    def __init__(
        self,
        target: str | int,
        *,
        rate: float | tuple[float | None, float | None] | None = None,
        latency: float | tuple[float, float] = 0.0,
        loss: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._target = _host_and_port(target)
        self._toward_server, self._toward_client = _Lane(), _Lane()
        self._dice = random.Random(seed)
        self._loss = 0.0
        self.rate, self.latency, self.loss = rate, latency, loss
        self._connections: set[_Connection] = set()
        self._accepted = self._lost = 0
        self._listener: socket.socket | None = None
        self._closed = False
        # Keeps the port ours while nobody listens on it: a cut link must refuse, not answer as
        # some other program that was given the number meanwhile.
        self._reserved = _bound(0)
        self.port: int = self._reserved.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name=f"wire-{self.port}", daemon=True
        )
        self._thread.start()
        self._call(self._listen())

    # --- where it is ---------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """``127.0.0.1:port``: what clients are told."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """``http://127.0.0.1:port``."""
        return f"http://{self.address}"

    @property
    def target(self) -> str:
        """The server behind the wire; a change holds for new connections."""
        return "{}:{}".format(*self._target)

    @target.setter
    def target(self, target: str | int) -> None:
        self._target = _host_and_port(target)

    # --- what crossed --------------------------------------------------------------------------

    @property
    def bytes_in(self) -> int:
        """Bytes handed to the server."""
        return self._toward_server.crossed

    @property
    def bytes_out(self) -> int:
        """Bytes handed to clients: what left the server's side."""
        return self._toward_client.crossed

    @property
    def crossed(self) -> Crossed:
        """Both counters; differences of two readings are again such a pair."""
        return Crossed(self.bytes_in, self.bytes_out)

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._connections)

    @property
    def accepted(self) -> int:
        """Connections that were ever accepted."""
        return self._accepted

    @property
    def lost(self) -> int:
        """Exchanges that were lost on purpose."""
        return self._lost

    # --- what it is like -----------------------------------------------------------------------

    @property
    def rate(self) -> tuple[float | None, float | None]:
        """Bytes per second ``(in, out)``; ``None`` where there is no limit."""
        return self._toward_server.rate, self._toward_client.rate

    @rate.setter
    def rate(self, rate: float | tuple[float | None, float | None] | None) -> None:
        pair = rate if isinstance(rate, tuple) else (rate, rate)
        for value in pair:
            if value is not None and not value > 0:
                raise ValueError(f"a rate is more than 0 bytes/s or None, not {value!r}; see cut()")
        self._toward_server.set_rate(pair[0])
        self._toward_client.set_rate(pair[1])

    @property
    def latency(self) -> Both:
        """Seconds ``(in, out)``."""
        return Both(self._toward_server.latency, self._toward_client.latency)

    @latency.setter
    def latency(self, latency: float | tuple[float, float]) -> None:
        inward, outward = latency if isinstance(latency, tuple) else (latency, latency)
        if inward < 0 or outward < 0:
            raise ValueError(f"a latency is at least 0 s, not {latency!r}")
        self._toward_server.latency, self._toward_client.latency = inward, outward

    @property
    def loss(self) -> float:
        """Probability that an exchange is lost."""
        return self._loss

    @loss.setter
    def loss(self, loss: float) -> None:
        if not 0 <= loss <= 1:
            raise ValueError(f"a probability is between 0 and 1, not {loss!r}")
        self._loss = loss

    # --- faults --------------------------------------------------------------------------------

    def cut(self, mode: Mode = "refuse") -> None:
        """Cut the link.

        ``"refuse"``: connections are reset and new ones refused, as by a firewall or a machine
        without the program. ``"blackhole"``: nothing moves any more, and nobody is told; the
        connections that live until :meth:`heal` go on where they stood, as over a real cable.
        """
        self._call(self._cut(mode))

    def heal(self) -> None:
        """Undo :meth:`cut`."""
        self._call(self._heal())

    def reset(self) -> None:
        """Reset all connections once; new ones are welcome at once."""
        self._call(self._drop())

    def close(self) -> None:
        """End the thread and free the port; connections are reset."""
        if self._closed:
            return
        self._closed = True
        self._call(self._cut("refuse"))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()
        self._reserved.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"<Wire {self.address} → {self.target}: {self.bytes_in} bytes in, {self.bytes_out} out>"
        )

    # --- inside the loop -----------------------------------------------------------------------

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=30)

    async def _listen(self) -> None:
        listener = _bound(self.port)
        listener.setblocking(False)
        listener.listen(512)
        self._listener = listener
        self._welcome(listener)

    def _welcome(self, listener: socket.socket) -> None:
        if self._listener is listener:
            self._loop.add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        # Not awaited: a wait that is cancelled just as somebody connects would lose the socket.
        try:
            client, _ = listener.accept()
        except OSError:  # the client was gone already, or there are no descriptors left
            self._loop.remove_reader(listener)
            self._loop.call_later(0.05, self._welcome, listener)
            return
        client.setblocking(False)
        self._accepted += 1
        connection = _Connection(client)
        self._connections.add(connection)
        connection.task = self._loop.create_task(self._serve(connection))

    async def _serve(self, connection: _Connection) -> None:
        inward, outward = self._toward_server, self._toward_client
        client = connection.client
        try:
            # The handshake of TCP crosses the link both ways before the first byte does.
            await asyncio.sleep(inward.latency + outward.latency)
            server = connection.server = await self._connect()
            exchange = _Exchange(self._draw)
            async with asyncio.TaskGroup() as group:
                inward.carry(group, client, server, exchange.question)
                outward.carry(group, server, client, exchange.answer)
            connection.whole = True
        except* (OSError, _Lost):
            pass  # what a peer did, or the dice: the other side sees a reset
        finally:
            connection.close()
            self._connections.discard(connection)

    async def _connect(self) -> socket.socket:
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        _tune(server)
        server.setblocking(False)
        try:
            await self._loop.sock_connect(server, self._target)
        except BaseException:
            server.close()
            raise
        return server

    def _draw(self) -> Literal["question", "answer"] | None:
        if self._dice.random() >= self._loss:
            return None
        self._lost += 1
        return "question" if self._dice.random() < 0.5 else "answer"

    async def _cut(self, mode: Mode) -> None:
        if mode == "blackhole":
            self._toward_server.open.clear()
            self._toward_client.open.clear()
            return
        if mode != "refuse":
            raise ValueError(f"a link is cut by 'refuse' or 'blackhole', not {mode!r}")
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        await self._drop()

    async def _heal(self) -> None:
        self._toward_server.open.set()
        self._toward_client.open.set()
        if self._listener is None:
            await self._listen()

    async def _drop(self) -> None:
        dropped = [*self._connections]
        tasks = [connection.task for connection in dropped if connection.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in dropped:  # also of a task that was ended before it began
            connection.close()
            self._connections.discard(connection)


class _Lost(Exception):
    """The dice said that a message does not arrive."""


class _Exchange:
    """One question and its answer on a connection, as far as a proxy can tell them apart.

    A question begins where the client speaks after the server did (or first of all).
    """

    def __init__(self, draw: Callable[[], Literal["question", "answer"] | None]) -> None:
        self._draw = draw
        self._asking = False
        self._fate: Literal["question", "answer"] | None = None

    def question(self) -> None:
        if not self._asking:
            self._asking, self._fate = True, self._draw()
        if self._fate == "question":
            raise _Lost

    def answer(self) -> None:
        self._asking = False
        if self._fate == "answer":
            raise _Lost


class _Connection:
    """The two sockets of one connection through the wire."""

    def __init__(self, client: socket.socket) -> None:
        _tune(client)
        self.client = client
        self.server: socket.socket | None = None
        self.task: asyncio.Task[None] | None = None
        self.whole = False

    def close(self) -> None:
        """Close both; by a reset unless all was said: nobody may take a fault for the end."""
        for end in (self.client, self.server):
            if end is None:
                continue
            if not self.whole:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()


class _Lane:
    """One direction of the link, shared by all connections."""

    def __init__(self) -> None:
        self.rate: float | None = None
        self.latency = 0.0
        self.crossed = 0
        self.open = asyncio.Event()
        self.open.set()
        self._free_at = 0.0

    def set_rate(self, rate: float | None) -> None:
        self.rate, self._free_at = rate, 0.0

    def carry(
        self,
        group: asyncio.TaskGroup,
        source: socket.socket,
        target: socket.socket,
        message: Callable[[], None],
    ) -> None:
        """Hand over all that ``source`` says to ``target``, then the end of it."""
        line = _Line()
        group.create_task(self._take(source, line, message))
        group.create_task(self._give(line, target))

    async def _take(self, source: socket.socket, line: _Line, message: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            data = await loop.sock_recv(source, self._chunk())
            await self.open.wait()
            if not data:
                line.put(time.monotonic() + self.latency, b"")
                return
            message()
            await self._pace(len(data))
            line.put(time.monotonic() + self.latency, data)
            # A long link holds much; a delay must not lower the rate.
            under_way = (self.rate or 1e9) * self.latency
            await line.room(_BUFFER + int(min(under_way, _MOST_UNDER_WAY)))

    async def _give(self, line: _Line, target: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await line.get()
            wait = due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            await self.open.wait()
            if not data:
                target.shutdown(socket.SHUT_WR)
                return
            view = memoryview(data)
            while view:
                sent = await _send(loop, target, view)
                self.crossed += sent
                view = view[sent:]

    def _chunk(self) -> int:
        """Small enough that one piece of a slow link's traffic is no long wait for the next."""
        if self.rate is None:
            return _CHUNK
        return int(min(_CHUNK, max(_SMALLEST_CHUNK, self.rate * BURST / 5)))

    async def _pace(self, nbytes: int) -> None:
        """Wait for this many bytes' turn; a change of the rate ends the wait.

        The moment at which the link is free again is computed, not slept: a late wake-up is made
        good by the next piece, up to the depth of the bucket.
        """
        rate = self.rate
        if rate is None:
            return
        turn = self._free_at = max(self._free_at, time.monotonic() - BURST) + nbytes / rate
        while (wait := turn - time.monotonic()) > 0 and self.rate == rate:
            await asyncio.sleep(min(wait, 0.1))


class _Line:
    """What is under way: bytes with the moment of their arrival, in order."""

    def __init__(self) -> None:
        self._items: deque[tuple[float, bytes]] = deque()
        self._nbytes = 0
        self._changed = asyncio.Event()

    def put(self, due: float, data: bytes) -> None:
        self._items.append((due, data))
        self._nbytes += len(data)
        self._changed.set()

    async def get(self) -> tuple[float, bytes]:
        while not self._items:
            self._changed.clear()
            await self._changed.wait()
        due, data = self._items.popleft()
        self._nbytes -= len(data)
        self._changed.set()
        return due, data

    async def room(self, nbytes: int) -> None:
        while self._nbytes > nbytes:
            self._changed.clear()
            await self._changed.wait()


async def _send(loop: asyncio.AbstractEventLoop, target: socket.socket, data: memoryview) -> int:
    """Send some of ``data`` and say how much, so that a cut in the middle is counted exactly."""
    while True:
        try:
            return target.send(data)
        except BlockingIOError:
            ready: asyncio.Future[None] = loop.create_future()
            loop.add_writer(target, _wake, ready)
            try:
                await ready
            finally:
                loop.remove_writer(target)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _tune(end: socket.socket) -> None:
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Modest buffers: what lies in them has crossed for the sender and not for the counter.
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)


def _bound(port: int) -> socket.socket:
    end = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        end.setblocking(False)
        end.bind(("127.0.0.1", port))
    except BaseException:
        end.close()
        raise
    return end


def _host_and_port(target: str | int) -> tuple[str, int]:
    if isinstance(target, int):
        return "127.0.0.1", target
    host, _, port = target.split("://")[-1].split("/")[0].rpartition(":")
    if not port.isdigit():
        raise ValueError(f"{target!r} names no port")
    return host or "127.0.0.1", int(port)
