"""Inside: how notebooks that run at a site come back to its agent, wherever at the site they run.

The agent listens once more, for the hosts of its own site only: TLS with a certificate of this
process's own, which both ends must have. Whoever has it still shows a token. It is signed for one
order, its job, its user and this site, and is good for that user as long as that order runs and nobody
has taken the user back. What came through this door reaches the agent by a socket of its own: a token
of a notebook is good nowhere else, and no other token is good there.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import socket
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from dataflow.agent.auth import Authenticate, Identity, KeepsUsers
from dataflow.client.forward import Forward, inner_tls
from dataflow.documents import canonical_json
from dataflow.errors import ConfigError, SiteRefused
from dataflow.execution.events import SegmentOrder
from dataflow.execution.invitation import Invitation

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

#: What a token of ours begins with.
_MARK = "run."
#: The path of a socket has 107 bytes; ours adds some to the directory that it is in.
_LONGEST_PLACE = 80


@runtime_checkable
class TakesGuests(Protocol):
    """A participant whose orders may be notebooks that come back."""

    @property
    def inner_host(self) -> str:
        """The address of this host within the site."""

    def answered_by(self, invite: Callable[[SegmentOrder], Any] | None) -> None:
        """From now on notebooks get their invitations there."""

    def underway(self, order: str) -> str | None:
        """The user of an order that runs now; ``None`` of any other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Guest:
    """An order whose notebooks were invited: when, and whether its user stood in a list then."""

    job: str
    user: str
    since: float
    listed: bool


class Inside:
    """The second door of an agent.

    Parameters
    ----------
    site
        Its name.
    guests
        Who knows the orders that run, and the address of this host.
    encrypted
        Whether the agent's server speaks TLS, on this socket too then.

    Attributes
    ----------
    listening
        The socket that the agent's server has to serve as well; only this account can connect to it.
    """

    def __init__(self, site: str, guests: TakesGuests, *, encrypted: bool = False) -> None:
        self._site, self._guests, self._encrypted = site, guests, encrypted
        self._directory = TemporaryDirectory(prefix="flow-", dir=_short_directory())
        self._path = str(Path(self._directory.name) / "inside")
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listening.bind(self._path)
        self._secret = secrets.token_bytes(32)
        self._pair = ("", "")
        self._door: Forward | None = None
        self._opening = asyncio.Lock()
        self._users: KeepsUsers | None = None
        self._invited: dict[str, _Guest] = {}

    async def invite(self, order: SegmentOrder) -> Invitation:
        """What the notebooks of an order may show; the first one opens the door."""
        host = self._guests.inner_host
        async with self._opening:
            if self._door is None:
                self._pair = await asyncio.to_thread(_own_certificate)
                door = Forward(self._dial)
                await door.open(host, await asyncio.to_thread(inner_tls, *self._pair, server=True))
                self._door = door
        since = time.time()
        listed = await asyncio.to_thread(self._listed, order.user, unknown=True)
        guest = _Guest(job=order.job, user=order.user, since=since, listed=listed)
        # No await from here on: others that are invited at the same time stay so.
        running = {id: known for id, known in self._invited.items() if self._guests.underway(id)}
        self._invited = {**running, order.id: guest}
        return Invitation(
            site=self._site,
            job=order.job,
            order=order.id,
            user=order.user,
            host=host,
            port=self._door.port,
            certificate=self._pair[0],
            key=self._pair[1],
            token=self._token(order.id, guest),
        )

    def admits(self, authenticate: Authenticate) -> Authenticate:
        """The same question, answered for notebooks as well."""
        self._users = authenticate if isinstance(authenticate, KeepsUsers) else None

        async def asked(request: HTTPConnection, /) -> Identity:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            ours = scheme.lower() == "bearer" and token.strip().startswith(_MARK)
            if ours != (request.scope.get("server") == (self._path, None)):
                raise SiteRefused(self._site, "this token is not for this door")
            return self._guest(token.strip()) if ours else await authenticate(request)

        return asked

    async def close(self) -> None:
        """Shut the door and cut what goes through it."""
        if self._door is not None:
            await self._door.close()
        self.listening.close()
        self._directory.cleanup()

    def _token(self, order: str, guest: _Guest) -> str:
        name = base64.urlsafe_b64encode(order.encode()).decode()
        return f"{_MARK}{name}.{self._signed(order, guest)}"

    def _signed(self, order: str, guest: _Guest) -> str:
        bound = canonical_json([self._site, guest.job, order, guest.user])
        return hmac.new(self._secret, bound.encode(), hashlib.sha256).hexdigest()

    def _guest(self, token: str) -> Identity:
        _, name, signature = (*token.split("."), "", "")[:3]
        try:
            order = base64.urlsafe_b64decode(name).decode()
        except ValueError:
            order = ""
        guest = self._invited.get(order)
        signed = self._signed(order, guest or _Guest(job="", user="", since=0.0, listed=True))
        if (
            not hmac.compare_digest(signed.encode(), signature.encode())
            or guest is None
            or self._guests.underway(order) != guest.user
        ):
            raise SiteRefused(self._site, "this invitation is of no notebook that runs here")
        self._check(guest)
        return Identity(user=guest.user, role="user")

    def _check(self, guest: _Guest) -> None:
        """Refuse a guest whose user would be refused."""
        if self._users is None:
            return
        self._users.still(guest.user, guest.since)
        if guest.listed and not self._listed(guest.user, unknown=False):
            raise SiteRefused(self._site, "the user of this invitation is not known here any more")

    def _listed(self, user: str, *, unknown: bool) -> bool:
        try:
            return self._users is not None and self._users.lists(user)
        except ConfigError:
            return unknown

    async def _dial(self) -> tuple[Any, Any]:
        if not self._encrypted:
            return await asyncio.open_unix_connection(self._path)
        context = ssl.create_default_context()  # ourselves, through a socket of our own
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return await asyncio.open_unix_connection(self._path, ssl=context, server_hostname="")


def _short_directory() -> str | None:
    """Where the path of a socket is short enough; ``None`` for the usual place."""
    return None if len(tempfile.gettempdir()) < _LONGEST_PLACE else "/tmp"


def _own_certificate() -> tuple[str, str]:
    from dataflow.backends.cluster import own_security

    security = own_security()
    return security.tls_ca_file, security.tls_worker_key


@asynccontextmanager
async def guests_of(participant: Any, *, encrypted: bool = False) -> AsyncIterator[Inside | None]:
    """While this holds, notebooks at the site of ``participant`` find whoever serves what is yielded."""
    if not isinstance(participant, TakesGuests):
        yield None
        return
    site: str = participant.site.name  # type: ignore[attr-defined]
    inside = Inside(site, participant, encrypted=encrypted)
    participant.answered_by(inside.invite)
    try:
        yield inside
    finally:
        participant.answered_by(None)
        await inside.close()
