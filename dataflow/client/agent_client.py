"""AgentClient: another site's agent, as methods.

What comes back is records and typed errors; what goes wrong on the way becomes
:class:`~dataflow.errors.SiteUnreachable` within a bounded time. One client keeps one pool of
connections, for one event loop.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

import httpx2

from dataflow.agreements import Agreement, Relation, Request
from dataflow.catalog.access import KnownSite
from dataflow.catalog.entries import RecordRow
from dataflow.client.connection import SLOWEST, Connection, Stream, UnknownOrder, segment
from dataflow.client.ssh import SshReach
from dataflow.datasets import Dataset
from dataflow.documents import to_document, to_json
from dataflow.errors import ConfigError
from dataflow.execution.events import (
    Errand,
    ErrorDocument,
    Event,
    JobCreated,
    Order,
    Report,
    Want,
)
from dataflow.patience import Patience
from dataflow.policy.negotiation import Move, Negotiation
from dataflow.sites import Site
from dataflow.storage.manifest import FileEntry

What = Literal["cancel", "suspend", "resume"]

#: Time (s) for what reads data at the other site before it answers.
READING_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class _Page:
    epoch: str
    rows: tuple[RecordRow, ...]


class AgentClient:
    """What may be asked of one site's agent.

    Every method may raise :class:`~dataflow.errors.SiteUnreachable` (no answer in time),
    :class:`~dataflow.errors.SiteRefused` (the token, or the trust, does not reach) and the typed
    error that the site itself answered with.

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
    reach
        The way there, if the address begins with ``ssh://``; it brings its own token.
    tls
        Who is talked to, if the address begins with ``https://``, instead of whom an authority knows.
    patience
        What is known of the time that its answers take, shared with others who ask there.
    there
        Whether the site answers others, or other questions, at the moment.
    """

    def __init__(
        self,
        site: Site | str,
        token: str | None = None,
        *,
        timeout: float = 10.0,
        caller: str = "",
        transport: httpx2.AsyncBaseTransport | None = None,
        reach: SshReach | None = None,
        tls: ssl.SSLContext | None = None,
        patience: Patience | None = None,
        there: Callable[[], bool] = lambda: False,
    ) -> None:
        address = site.address if isinstance(site, Site) else site
        if not address:
            raise ConfigError("this site has no address; it is served by its own process only")
        name = site.name if isinstance(site, Site) else ""
        self._way = Connection(
            name,
            address,
            token,
            timeout=timeout,
            transport=transport,
            reach=reach,
            tls=tls,
            patience=patience,
            there=there,
        )
        #: Where its agent answers, and the site's name; the address as long as that is not known.
        self.address = self._way.address
        self.name = self._way.name = name or self.address
        self._caller = caller

    async def close(self) -> None:
        """Give up all connections; every later request raises."""
        await self._way.close()

    async def __aenter__(self) -> AgentClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AgentClient {self.name} {self.address}>"

    # --- the site itself ----------------------------------------------------------------------

    async def hello(self) -> Mapping[str, Any]:
        """The site's own word: ``site``, ``stores``, ``version``, ``dashboard``, as a document."""
        document = await self._way.record("GET", "/v1/site", dict[str, Any])
        if self.name == self.address:
            self.name = self._way.name = str(document["site"]["name"])
        return document

    async def join(self, address: str, credentials: str | None = None) -> None:
        """Have the site join the federation of which an agent answers at ``address``."""
        body = {"address": address, "credentials": credentials}
        await self._way.ask("POST", "/v1/join", body, again=True, bear=True)

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
        return await self._way.record(
            "POST", "/v1/datasets", Dataset, body, seconds=READING_SECONDS, bear=True
        )

    async def probe(self, nbytes: int) -> None:
        """Fetch so many bytes of nothing, for the caller's clock."""
        seconds = self._way.timeout + nbytes / SLOWEST
        await self._way.ask("GET", "/v1/probe", query={"nbytes": nbytes}, seconds=seconds)

    async def cells(self, run: str, since: int, wait: float) -> Mapping[str, Any]:
        """Cells that a notebook there has executed, as :class:`.Cells` is a document.

        Raises
        ------
        UnknownJob
            If no such run is there (any more).
        """
        path = f"/v1/runs/{segment(run)}/cells"
        return await self._way.poll(path, dict[str, Any], wait, since=since)

    # --- agreements ---------------------------------------------------------------------------

    async def agreements(self) -> list[Agreement]:
        """What the owners at this site grant, as far as we may know of it."""
        return await self._way.record("GET", "/v1/agreements", list[Agreement])

    async def agree(self, agreement: Agreement) -> None:
        """Put an agreement in the place of the one of its name; for administrators."""
        path = f"/v1/agreements/{segment(agreement.name)}"
        body = {"agreement": to_document(agreement)}
        await self._way.ask("PUT", path, body, again=True, bear=True)

    async def withdraw(self, name: str) -> None:
        """Take an agreement back; for administrators."""
        path = f"/v1/agreements/{segment(name)}"
        await self._way.ask("DELETE", path, again=True, bear=True)

    async def negotiations(self) -> list[Negotiation]:
        """Our negotiations with the owners there; an administrator's are all."""
        return await self._way.record("GET", "/v1/negotiations", list[Negotiation])

    async def negotiate(self, agreement: str, terms: Relation, user: str = "") -> Negotiation:
        """Ask for a relation in an agreement; as an administrator offer one to ``user``."""
        body = {"agreement": agreement, "terms": to_document(terms), "user": user}
        return await self._way.record("POST", "/v1/negotiations", Negotiation, body, bear=True)

    async def negotiation(self, id: str) -> Negotiation:
        """Where a negotiation stands.

        Raises
        ------
        UnknownNegotiation, PolicyError
            If there is none, or it is between others.
        """
        return await self._way.record("GET", f"/v1/negotiations/{segment(id)}", Negotiation)

    async def move(self, id: str, move: Move, terms: Relation | None = None) -> Negotiation:
        """Make a move in a negotiation.

        Raises
        ------
        OutOfOrder
            If it is not possible now, or not for us; nothing has changed then.
        """
        body = {"terms": to_document(terms) if terms is not None else None}
        path = f"/v1/negotiations/{segment(id)}/{move}"
        return await self._way.record("POST", path, Negotiation, body, bear=True)

    # --- catalog: dataflow.catalog.sync.PeerAccess ----------------------------------------------

    async def records(self, site: str, since: int, wait: float) -> tuple[str, Sequence[RecordRow]]:
        """Epoch of ``site``'s log as held there, and its next rows after ``since``.

        Waits up to ``wait`` s for the first row. Unknown sites have the epoch ``""``.
        """
        query = {"site": site, "since": since}
        page = await self._way.poll("/v1/records", _Page, wait, **query)
        return page.epoch, page.rows

    async def peers(self) -> Sequence[KnownSite]:
        """All sites known there, with the one that answers marked."""
        return await self._way.record("GET", "/v1/peers", list[KnownSite])

    async def hint(
        self, site: str, seq: int, *, epoch: str = "", address: str | None = None
    ) -> None:
        """Tell that ``site`` has written up to ``seq``, and where it answers."""
        body = {"site": site, "sequence": seq, "epoch": epoch, "address": address}
        await self._way.ask("POST", "/v1/hint", body, again=True)

    # --- orders: dataflow.execution.events.SiteAccess -------------------------------------------

    async def start(self, order: Order) -> None:
        """Begin an order, or attach to it if its id is known."""
        await self._way.ask("POST", "/v1/orders", {"order": to_document(order)}, again=True)

    async def follow(self, order: str, since: int, wait: float) -> Sequence[Report]:
        """Reports number ``since`` and later; waits up to ``wait`` s for the first of them.

        Raises
        ------
        KeyError
            If the site does not know the order: send it again.
        """
        path = f"/v1/orders/{segment(order)}/reports"
        try:
            return await self._way.poll(path, list[Report], wait, since=since)
        except UnknownOrder:
            raise KeyError(order) from None

    async def cancel(self, order: str) -> None:
        """Stop an order; unknown or ended ones are ignored."""
        await self._way.ask("POST", f"/v1/orders/{segment(order)}/cancel", again=True)

    async def give_code(self, code: str, payload: bytes) -> None:
        """Hand over the payload of an operation, named by its digest."""
        await self._way.ask("PUT", f"/v1/codes/{segment(code)}", payload, again=True)

    async def has_code(self, codes: Sequence[str]) -> Sequence[str]:
        """Those of ``codes`` that the site already holds."""
        if not codes:
            return []
        body = {"codes": list(codes)}
        path = "/v1/codes/missing"
        missing = set(await self._way.record("POST", path, list[str], body, again=True))
        return [code for code in codes if code not in missing]

    # --- relayed orders: dataflow.execution.events.TakesWants ------------------------------------

    async def wants(self, order: str, wait: float) -> Sequence[Want]:
        """What a relayed order waits for now; waits up to ``wait`` s for the first.

        Raises
        ------
        KeyError
            If the order is not known there, or has ended.
        """
        try:
            return await self._way.poll(f"/v1/orders/{segment(order)}/wants", list[Want], wait)
        except UnknownOrder:
            raise KeyError(order) from None

    async def bring(
        self, order: str, number: int, answer: bytes | AsyncIterable[bytes], nbytes: int = 0
    ) -> None:
        """Answer a want; ``nbytes`` in all, if they come piece by piece."""
        path = f"/v1/orders/{segment(order)}/wants/{number}"
        body = answer if isinstance(answer, bytes) else Stream(answer, nbytes)
        await self._answer("PUT", path, body)

    async def cannot_bring(self, order: str, number: int, error: ErrorDocument) -> None:
        """Tell why a want is not answered."""
        path = f"/v1/orders/{segment(order)}/wants/{number}/error"
        await self._answer("PUT", path, {"error": dict(error)})

    async def _answer(self, method: str, path: str, body: Any) -> None:
        # One that has ended meanwhile wants nothing any more.
        with suppress(UnknownOrder):
            await self._way.ask(method, path, body, again=True)

    # --- jobs ---------------------------------------------------------------------------------

    async def submit(
        self, created: JobCreated, payloads: Mapping[str, bytes], *, bear: bool = True
    ) -> str:
        """Have the site coordinate a job; the same job again changes nothing.

        With ``bear``, a road that has just become slow is borne with.
        """
        body = {
            "created": to_document(created),
            "payloads": {code: base64.b64encode(data).decode() for code, data in payloads.items()},
        }
        answer = await self._way.record(
            "POST", "/v1/jobs", dict[str, str], body, again=True, bear=bear
        )
        return answer["job"]

    async def job_document(self, job: str) -> Mapping[str, Any]:
        """State of a job, as the document of a ``JobView``."""
        return await self._way.record("GET", f"/v1/jobs/{segment(job)}", dict[str, Any])

    async def job_documents(self) -> list[dict[str, Any]]:
        """State of all jobs that the site knows of, as documents."""
        return await self._way.record("GET", "/v1/jobs", list[dict[str, Any]])

    async def job_events(self, job: str, since: int, wait: float) -> list[Event]:
        """The journal of a job from entry ``since`` on; waits up to ``wait`` s for the first."""
        path = f"/v1/jobs/{segment(job)}/events"
        return await self._way.poll(path, list[Event], wait, since=since)

    async def ask(self, job: str, what: What, by: str = "") -> None:
        """Have a job cancelled, suspended or resumed."""
        path = f"/v1/jobs/{segment(job)}/{what}"
        await self._way.ask("POST", path, {"by": by}, again=True, bear=True)

    async def ledger_documents(self, job: str | None = None) -> list[dict[str, Any]]:
        """Bytes that crossed links, by the site's own count, as documents of entries."""
        query = {} if job is None else {"job": job}
        return await self._way.record(
            "GET", "/v1/ledger", list[dict[str, Any]], query=query, bear=True
        )

    # --- data ---------------------------------------------------------------------------------

    async def ready(self) -> None:
        """Make sure that there is a way to the agent, before others are sent its address."""
        await self._way.ready()

    def data_url(self, replica: str) -> str:
        """URL under which other programs read a replica; they need :meth:`headers` too.

        Raises
        ------
        ConfigError
            If the agent answers on a Unix socket, which other programs cannot be sent to.
        """
        if self._way.url is None:
            raise ConfigError(f"site {self.name!r} is reached over a Unix socket and has no URL")
        return f"{self._way.url}/v1/data/{segment(replica)}"

    def headers(self, job: str | Errand = "") -> dict[str, str]:
        """Headers with the token, the job that the bytes are counted for, and the errand."""
        errand = job if isinstance(job, Errand) else Errand(job=job)
        named = {
            "x-dataflow-job": errand.job,
            "x-dataflow-site": self._caller,
            "x-dataflow-user": quote(errand.user, safe="@"),
            "x-dataflow-to": errand.to,
        }
        if errand.request != Request():
            named["x-dataflow-request"] = quote(to_json(errand.request, Request))
        return {**self._way.headers(), **{name: value for name, value in named.items() if value}}

    def source(self, replica: str, *, job: str | Errand = "") -> AgentSource:
        """A replica of the site as something to copy from."""
        return AgentSource(self, replica, job)

    async def files(self, replica: str, *, job: str | Errand = "") -> list[FileEntry]:
        """The objects of a replica: path, size, and checksum where it is known."""
        path = f"/v1/data/{segment(replica)}"
        headers = self.headers(job)
        return await self._way.record(
            "GET", path, list[FileEntry], headers=headers, seconds=READING_SECONDS
        )

    async def archive(self, replica: str, *, job: str | Errand = "", bear: bool = False) -> bytes:
        """All objects of a small replica as a ZIP archive.

        With ``bear``, a road that has just become slow is borne with.

        Raises
        ------
        ConfigError
            If the site finds it too large for that.
        UnknownDataset
            If the replica does not exist.
        """
        path = f"/v1/archives/{segment(replica)}"
        return await self._way.ask("GET", path, headers=self.headers(job), bear=bear)

    async def read(
        self,
        replica: str,
        path: str,
        start: int = 0,
        end: int | None = None,
        *,
        job: str | Errand = "",
    ) -> bytes:
        """Bytes ``start`` to ``end`` (exclusive) of one object of a replica.

        Raises
        ------
        UnknownDataset
            If the replica or the object does not exist.
        """
        if start == end:
            return b""
        async with self.stream(replica, path, start, end, job=job) as pieces:
            return b"".join([piece async for piece in pieces])

    def stream(
        self,
        replica: str,
        path: str,
        start: int = 0,
        end: int | None = None,
        *,
        job: str | Errand = "",
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The same as :meth:`read`, piece by piece, for objects larger than memory."""
        headers = self.headers(job)
        if (start, end) != (0, None):
            headers["range"] = f"bytes={start}-{'' if end is None else end - 1}"
        return self._way.stream(f"/v1/data/{segment(replica)}/{quote(path)}", headers)


@dataclass(frozen=True, slots=True)
class AgentSource:
    """A replica at another site as a :class:`~dataflow.storage.transfer.Source`.

    Every byte read is counted by that site for ``job``.
    """

    client: AgentClient
    replica: str
    job: str | Errand = ""

    async def listing(self) -> Sequence[FileEntry]:
        """All files; checksums where the site knows them."""
        return await self.client.files(self.replica, job=self.job)

    async def read(self, path: str, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end`` (exclusive) of one file."""
        return await self.client.read(self.replica, path, start, end, job=self.job)

    def stream(
        self, path: str, start: int, end: int
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The same piece by piece, for somebody who only hands them on."""
        return self.client.stream(self.replica, path, start, end, job=self.job)

    def __repr__(self) -> str:
        return f"{self.client.name}:{self.replica}"
