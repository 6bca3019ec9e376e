"""Who is asking: from a request to an :class:`Identity`, behind one question.

Everything that admits people and other agents has the shape :class:`Authenticate`: a request
comes in, an identity comes out, or :class:`~dataflow.errors.SiteRefused` is raised. What ships is
:class:`TokenFile`; signed short-lived tokens are another function of the same shape.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args, runtime_checkable

from dataflow.errors import ConfigError, SiteRefused

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

#: ``reader`` looks; ``user`` also runs things, in their own name; ``site`` is another agent, which
#: speaks for its users; ``admin`` may do all of that, stop other people's jobs and join sites.
Role = Literal["reader", "user", "site", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)

#: What users are called.
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,127}\Z")
_HASHED = "sha256:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Somebody who has proven who they are."""

    user: str
    role: Role = "user"

    def speaks_for(self, user: str) -> str:
        """The name under which a request for ``user`` is kept.

        Agents and administrators say for whom they act; everybody else acts for themselves.
        """
        return user or self.user if self.role in ("site", "admin") else self.user


class Authenticate(Protocol):
    """The question that every way of signing in answers."""

    async def __call__(self, request: HTTPConnection, /) -> Identity:
        """Who sent this request.

        Raises
        ------
        SiteRefused
            If the request does not prove it. The text must not repeat what was presented.
        """


@runtime_checkable
class KeepsUsers(Protocol):
    """A way of signing in that can say later what became of a user."""

    def lists(self, user: str) -> bool:
        """Whether a user stands in a list now.

        Raises
        ------
        ConfigError
            If the list cannot be read.
        """

    def still(self, user: str, since: float) -> None:
        """Refuse a user to whom something was given at ``since`` (seconds since the epoch).

        Raises
        ------
        SiteRefused
            If it was revoked.
        """


class TokenFile:
    """Identities by bearer token, from a text file that is read again whenever it changes.

    Each line is ``token user role``; ``#`` starts a comment. In place of the token may stand
    ``sha256:`` and its digest in hexadecimal, so that the file holds no secret. A line that is
    taken out is refused from the next request on.

    Parameters
    ----------
    path
        The file; nobody but its owner may read it.
    site
        Name of the site, for the text of a refusal.

    Raises
    ------
    ConfigError
        If the file is missing, readable by others, or a line is wrong.
    """

    def __init__(self, path: Path, site: str) -> None:
        self._path, self._site = path, site
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._identities: Mapping[bytes, Identity] = {}
        self._current()

    async def __call__(self, request: HTTPConnection, /) -> Identity:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise SiteRefused(self._site, "a bearer token is needed")
        presented = _digest(token.strip())
        try:
            identities = self._current()
        except ConfigError:  # the file was broken or taken away while we run: fail closed
            raise SiteRefused(self._site, "its token file cannot be read") from None
        found: Identity | None = None
        for known, identity in identities.items():  # all of them, always: equal time
            if hmac.compare_digest(known, presented):
                found = identity
        if found is None:
            raise SiteRefused(self._site, "the token is not known here")
        return found

    def lists(self, user: str) -> bool:
        """Whether a line is of this user now."""
        return any(identity.user == user for identity in self._current().values())

    def still(self, user: str, since: float) -> None:
        """Nothing is revoked but by taking a line out."""

    def _current(self) -> Mapping[bytes, Identity]:
        with self._lock:
            try:
                facts = self._path.stat()
                stamp = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
                if stamp != self._stamp:
                    if facts.st_mode & 0o077:
                        raise ConfigError(
                            "others may read this token file; chmod 600 it", str(self._path)
                        )
                    self._identities = _parse(self._path.read_text(), str(self._path))
                    self._stamp = stamp
            except OSError as error:
                raise ConfigError(
                    f"cannot read the token file: {error.strerror}", str(self._path)
                ) from error
            except UnicodeDecodeError:
                raise ConfigError("the token file is no UTF-8 text", str(self._path)) from None
            return self._identities

    def __repr__(self) -> str:
        return f"<TokenFile {self._path} {len(self._identities)} tokens>"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _parse(text: str, file: str) -> dict[bytes, Identity]:
    identities: dict[bytes, Identity] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 3:
            raise ConfigError("a line must read: token user role", file, line=number)
        token, user, role = words
        if not USER.match(user):
            raise ConfigError("the user's name has characters it may not have", file, line=number)
        known = [candidate for candidate in ROLES if candidate == role]
        if not known:
            raise ConfigError(
                f"unknown role {role!r}; there are {', '.join(ROLES)}", file, line=number
            )
        if token.startswith(_HASHED):
            try:
                key = bytes.fromhex(token.removeprefix(_HASHED))
            except ValueError:
                key = b""
            if len(key) != hashlib.sha256().digest_size:
                raise ConfigError("sha256: needs 64 hexadecimal digits", file, line=number)
        elif len(token) < 16:
            raise ConfigError("a token needs 16 characters or more", file, line=number)
        else:
            key = _digest(token)
        if key in identities:
            raise ConfigError("this token stands in the file twice", file, line=number)
        identities[key] = Identity(user=user, role=known[0])
    return identities


def make_token_file(path: Path, user: str, role: Role = "admin") -> str:
    """Write a file with one new token, readable by its owner only, unless the file exists.

    Returns
    -------
    str
        The first plain token in the file, new or not; empty if it only has digests.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return first_token(path)
    token = secrets.token_urlsafe(32)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"# token user role ({', '.join(ROLES)})\n{token} {user} {role}\n")
    return token


def first_token(path: Path) -> str:
    """The first plain token of a token file; empty if it only has digests."""
    for line in path.read_text().splitlines():
        words = line.partition("#")[0].split()
        if words and not words[0].startswith(_HASHED):
            return words[0]
    return ""


def check_binding(host: str, *, encrypted: bool) -> None:
    """Refuse to carry tokens in the clear over a network.

    Raises
    ------
    ConfigError
        If ``host`` is not a loopback address and the agent has no certificate.
    """
    if encrypted or host == "localhost":
        return
    try:
        if ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass
    raise ConfigError(
        f"will not listen on {host!r} without TLS, tokens would cross the network in the clear; "
        "use 127.0.0.1 or a Unix socket (reached through SSH), or give a certificate and its key"
    )
