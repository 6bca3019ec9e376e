"""Look: single questions to an address, and all that the answers say about the way there.

An :class:`~dataflow.client.AgentClient` wants to get on; this wants to know at which step it would
fail. So whatever answers is an answer here, also what is no agent.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal, Protocol
from urllib.parse import unquote, urlsplit

import httpx2

from dataflow.client.connection import is_loopback

Step = Literal["connect", "tls", "answer"]

#: Finest step (s) of the header that tells a server's clock, and how long servers keep one for.
DATE_STEP = 1.0


class NoAnswer(Exception):
    """Nothing came back; ``step`` says how far it got."""

    def __init__(self, step: Step, reason: str) -> None:
        self.step, self.reason = step, reason
        super().__init__(step, reason)

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """An answer.

    Attributes
    ----------
    status, document
        Of HTTP, and the body if it is JSON.
    date
        The header with the server's clock, in seconds since the epoch; ``None`` without one.
    sent, received
        By our clock.
    seconds
        From question to answer, on a connection that stood if it was not the first.
    """

    status: int
    document: Any
    date: float | None
    sent: float
    received: float
    seconds: float

    def ahead(self, told: float | None = None) -> tuple[float, float] | None:
        """Least and most seconds by which the server's clock is ahead of ours.

        Parameters
        ----------
        told
            What the server said in its answer, which is finer than the header.
        """
        if told is not None:
            return told - self.received, told - self.sent
        if self.date is None:
            return None
        # The header is cut to whole seconds, and some servers make it once a second only.
        return self.date - self.received, self.date + 2 * DATE_STEP - self.sent


class Ask(Protocol):
    """A question to the address that was opened."""

    def __call__(self, path: str, *, token: str | None = None) -> Awaitable[Look]: ...


@asynccontextmanager
async def looking(
    address: str, *, seconds: float, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Ask]:
    """A way to ask ``http://…``, ``https://…`` or ``unix:///…``; each question has so many seconds.

    With ``tls`` it says who may answer, instead of an authority that this machine believes.
    What is yielded raises :class:`NoAnswer`.
    """
    parts = urlsplit(address)
    socket = f"/{unquote(parts.path).lstrip('/')}" if parts.scheme == "unix" else None
    base = "http://agent" if socket else address.rstrip("/")
    async with httpx2.AsyncClient(
        auth=_Nobody(),
        timeout=seconds,
        verify=True if tls is None else tls,
        trust_env=not (socket or is_loopback(parts.hostname)),
        transport=httpx2.AsyncHTTPTransport(uds=socket) if socket else None,
    ) as client:

        async def ask(path: str, *, token: str | None = None) -> Look:
            headers = {"authorization": f"Bearer {token}"} if token else {}
            sent, began = time.time(), time.monotonic()
            try:
                async with asyncio.timeout(seconds):
                    answer = await client.get(base + path, headers=headers)
            except (TimeoutError, httpx2.TimeoutException) as error:
                raise NoAnswer(_step(error), f"no answer within {seconds:g} s") from error
            except (httpx2.HTTPError, httpx2.InvalidURL, OSError, RuntimeError) as error:
                raise NoAnswer(_step(error), _text(error)) from error
            return Look(
                status=answer.status_code,
                document=_json(answer),
                date=_date(answer.headers),
                sent=sent,
                received=time.time(),
                seconds=time.monotonic() - began,
            )

        yield ask


class _Nobody(httpx2.Auth):
    """Keeps netrc files out of our requests."""

    def auth_flow(self, request: httpx2.Request) -> Iterator[httpx2.Request]:  # type: ignore[override]
        yield request


def _step(error: BaseException) -> Step:
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ssl.SSLError):
            return "tls"
        found = found.__cause__ or found.__context__
    return "connect" if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout) else "answer"


def _text(error: BaseException) -> str:
    """The system's own words, which libraries wrap; else those of the error."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.strerror and not isinstance(found, ssl.SSLError):
            return found.strerror
        found = found.__cause__ or found.__context__
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _json(answer: httpx2.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _date(headers: Mapping[str, str]) -> float | None:
    try:
        return parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return None
