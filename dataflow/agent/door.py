"""The door of an agent: nobody unknown, nothing too large, and errors that say nothing private.

One ASGI layer around the whole application, so that no route can be reached past it: not by a
route that forgot to ask, nor by a path that has no route.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dataflow import tracing
from dataflow.agent.auth import Authenticate, Identity
from dataflow.errors import SiteRefused, to_document
from dataflow.participant.audit import NOTED

if TYPE_CHECKING:
    from dataflow.agent.served import Served

#: What anybody may ask: whether the agent is alive, and nothing about it.
OPEN_PATHS = frozenset({"/v1/health"})

#: Answers that say no to somebody; what is not there is asked for every day, and is none.
REFUSED = frozenset({400, 401, 403, 413})
#: Who gets a long answer is asked again so often (s) whether he is still known.
AGAIN_SECONDS = 2.0
#: In the scope of a request: it was refused all the same, whatever it was answered; and why.
SUSPICIOUS, BECAUSE = "dataflow.suspicious", "dataflow.because"

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})

#: All that a stranger to the log may learn of an error that nobody foresaw.
FAILED = {"kind": "dataflow", "args": ["the agent failed to answer; its log says why"]}

log = structlog.get_logger(__name__)


class TooLarge(HTTPException):
    """The body of a request is longer than the agent takes."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"the body is longer than {limit} bytes")


class Door:
    """Ask who it is, count the body, catch what nobody caught.

    ``answered`` counts answers by method and status, refused ones too.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        authenticate: Authenticate,
        body_limit: int,
        answered: Counter[tuple[str, int]],
    ) -> None:
        self._app, self._authenticate, self._limit = app, authenticate, body_limit
        self._answered = answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError("an agent speaks HTTP only")
        noted: list[str] = []
        token = NOTED.set(noted)
        try:
            await self._admit(scope, receive, self._counting(scope, send, noted))
        finally:
            NOTED.reset(token)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = HTTPConnection(scope)
        if ".." in scope["path"].split("/"):
            scope[SUSPICIOUS] = True  # no client of ours writes that
        if scope["path"] not in OPEN_PATHS:
            try:
                identity = await self._authenticate(request)
                scope["dataflow.identity"] = identity
                structlog.contextvars.bind_contextvars(user=identity.user)
            except SiteRefused as refusal:
                scope[BECAUSE] = refusal.reason
                await _answer(send, 401, to_document(refusal), ((b"www-authenticate", b"Bearer"),))
                return
        declared = request.headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > self._limit:
            refusal_text = TooLarge(self._limit).detail
            await _answer(send, 413, {"kind": "config", "args": [refusal_text]})
            return
        with tracing.caused_by(request.headers.get):
            await self._pass(scope, _counted(receive, self._limit), send)

    def _counting(self, scope: Scope, send: Send, noted: list[str]) -> Send:
        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                refused = message["status"] in REFUSED or SUSPICIOUS in scope
                if refused and not noted:  # or the owner's gate has written it down already
                    self._write_down(scope, message["status"])
                # What it was called is the caller's word: nobody may fill our memory with names.
                method = scope["method"] if scope["method"] in _METHODS else "OTHER"
                self._answered[method, message["status"]] += 1
            await send(message)

        return counting

    def _write_down(self, scope: Scope, status: int) -> None:
        identity: Identity | None = scope.get("dataflow.identity")
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        path = scope["path"].encode("ascii", "backslashreplace").decode()
        because = scope.get(BECAUSE, "") or str(status)
        served: Served = scope["app"].state.participant
        served.refused(identity.user if identity else "", f"{method} {path}", because)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = complete = False
        asked = time.monotonic()

        async def watched(message: Message) -> None:
            nonlocal begun, complete, asked
            if (
                begun
                and scope["path"] not in OPEN_PATHS
                and time.monotonic() - asked > AGAIN_SECONDS
            ):
                # Who is let in once may read for hours, and may have lost his right to.
                await self._authenticate(HTTPConnection(scope))
                asked = time.monotonic()
            begun = True
            await send(message)
            complete = message["type"] == "http.response.body" and not message.get("more_body")

        try:
            await self._app(scope, receive, watched)
        except Exception:
            log.exception("request_failed", method=scope["method"], path=scope["path"])
            if not begun:
                await _answer(send, 500, FAILED)
            elif not complete:
                raise  # half an answer is out: the server must cut the connection


def identity_of(request: HTTPConnection) -> Identity:
    """Who sent this request; only behind the door."""
    identity: Identity = request.scope["dataflow.identity"]
    return identity


def _counted(receive: Receive, limit: int) -> Receive:
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise TooLarge(limit)
        return message

    return counted


async def _answer(
    send: Send, status: int, document: Any, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> None:
    body = json.dumps(document).encode()
    lines = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})
