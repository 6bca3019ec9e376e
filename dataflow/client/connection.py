"""Connection: requests to one agent; every failure a typed error, within a bounded time."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import ssl
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterator,
    Mapping,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

import httpx2

from dataflow import tracing
from dataflow.client.forward import Forward
from dataflow.client.overheard import Overheard
from dataflow.client.ssh import SshReach
from dataflow.documents import from_json
from dataflow.errors import (
    ConfigError,
    DataflowError,
    SiteRefused,
    SiteUnreachable,
    from_document,
)
from dataflow.patience import BEARABLE, LONGEST, STEP, Patience

T = TypeVar("T")

#: Seconds for a connection to come about, and what a long poll may take beyond its waiting time.
CONNECT_SECONDS = 2.0
POLL_GRACE = 5.0
#: How often one question is asked whose connection is closed, or breaks, before it is answered.
_BROKEN_TRIES = 4
#: Longest waiting time (s) of one request; agents refuse more.
LONGEST_WAIT = 60.0
#: The slowest road (bytes/s) on which the body of a request is still given its time.
SLOWEST = 100e3
#: Idle connections are given up before the agent does (75 s), so that none is found dead.
_IDLE_SECONDS = 30.0

_UNKNOWN_ORDER = "unknown-order"


class UnknownOrder(Exception):
    """The site does not know an order."""


@dataclass(frozen=True, slots=True)
class Stream:
    """The body of a request, piece by piece: ``nbytes`` in all, and not to be had twice."""

    pieces: AsyncIterable[bytes]
    nbytes: int


class Connection:
    """A pool of connections to one agent, for one event loop.

    Parameters
    ----------
    name
        What to call the site in errors.
    address
        ``http://…``, ``https://…``, ``unix:///path``, or with ``reach`` ``ssh://…``.
    reach
        The way to an agent that is reached by SSH; its token is used then.
    tls
        Who is talked to, for ``https://…``; by default whoever has a certificate of the address by an
        authority that this machine believes.
    token, timeout, transport, patience, there
        As for :class:`~dataflow.client.AgentClient`.

    Raises
    ------
    ConfigError
        If the address is of another kind.
    """

    def __init__(
        self,
        name: str,
        address: str,
        token: str | None,
        *,
        timeout: float,
        transport: httpx2.AsyncBaseTransport | None = None,
        reach: SshReach | None = None,
        tls: ssl.SSLContext | None = None,
        patience: Patience | None = None,
        there: Callable[[], bool] = lambda: False,
    ) -> None:
        self.patience, self._there = patience or Patience(), there
        self._overheard = Overheard(self.patience, road=reach is None)
        parts = urlsplit(address)
        schemes = ("http", "https", "unix") if reach is None else ("ssh",)
        if parts.scheme not in schemes or not (parts.netloc or parts.path):
            raise ConfigError(
                f"cannot reach an agent at {_shown(address)!r}: need http://, https:// or unix:///"
            )
        self.name, self.address, self.timeout = name, _shown(address), timeout
        self._token = _Bearer(token)
        socket = f"/{unquote(parts.path).lstrip('/')}" if parts.scheme == "unix" else None
        self._reach = reach
        self._url = None if socket or reach is not None else self.address.rstrip("/")
        self._tls = tls
        self._forward = None if tls is None else Forward(self._dial)
        limits = httpx2.Limits(
            max_connections=None, max_keepalive_connections=32, keepalive_expiry=_IDLE_SECONDS
        )
        self._http = httpx2.AsyncClient(
            auth=self._token,
            timeout=httpx2.Timeout(timeout, connect=CONNECT_SECONDS),
            trust_env=not (socket or reach is not None or is_loopback(parts.hostname)),
            limits=limits,
            verify=True if tls is None else tls,
            transport=transport
            or (httpx2.AsyncHTTPTransport(uds=socket, limits=limits) if socket else None),
        )

    @property
    def url(self) -> str | None:
        """What libraries may add paths to; ``None`` for a Unix socket, or while SSH does not hold.

        They would talk to anybody whom an authority knows. So where one certificate alone counts, it is
        a port of ours that leads to its owner, from when we are :meth:`ready`.
        """
        if self._forward is not None:
            return f"http://127.0.0.1:{self._forward.port}" if self._forward.port else None
        if self._reach is None:
            return self._url
        door = self._reach.door
        return None if door is None else door.url

    async def ready(self) -> None:
        """Connect by SSH, if that is the way; other ways are tried when they are used."""
        await self._base()
        if self._forward is not None:
            await self._forward.open()

    async def _dial(self) -> tuple[Any, Any]:
        parts = urlsplit(self.address)
        async with asyncio.timeout(self.patience.stretched(CONNECT_SECONDS)):
            return await asyncio.open_connection(parts.hostname, parts.port or 443, ssl=self._tls)

    async def _base(self) -> str:
        """What paths are added to, once the agent can be reached there."""
        if self._reach is None:
            return self._url or "http://agent"
        door = await self._reach.ready()
        self._token.show(door.token)
        return door.url

    async def close(self) -> None:
        await self._http.aclose()
        if self._forward is not None:
            await self._forward.close()

    def headers(self) -> dict[str, str]:
        """The header that shows the token."""
        return dict(self._token.headers)

    def __repr__(self) -> str:
        return f"<Connection {self.name} {self.address}>"

    # --- requests -----------------------------------------------------------------------------

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float | None = None,
        again: bool = False,
        bear: bool = False,
        hold: float | None = None,
    ) -> bytes:
        """The body of the answer.

        Parameters
        ----------
        body
            Bytes as they are, also as a :class:`Stream`; anything else as JSON.
        seconds
            Time for the answer once connected, instead of the usual.
        again
            Asking twice does no harm: one more try is made if the agent had closed a kept
            connection, which is found out only by using it.
        bear
            The road may have become slow a moment ago: a try that gets no connection in time is
            followed by a longer one, for some seconds, and as long as the site is known to be
            there. So is one that gets no answer, if asking twice does no harm.
        hold
            Seconds that the agent may hold its answer back, besides.

        Raises
        ------
        SiteUnreachable, SiteRefused
            No answer in time; or a no.
        DataflowError
            The error that the answer carries.
        UnknownOrder
            If the answer says so.
        """
        content: bytes | AsyncIterable[bytes] | None = body if isinstance(body, bytes) else None
        sent = {**(headers or {}), **tracing.headers()}
        nbytes = len(content) if isinstance(content, bytes) else 0
        if isinstance(body, Stream):
            content, nbytes = body.pieces, body.nbytes
            sent["content-length"] = str(nbytes)
        elif body is not None and content is None:
            content = json.dumps(body).encode()
            nbytes = len(content)
            sent["content-type"] = "application/json"
        twice = (again or method == "GET") and not isinstance(body, Stream)
        patience, loop = self.patience, asyncio.get_running_loop()
        at_once = seconds is None and hold is None and not nbytes
        if hold is not None:
            seconds = hold + POLL_GRACE
        usual = (self.timeout if seconds is None else seconds) + patience.more
        usual += nbytes / SLOWEST
        started, tries = loop.time(), 0
        while True:
            base = await self._base()
            longer = CONNECT_SECONDS * STEP**tries
            connect = max(patience.stretched(CONNECT_SECONDS), min(longer, LONGEST))
            limit = connect + usual + (connect - CONNECT_SECONDS if tries else 0.0)
            begun = loop.time()
            try:
                request = self._http.build_request(
                    method,
                    base + path,
                    params=query,
                    content=content,
                    headers=sent,
                    timeout=httpx2.Timeout(limit, connect=connect),
                    extensions={"trace": self._overheard},
                )
                async with asyncio.timeout(limit) as end, self._as_long_as_there(end, tries):
                    response = await self._sent(request, twice=twice)
                break
            except (httpx2.HTTPError, httpx2.InvalidURL, OSError, RuntimeError) as error:
                failed = self._unreachable(error, connect, limit)
                late = isinstance(error, httpx2.ConnectTimeout)
                late |= twice and isinstance(error, TimeoutError | httpx2.TimeoutException)
                if not (late and bear and self._bears(loop.time() - started)):
                    raise failed from error
            tries += 1
        if at_once:
            patience.answered(loop.time() - begun)
        elif hold is not None:
            patience.took(loop.time() - begun - hold)
        self._check(response)
        return response.content

    def _bears(self, seconds: float) -> bool:
        return seconds < BEARABLE or (seconds < LONGEST and self._there())

    @asynccontextmanager
    async def _as_long_as_there(self, end: asyncio.Timeout, tries: int) -> AsyncGenerator[None]:
        """End a try that is longer than usual once the site is known to be gone."""
        loop, watch = asyncio.get_running_loop(), None

        def look() -> None:
            nonlocal watch
            if loop.time() - begun >= BEARABLE and not self._there():
                end.reschedule(loop.time())
            else:
                watch = loop.call_later(1.0, look)

        begun = loop.time()
        if tries:
            look()
        try:
            yield
        finally:
            if watch is not None:
                watch.cancel()

    async def _sent(self, request: httpx2.Request, *, twice: bool) -> httpx2.Response:
        """What is answered; asked again over new connections where one is closed or breaks."""
        for left in reversed(range(_BROKEN_TRIES if twice else 1)):
            try:
                return await self._http.send(request)
            except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError):
                if not left:
                    raise
        raise AssertionError("unreachable")

    async def record(
        self,
        method: str,
        path: str,
        cls: type[T],
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float | None = None,
        again: bool = False,
        bear: bool = False,
        hold: float | None = None,
    ) -> T:
        """The answer as a record, or as a list of them; else as :meth:`ask`."""
        answer = await self.ask(
            method,
            path,
            body,
            query=query,
            headers=headers,
            seconds=seconds,
            again=again,
            bear=bear,
            hold=hold,
        )
        try:
            return from_json(cls, answer)
        except ValueError as error:  # of pydantic; its text would quote the whole answer
            raise SiteUnreachable(self.name, f"its answer to {path} is not understood") from error

    async def poll(self, path: str, cls: type[T], wait: float, **query: Any) -> T:
        """The same for an answer that may wait up to ``wait`` s for news."""
        wait = min(max(wait, 0.0), LONGEST_WAIT)
        return await self.record("GET", path, cls, query={**query, "wait": wait}, hold=wait)

    @asynccontextmanager
    async def stream(
        self, path: str, headers: Mapping[str, str]
    ) -> AsyncGenerator[AsyncIterator[bytes]]:
        """The body of the answer to a GET, piece by piece; as long as pieces come, it may take."""
        base = await self._base()
        # As they lie in the store: a proxy on the way may not pack them.
        connect = self.patience.stretched(CONNECT_SECONDS)
        seconds = self.timeout + self.patience.more
        request = self._http.build_request(
            "GET",
            base + path,
            headers={**headers, **tracing.headers(), "accept-encoding": "identity"},
            timeout=httpx2.Timeout(seconds, connect=connect),
            extensions={"trace": self._overheard},
        )
        try:
            async with asyncio.timeout(connect + seconds):
                response = await self._http.send(request, stream=True)
                if not response.is_success:
                    await response.aread()
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, RuntimeError) as error:
            raise self._unreachable(error, connect, seconds) from error
        try:
            self._check(response)
            if "range" in headers and response.status_code != 206:
                raise SiteUnreachable(self.name, "it does not serve ranges of bytes")
            yield self._pieces(response)
        finally:
            await response.aclose()

    async def _pieces(self, response: httpx2.Response) -> AsyncIterator[bytes]:
        try:
            async for piece in response.aiter_raw():
                yield piece
        except (httpx2.HTTPError, OSError) as error:
            raise self._unreachable(error) from error

    # --- errors -------------------------------------------------------------------------------

    def _unreachable(
        self, error: Exception, connect: float = CONNECT_SECONDS, limit: float = 0.0
    ) -> SiteUnreachable:
        if self._reach is not None:
            self._reach.doubt()
        if isinstance(error, TimeoutError):
            return SiteUnreachable(self.name, f"no answer within {limit:.0f} s")
        if isinstance(error, httpx2.ConnectTimeout):
            self.patience.failed()
            return SiteUnreachable(self.name, f"no connection within {connect:g} s")
        text = str(error).strip() or type(error).__name__
        if self._tls is not None and isinstance(
            error, httpx2.RemoteProtocolError | httpx2.ReadError
        ):  # most servers hang up without a word on a certificate that they do not know
            text += "; perhaps it does not know the certificate of this site"
        return SiteUnreachable(self.name, f"{text} ({self.address})")

    def _check(self, response: httpx2.Response) -> None:
        """Raise the error that an answer carries, if it carries one."""
        if response.is_success:
            return
        status = response.status_code
        error = _carried(response)
        if status == 401 or (status == 403 and error is None):
            said = error.args[-1] if error is not None and error.args else f"HTTP {status}"
            raise SiteRefused(self.name, str(said))
        if error is None:
            raise SiteUnreachable(
                self.name, f"what answers at {self.address} is no agent of ours (HTTP {status})"
            )
        raise error


class _Bearer(httpx2.Auth):
    """Shows the token; keeps it out of every text, and netrc files out of our requests."""

    def __init__(self, token: str | None) -> None:
        self.headers: dict[str, str] = {}
        self.show(token)

    def show(self, token: str | None) -> None:
        self.headers = {"authorization": f"Bearer {token}"} if token else {}

    def auth_flow(self, request: httpx2.Request) -> Iterator[httpx2.Request]:  # type: ignore[override]
        request.headers.update(self.headers)
        yield request

    def __repr__(self) -> str:
        return f"<{'a' if self.headers else 'no'} bearer token>"


def _carried(response: httpx2.Response) -> DataflowError | UnknownOrder | None:
    try:
        document = response.json()
    except ValueError:
        return None
    if not isinstance(document, dict) or not isinstance(document.get("args"), list):
        return None
    if document.get("kind") == _UNKNOWN_ORDER:
        return UnknownOrder(*document["args"])
    if response.status_code == 404 and document.get("kind") == DataflowError.kind:
        return None  # an agent, but of another version: it has no such route
    return from_document(document)


def segment(word: str) -> str:
    """A word as one segment of a path, whatever is in it."""
    quoted = quote(word, safe="")
    return quoted.replace(".", "%2E") if set(word) <= {"."} else quoted


def _shown(address: str) -> str:
    """An address without the name and password that somebody may have put into it."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def is_loopback(host: str | None) -> bool:
    """Whether a host is this machine by its loopback interface."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
