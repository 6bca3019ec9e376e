"""Gate: what stands before the S3 server and lets requests through, or does not.

A program of its own: ``gate.py HOST:PORT SERVER:PORT SOCKET``. It passes every byte on unchanged (a
signature holds for the address that the client was given) and understands just enough of HTTP to
see where one request ends. Over SOCKET it is given rules; the first that fits a request decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import socket
import struct
import sys
import time
from asyncio import StreamReader, StreamWriter
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Action = Literal["error", "reset", "delay", "hang"]
_LIMIT = 2**20


@dataclass(slots=True)
class Rule:
    """What becomes of requests that fit.

    Attributes
    ----------
    action
        ``error`` answers in the server's place; ``reset`` cuts the connection; ``delay`` waits
        first; ``hang`` says nothing until the rules change, and then cuts.
    method, path
        Regular expressions that fit a request: all of its method, some of its path and query.
    status, code
        Of the answer, for ``error``.
    seconds
        For ``delay``.
    after
        For ``reset``: bytes of a body, of the question or the answer, that pass before.
    times
        How often the rule holds; ``None`` for always.
    probability
        With which it holds each time.
    met
        How often it did.
    """

    action: Action
    method: str = ".*"
    path: str = ""
    status: int = 503
    code: str = "SlowDown"
    seconds: float = 0.0
    after: int = 0
    times: int | None = None
    probability: float = 1.0
    met: int = 0


class _Cut(Exception):
    """The connection ends here, by a rule or because an end is gone."""


class _Pace:
    """A rate shared by all connections."""

    def __init__(self) -> None:
        self.rate = 0.0
        self._free_at = 0.0

    async def take(self, nbytes: int) -> None:
        if self.rate:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + nbytes / self.rate
            await asyncio.sleep(self._free_at - now)


class Gate:
    """Rules, counters, and the connections that go through."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._rules: list[Rule] = []
        self._changed = asyncio.Event()
        self._dice = random.Random(0)
        self._pace = _Pace()
        self._requests: Counter[str] = Counter()

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Take new rules or a new rate, if there are any; what holds now."""
        if "rules" in question:
            self._rules = [Rule(**rule) for rule in question["rules"]]
            self._dice.seed(0)
            self._changed.set()
            self._changed = asyncio.Event()
        if "rate" in question:
            self._pace.rate = question["rate"]
        return {
            "rules": [asdict(rule) for rule in self._rules],
            "rate": self._pace.rate,
            "requests": dict(self._requests),
        }

    async def control(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Answer one question."""
        try:
            said = self.answer(json.loads(await reader.readline()))
        except (ValueError, KeyError, TypeError) as error:
            said = {"error": f"{type(error).__name__}: {error}"}
        writer.write(json.dumps(said).encode() + b"\n")
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Pass one client's requests on, one after the other."""
        upstream: tuple[StreamReader, StreamWriter] | None = None
        try:
            while (head := await _head(reader)) is not None:
                if upstream is None:
                    upstream = await asyncio.open_connection(*self._server, limit=_LIMIT)
                if not await self._request(head, (reader, writer), upstream):
                    break
        except (_Cut, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            _reset(writer)
        finally:
            for end in (writer, upstream[1] if upstream else None):
                if end is not None:
                    end.close()

    async def _request(
        self,
        head: bytes,
        client: tuple[StreamReader, StreamWriter],
        server: tuple[StreamReader, StreamWriter],
    ) -> bool:
        """Carry one request and its answer; whether the connection can take another."""
        line, fields = _parse(head)
        method, path = line.split(" ")[:2]
        self._requests[method] += 1
        rule = self._fitting(method, path)
        left: list[int] | None = None
        if rule is not None:
            if rule.action == "error":
                await self._refuse(rule, path, method, fields, client)
                return False
            if rule.action == "hang":
                await self._changed.wait()
                raise _Cut
            if rule.action == "delay":
                await asyncio.sleep(rule.seconds)
            else:
                left = [rule.after]
                if not rule.after:
                    raise _Cut
        server[1].write(head)
        body = asyncio.create_task(self._body(fields, client[0], server[1], left))
        reply = asyncio.create_task(self._reply(method, server[0], client[1], left))
        try:
            await asyncio.wait({body, reply}, return_when=asyncio.FIRST_COMPLETED)
            if body.done():
                body.result()
                return await reply
            # Who answers before the question ended will not read the rest of it.
            await reply
            return False
        finally:
            for task in (body, reply):
                task.cancel()
            await asyncio.gather(body, reply, return_exceptions=True)

    async def _reply(
        self, method: str, source: StreamReader, target: StreamWriter, left: list[int] | None
    ) -> bool:
        while True:
            head = await _head(source)
            if head is None:
                raise _Cut
            line, fields = _parse(head)
            status = int(line.split(" ")[1])
            target.write(head)
            if status >= 200:
                break
            await target.drain()
        bare = method == "HEAD" or status in (204, 304)
        ends = bare or "content-length" in fields or "transfer-encoding" in fields
        if not bare:
            await self._body(fields, source, target, left, to_the_end=not ends)
        await target.drain()
        return ends and fields.get("connection", "").lower() != "close"

    async def _body(
        self,
        fields: dict[str, str],
        source: StreamReader,
        target: StreamWriter,
        left: list[int] | None,
        *,
        to_the_end: bool = False,
    ) -> None:
        if "chunked" in fields.get("transfer-encoding", "").lower():
            while True:
                size = await source.readline()
                target.write(size)
                nbytes = int(size.split(b";")[0], 16)
                await self._pass(nbytes + 2, source, target, left)
                if not nbytes:
                    break
        elif to_the_end:
            await self._pass(None, source, target, left)
        else:
            await self._pass(int(fields.get("content-length", 0)), source, target, left)
        await target.drain()

    async def _pass(
        self,
        nbytes: int | None,
        source: StreamReader,
        target: StreamWriter,
        left: list[int] | None,
    ) -> None:
        while nbytes is None or nbytes > 0:
            most = 2**18 if nbytes is None else min(nbytes, 2**18)
            if left is not None:
                most = min(most, max(left[0], 1))
            if self._pace.rate:
                most = min(most, max(1024, int(self._pace.rate / 20)))
            piece = await source.read(most)
            if not piece:
                if nbytes is None:
                    return
                raise _Cut
            await self._pace.take(len(piece))
            target.write(piece)
            await target.drain()
            if nbytes is not None:
                nbytes -= len(piece)
            if left is not None:
                left[0] -= len(piece)
                if left[0] <= 0:
                    await asyncio.sleep(0.05)  # what was passed should arrive before the reset
                    raise _Cut

    async def _refuse(
        self,
        rule: Rule,
        path: str,
        method: str,
        fields: dict[str, str],
        client: tuple[StreamReader, StreamWriter],
    ) -> None:
        reader, writer = client
        if "100-continue" not in fields.get("expect", "").lower():
            # Unread, the body would turn our answer into a reset.
            left = int(fields.get("content-length", 0))
            while left > 0 and (piece := await reader.read(min(left, 2**18))):
                left -= len(piece)
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            f"<Error><Code>{rule.code}</Code><Message>A rule of the test bed says so.</Message>"
            f"<Resource>{path.split('?')[0]}</Resource><RequestId>0</RequestId></Error>"
        ).encode()
        writer.write(
            f"HTTP/1.1 {rule.status} {rule.code}\r\nContent-Type: application/xml\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
        )
        writer.write(b"" if method == "HEAD" else body)
        await writer.drain()

    def _fitting(self, method: str, path: str) -> Rule | None:
        for rule in self._rules:
            if rule.times is not None and rule.met >= rule.times:
                continue
            if not re.fullmatch(rule.method, method) or not re.search(rule.path, path):
                continue
            if self._dice.random() < rule.probability:
                rule.met += 1
                return rule
        return None


async def _head(reader: StreamReader) -> bytes | None:
    """A head with its empty line; None at the end of the connection."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None


def _parse(head: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return first, {name.strip().lower(): value.strip() for name, _, value in pairs}


def _reset(writer: StreamWriter) -> None:
    end = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def main(address: str, server: str, path: str) -> None:
    """Serve for ever."""
    host, _, port = server.rpartition(":")
    gate = Gate((host, int(port)))
    Path(path).unlink(missing_ok=True)
    controlled = await asyncio.start_unix_server(gate.control, path)
    Path(path).chmod(0o600)
    host, _, port = address.rpartition(":")
    served = await asyncio.start_server(gate.serve, host, int(port), limit=_LIMIT)
    async with controlled, served:
        await asyncio.gather(controlled.serve_forever(), served.serve_forever())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
