"""Inside: how notebooks that run at a site come back to its agent, wherever at the site they run.

The agent listens once more, for the hosts of its own site only: TLS with a certificate of this
process's own, which both ends must have. Whoever has it still shows a token. It names the order
that it was made for, and is good for the user of that order for as long as it runs and nobody has
taken the user back.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from urllib.parse import unquote, urlsplit

from dataflow.agent.auth import Authenticate, Identity, KeepsUsers
from dataflow.client.forward import Forward, inner_tls
from dataflow.errors import ConfigError, SiteRefused
from dataflow.execution.events import SegmentOrder
from dataflow.execution.invitation import Invitation

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

#: What a token of ours begins with.
_MARK = "run."


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


class Inside:
    """The second door of an agent.

    Parameters
    ----------
    site
        Its name.
    address
        Where the agent itself listens: ``unix://…``, ``http://…`` or ``https://…``.
    guests
        Who knows the orders that run, and the address of this host.
    """

    def __init__(self, site: str, address: str, guests: TakesGuests) -> None:
        self._site, self._address, self._guests = site, address, guests
        self._secret = secrets.token_bytes(32)
        self._pair = ("", "")
        self._door: Forward | None = None
        self._opening = asyncio.Lock()
        self._users: KeepsUsers | None = None
        #: Order → when it was invited, and whether its user stood in a list then.
        self._invited: dict[str, tuple[float, bool]] = {}

    async def invite(self, order: SegmentOrder) -> Invitation:
        """What the notebooks of an order may show; the first one opens the door."""
        host = self._guests.inner_host
        async with self._opening:
            if self._door is None:
                self._pair = await asyncio.to_thread(_own_certificate)
                door = Forward(self._dial)
                await door.open(host, await asyncio.to_thread(inner_tls, *self._pair, server=True))
                self._door = door
        running = {id: told for id, told in self._invited.items() if self._guests.underway(id)}
        told = time.time(), await asyncio.to_thread(self._listed, order.user, unknown=True)
        self._invited = {order.id: told, **running}
        return Invitation(
            site=self._site,
            job=order.job,
            order=order.id,
            user=order.user,
            host=host,
            port=self._door.port,
            certificate=self._pair[0],
            key=self._pair[1],
            token=self._token(order.id),
        )

    def admits(self, authenticate: Authenticate) -> Authenticate:
        """The same question, answered for notebooks as well."""
        self._users = authenticate if isinstance(authenticate, KeepsUsers) else None

        async def asked(request: HTTPConnection, /) -> Identity:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() == "bearer" and token.strip().startswith(_MARK):
                return self._guest(token.strip())
            return await authenticate(request)

        return asked

    async def close(self) -> None:
        """Shut the door and cut what goes through it."""
        if self._door is not None:
            await self._door.close()

    def _token(self, order: str) -> str:
        name = base64.urlsafe_b64encode(order.encode()).decode()
        return f"{_MARK}{name}.{self._signed(order)}"

    def _signed(self, order: str) -> str:
        return hmac.new(self._secret, order.encode(), hashlib.sha256).hexdigest()

    def _guest(self, token: str) -> Identity:
        _, name, signature = (*token.split("."), "", "")[:3]
        try:
            order = base64.urlsafe_b64decode(name).decode()
        except ValueError:
            order = ""
        known = hmac.compare_digest(self._signed(order).encode(), signature.encode())
        user = self._guests.underway(order) if known else None
        if user is None:
            raise SiteRefused(self._site, "this invitation is of no notebook that runs here")
        self._check(order, user)
        return Identity(user=user, role="user")

    def _check(self, order: str, user: str) -> None:
        """Refuse a guest whose user would be refused."""
        if self._users is None:
            return
        since, listed = self._invited.get(order, (0.0, True))
        self._users.still(user, since)
        if listed and not self._listed(user, unknown=False):
            raise SiteRefused(self._site, "the user of this invitation is not known here any more")

    def _listed(self, user: str, *, unknown: bool) -> bool:
        try:
            return self._users is not None and self._users.lists(user)
        except ConfigError:
            return unknown

    async def _dial(self) -> tuple[Any, Any]:
        parts = urlsplit(self._address)
        if parts.scheme == "unix":
            return await asyncio.open_unix_connection(unquote(parts.path))
        context = None
        if parts.scheme == "https":  # ourselves, on this host
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        host = parts.hostname or "127.0.0.1"
        ours = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return await asyncio.open_connection(ours, parts.port, ssl=context)


def _own_certificate() -> tuple[str, str]:
    from dataflow.backends.cluster import own_security

    security = own_security()
    return security.tls_ca_file, security.tls_worker_key


@asynccontextmanager
async def guests_of(participant: Any, address: str) -> AsyncIterator[Inside | None]:
    """While this holds, notebooks at the site of ``participant`` find the agent at ``address``."""
    if not isinstance(participant, TakesGuests):
        yield None
        return
    inside = Inside(participant.site.name, address, participant)  # type: ignore[attr-defined]
    participant.answered_by(inside.invite)
    try:
        yield inside
    finally:
        participant.answered_by(None)
        await inside.close()
