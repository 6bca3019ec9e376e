"""AgentClient: another site's agent, as methods.

What comes back is records and typed errors; what goes wrong on the way becomes
:class:`~dataflow.errors.SiteUnreachable` within a bounded time. One client keeps one pool of
connections, for one event loop.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar
from urllib.parse import quote, urlsplit

import httpx2

from dataflow.datasets import Dataset
from dataflow.documents import from_json, to_document
from dataflow.errors import (
    ConfigError,
    DataflowError,
    SiteRefused,
    SiteUnreachable,
    from_document,
)
from dataflow.execution.events import Event, JobCreated, Order, Report
from dataflow.sites import Site

T = TypeVar("T")
What = Literal["cancel", "suspend", "resume"]

#: Seconds for a connection to come about, and what a long poll may take beyond its waiting time.
CONNECT_SECONDS = 2.0
POLL_GRACE = 5.0
#: The slowest road (bytes/s) on which the body of a request is still given its time.
SLOWEST = 100e3
#: Idle connections are given up before the agent does (75 s), so that none is found dead.
_IDLE_SECONDS = 30.0

_UNIX = "unix:"
_UNKNOWN_ORDER = "unknown-order"


class AgentClient:
    """What may be asked of one site's agent.

    Parameters
    ----------
    site
        The site's record, or just its address; then the name is learned by :meth:`hello`.
    token
        Bearer token, shown with every request; never part of a text or an error.
    timeout
        Seconds that an ordinary request may take once connected.
    caller
        Name of the site that asks, for the other site's ledger.
    transport
        In place of the network, for tests.
    """

    def __init__(
        self,
        site: Site | str,
        token: str | None = None,
        *,
        timeout: float = 10.0,
        caller: str = "",
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        address = site.address if isinstance(site, Site) else site
        if not address:
            raise ConfigError("this site has no address; it is served by its own process only")
        address = _without_userinfo(address)
        self.address = address
        self.name = site.name if isinstance(site, Site) else self.address
        self._timeout = timeout
        self._bearer = _Bearer(token)
        self._caller = caller
        socket = _socket_path(address)
        self._base = "http://agent" if socket else address.rstrip("/")
        self._data_base = None if socket else self._base
        loopback = socket is not None or _is_loopback(self._base)
        limits = httpx2.Limits(
            max_connections=None, max_keepalive_connections=32, keepalive_expiry=_IDLE_SECONDS
        )
        self._http = httpx2.AsyncClient(
            auth=self._bearer,
            timeout=httpx2.Timeout(timeout, connect=CONNECT_SECONDS),
            trust_env=not loopback,
            limits=limits,
            transport=transport
            or (httpx2.AsyncHTTPTransport(uds=socket, limits=limits) if socket else None),
        )

    async def close(self) -> None:
        """Give up all connections; every later request raises."""
        await self._http.aclose()

    async def __aenter__(self) -> AgentClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AgentClient {self.name} {self.address}>"

    # --- the site itself ----------------------------------------------------------------------

    async def hello(self) -> Mapping[str, Any]:
        """The site's own word: ``site``, ``stores``, ``version``, ``dashboard``, as a document.

        A client that was made from an address learns the site's name from it.
        """
        document = await self._json("GET", "/v1/site", dict[str, Any])
        if self.name == self.address:
            self.name = str(document["site"]["name"])
        return document

    async def join(self, address: str, credentials: str | None = None) -> None:
        """Have the site join the federation of which an agent answers at ``address``."""
        await self._ask("POST", "/v1/join", {"address": address, "credentials": credentials})

    async def register(
        self,
        url: str,
        *,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        variable: str | None = None,
        owner: str = "",
        replica_of: str | None = None,
    ) -> Dataset:
        """Make a dataset of data that lies in a store of the site."""
        body = {
            "url": url,
            "name": name,
            "tags": dict(tags or {}),
            "variable": variable,
            "owner": owner,
            "replica_of": replica_of,
        }
        return await self._json("POST", "/v1/datasets", Dataset, body, seconds=60.0)

    # --- orders: SiteAccess -------------------------------------------------------------------

    async def start(self, order: Order) -> None:
        """Begin an order, or attach to it if its id is known."""
        await self._ask("POST", "/v1/orders", {"order": to_document(order)}, again=True)

    async def follow(self, order: str, since: int, wait: float) -> Sequence[Report]:
        """Reports number ``since`` and later; waits up to ``wait`` s for the first of them.

        Raises
        ------
        KeyError
            If the site does not know the order: send it again.
        """
        path = f"/v1/orders/{_segment(order)}/reports"
        try:
            return await self._poll(path, list[Report], since, wait)
        except _UnknownOrder:
            raise KeyError(order) from None

    async def cancel(self, order: str) -> None:
        """Stop an order; unknown or ended ones are ignored."""
        await self._ask("POST", f"/v1/orders/{_segment(order)}/cancel", again=True)

    async def give_code(self, code: str, payload: bytes) -> None:
        """Hand over the payload of an operation, named by its digest."""
        await self._ask("PUT", f"/v1/codes/{_segment(code)}", payload, again=True)

    async def has_code(self, codes: Sequence[str]) -> Sequence[str]:
        """Those of ``codes`` that the site already holds."""
        if not codes:
            return []
        body = {"codes": list(codes)}
        missing = set(await self._json("POST", "/v1/codes/missing", list[str], body, again=True))
        return [code for code in codes if code not in missing]

    # --- jobs ---------------------------------------------------------------------------------

    async def submit(self, created: JobCreated, payloads: Mapping[str, bytes]) -> str:
        """Have the site coordinate a job; the same job again changes nothing."""
        body = {
            "created": to_document(created),
            "payloads": {code: base64.b64encode(data).decode() for code, data in payloads.items()},
        }
        answer = await self._json("POST", "/v1/jobs", dict[str, str], body, again=True)
        return answer["job"]

    async def job_document(self, job: str) -> Mapping[str, Any]:
        """State of a job, as a document."""
        return await self._json("GET", f"/v1/jobs/{_segment(job)}", dict[str, Any])

    async def job_documents(self) -> list[Mapping[str, Any]]:
        """State of all jobs that the site knows of, as documents."""
        return await self._json("GET", "/v1/jobs", list[Mapping[str, Any]])

    async def job_events(self, job: str, since: int, wait: float) -> list[Event]:
        """The journal of a job from entry ``since`` on; waits up to ``wait`` s for the first."""
        return await self._poll(f"/v1/jobs/{_segment(job)}/events", list[Event], since, wait)

    async def ask(self, job: str, what: What, by: str = "") -> None:
        """Have a job cancelled, suspended or resumed."""
        await self._ask("POST", f"/v1/jobs/{_segment(job)}/{what}", {"by": by}, again=True)

    async def ledger_documents(self, job: str | None = None) -> list[Mapping[str, Any]]:
        """Bytes that crossed links, by the site's own count, as documents."""
        query = {} if job is None else {"job": job}
        return await self._json("GET", "/v1/ledger", list[Mapping[str, Any]], query=query)

    # --- data ---------------------------------------------------------------------------------

    def data_url(self, replica: str) -> str:
        """URL under which other programs read a replica; they need :meth:`headers` too.

        Raises
        ------
        ConfigError
            If the agent answers on a Unix socket, which other programs cannot be sent to.
        """
        if self._data_base is None:
            raise ConfigError(f"site {self.name!r} is reached over a Unix socket and has no URL")
        return f"{self._data_base}/v1/data/{_segment(replica)}"

    def headers(self, job: str = "") -> dict[str, str]:
        """Headers with the token, and the job that the bytes are counted for."""
        return {**self._bearer.headers(), **self._metering(job)}

    async def read(
        self,
        replica: str,
        path: str,
        start: int = 0,
        end: int | None = None,
        *,
        job: str = "",
    ) -> bytes:
        """Bytes ``start`` to ``end`` (exclusive) of one object of a replica.

        Raises
        ------
        UnknownDataset
            If the replica or the object does not exist.
        """
        async with self.stream(replica, path, start, end, job=job) as pieces:
            return b"".join([piece async for piece in pieces])

    @asynccontextmanager
    async def stream(
        self,
        replica: str,
        path: str,
        start: int = 0,
        end: int | None = None,
        *,
        job: str = "",
    ) -> AsyncGenerator[AsyncIterator[bytes]]:
        """The same as :meth:`read`, piece by piece, for objects larger than memory."""
        wanted = {} if (start, end) == (0, None) else {"range": _range(start, end)}
        url = f"{self._base}/v1/data/{_segment(replica)}/{quote(path)}"
        request = self._http.build_request(
            "GET", url, headers={**wanted, **self._metering(job), "accept-encoding": "identity"}
        )
        try:
            async with asyncio.timeout(CONNECT_SECONDS + self._timeout):
                response = await self._http.send(request, stream=True)
                if not response.is_success:
                    await response.aread()
        except (httpx2.HTTPError, OSError, RuntimeError) as error:
            raise self._unreachable(error) from error
        try:
            self._check(response)
            if wanted and response.status_code != 206:
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

    async def probe(self, nbytes: int) -> None:
        """Fetch so many bytes of nothing, for the caller's clock."""
        seconds = self._timeout + nbytes / SLOWEST
        query = {"nbytes": nbytes}
        await self._ask("GET", "/v1/probe", query=query, seconds=seconds, again=True)

    def _metering(self, job: str) -> dict[str, str]:
        named = {"x-dataflow-job": job, "x-dataflow-site": self._caller}
        return {name: value for name, value in named.items() if value}

    # --- one request --------------------------------------------------------------------------

    async def _poll(self, path: str, cls: type[T], since: int, wait: float) -> T:
        query = {"since": since, "wait": min(max(wait, 0.0), 60.0)}
        seconds = max(wait, 0.0) + POLL_GRACE
        return await self._json("GET", path, cls, query=query, seconds=seconds)

    async def _json(
        self,
        method: str,
        path: str,
        cls: type[T],
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        seconds: float | None = None,
        again: bool = False,
    ) -> T:
        answer = await self._ask(method, path, body, query=query, seconds=seconds, again=again)
        try:
            return from_json(cls, answer)
        except ValueError as error:  # of pydantic; its text would quote the whole answer
            raise SiteUnreachable(self.name, f"its answer to {path} is not understood") from error

    async def _ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        seconds: float | None = None,
        again: bool = False,
    ) -> bytes:
        """The body of the answer. ``again``: asking twice does no harm, so one retry is made."""
        seconds = self._timeout if seconds is None else seconds
        content = body if isinstance(body, bytes) else None
        if body is not None and content is None:
            content = json.dumps(body).encode()
        headers = {} if content is None or content is body else {"content-type": "application/json"}
        limit = CONNECT_SECONDS + seconds + len(content or b"") / SLOWEST
        request = self._http.build_request(
            method,
            self._base + path,
            params=query,
            content=content,
            headers=headers,
            timeout=httpx2.Timeout(limit, connect=CONNECT_SECONDS),
        )
        try:
            async with asyncio.timeout(limit):
                try:
                    response = await self._http.send(request)
                except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError):
                    # A kept connection that the agent had closed: found out only by using it.
                    if not again and method != "GET":
                        raise
                    response = await self._http.send(request)
        except TimeoutError as error:
            raise SiteUnreachable(self.name, f"no answer within {limit:.0f} s") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, RuntimeError) as error:
            raise self._unreachable(error) from error
        self._check(response)
        return response.content

    def _unreachable(self, error: Exception) -> SiteUnreachable:
        if isinstance(error, httpx2.ConnectTimeout):
            return SiteUnreachable(self.name, f"no connection within {CONNECT_SECONDS:g} s")
        text = str(error).strip() or type(error).__name__
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
                self.name, f"what answers at {self.address} is not an agent (HTTP {status})"
            )
        raise error


class _UnknownOrder(Exception):
    """The site does not know an order; never leaves this module."""


class _Bearer(httpx2.Auth):
    """Shows the token; keeps it out of every text, and netrc files out of our requests."""

    def __init__(self, token: str | None) -> None:
        self._headers = {"authorization": f"Bearer {token}"} if token else {}

    def auth_flow(self, request: httpx2.Request) -> Any:
        request.headers.update(self._headers)
        yield request

    def headers(self) -> dict[str, str]:
        return dict(self._headers)


def _carried(response: httpx2.Response) -> DataflowError | _UnknownOrder | None:
    try:
        document = response.json()
    except ValueError:
        return None
    if not isinstance(document, dict) or not isinstance(document.get("args"), list):
        return None
    if document.get("kind") == _UNKNOWN_ORDER:
        return _UnknownOrder(*document["args"])
    if response.status_code == 404 and document.get("kind") == DataflowError.kind:
        return None  # an agent, but of another version: it has no such route
    return from_document(document)


def _segment(word: str) -> str:
    """A word as one segment of a path, whatever is in it."""
    return quote(word, safe="").replace(".", "%2E") if set(word) <= {"."} else quote(word, safe="")


def _range(start: int, end: int | None) -> str:
    return f"bytes={start}-{'' if end is None else end - 1}"


def _socket_path(address: str) -> str | None:
    if not address.startswith(_UNIX):
        return None
    return "/" + address.removeprefix(_UNIX).lstrip("/")


def _without_userinfo(address: str) -> str:
    parts = urlsplit(address)
    if parts.username is None and parts.password is None:
        return address
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _is_loopback(base: str) -> bool:
    host = urlsplit(base).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
