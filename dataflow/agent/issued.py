"""People by tokens of an issuer: OpenID Connect, or whoever else signs tokens and publishes keys.

A token is believed for what its issuer says of a user, and only if all of this holds: it was signed by
a key that the issuer publishes now, with an algorithm of that key's own kind, for this site, by that
issuer, not too long ago, for no longer than this site allows; and nobody has revoked it. What cannot be
found out, because the issuer does not answer say, is a no.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx2
from joserfc import jwt
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jwk import KeySet

from dataflow.agent.auth import USER, Authenticate, Identity, KeepsUsers, Role
from dataflow.config.records import Issuer
from dataflow.errors import ConfigError, SiteRefused

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

#: Signatures by keys that whoever checks them does not have; no secret that is shared, and not none.
ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "Ed25519",
    "EdDSA",
)
#: Clocks may be apart by so much (s).
LEEWAY_SECONDS = 5
#: Keys are asked for anew after so long, and where a token names another one, at most so often (s).
KEYS_SECONDS, AGAIN_SECONDS = 300.0, 5.0
TIMEOUT_SECONDS = 5.0
LONGEST_ANSWER, LONGEST_TOKEN = 2**18, 2**14
MOST_KEYS = 50


class IssuedTokens:
    """Identities by the signed tokens of one issuer.

    Parameters
    ----------
    issuer
        Whom to believe, and how its claims are read.
    site
        Name of the site, for the text of a refusal.
    revoked
        What is not believed any more.
    clock
        Seconds since the epoch.
    """

    def __init__(
        self,
        issuer: Issuer,
        site: str,
        revoked: Revoked,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.issuer, self._site, self._revoked, self._clock = issuer, site, revoked, clock
        self._keys: KeySet | None = None
        self._asked = self._had = float("-inf")
        self._asking = asyncio.Lock()

    async def __call__(self, request: HTTPConnection, /) -> Identity:
        return await self.identity(bearer_of(request, self._site))

    async def identity(self, token: str) -> Identity:
        """Whom a token is of.

        Raises
        ------
        SiteRefused
            If it is not believed; the text does not repeat it.
        """
        if len(token) > LONGEST_TOKEN:
            raise self._no("the token is too long")
        claims = await self._claims(token)
        self._check(claims)
        user = self._user(claims)
        self._revoked.check(self._site, claims, user)
        return Identity(user=user, role=self._role(claims))

    def still(self, user: str, since: float) -> None:
        """Refuse what was given to a user earlier, if it would be refused to a token of that time."""
        self._revoked.check(self._site, {"iat": since}, user)

    # --- the signature --------------------------------------------------------------------------

    async def _claims(self, token: str) -> Mapping[str, Any]:
        kid = kid_of(token)
        if kid is None:
            raise self._no("the token is no signed one")
        keys = await self._keys_with(kid)
        own = [key for key in keys.keys if key.kid == kid and _signs(key.as_dict(private=False))]
        if not own:
            raise self._no("the token is signed by a key that its issuer does not publish")
        try:
            return jwt.decode(token, own[0], algorithms=_of_kind(own[0])).claims
        except (JoseError, ValueError, TypeError, RecursionError):
            raise self._no("the signature of the token is wrong") from None

    async def _keys_with(self, kid: str) -> KeySet:
        """The issuer's keys, asked for anew if this one is not among them or they are old."""
        if (keys := self._fresh()) is not None and _has(keys, kid):
            return keys  # somebody else's unknown key is no reason to wait
        async with self._asking:
            keys = self._fresh()
            if (
                keys is None or not _has(keys, kid)
            ) and self._clock() - self._asked > AGAIN_SECONDS:
                begun = self._asked = self._clock()
                try:
                    self._keys, self._had = await self._published(), begun
                except (httpx2.HTTPError, OSError, ValueError, TypeError, KeyError, JoseError):
                    pass  # what is known holds for as long as it would have
                except asyncio.CancelledError:
                    self._asked = float("-inf")  # whoever comes next asks
                    raise
            keys = self._fresh()
            if keys is None:
                raise self._no("the keys of the token's issuer cannot be had now")
            return keys

    def _fresh(self) -> KeySet | None:
        """The keys, unless they are old: what an issuer has withdrawn is not believed for ever."""
        return self._keys if self._clock() - self._had <= KEYS_SECONDS else None

    async def _published(self) -> KeySet:
        async with httpx2.AsyncClient(
            timeout=TIMEOUT_SECONDS, follow_redirects=False, trust_env=False
        ) as http:
            url = self.issuer.keys
            if not url:
                where = f"{self.issuer.issuer.rstrip('/')}/.well-known/openid-configuration"
                about = await _fetched(http, where)
                if about["issuer"] != self.issuer.issuer:
                    raise ValueError("it is another issuer")
                url = str(about["jwks_uri"])
            document = await _fetched(http, url)
        found = [key for key in document["keys"] if _signs(key)][:MOST_KEYS]
        return KeySet.import_key_set({"keys": found})

    # --- the claims -----------------------------------------------------------------------------

    def _check(self, claims: Mapping[str, Any]) -> None:
        issuer, now = self.issuer, int(self._clock())
        wanted = jwt.JWTClaimsRegistry(
            now=now,
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": issuer.issuer},
            aud={"essential": True, "value": issuer.audience or self._site},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        )
        try:
            wanted.validate(dict(claims))
        except ExpiredTokenError:
            raise self._no("the token has run out") from None
        except (JoseError, TypeError, ValueError) as error:
            claim = str(getattr(error, "claim", "") or getattr(error, "description", ""))[:100]
            raise self._no(f"the token is not for this site, or not whole ({claim})") from None
        if now - claims["iat"] > issuer.longest + LEEWAY_SECONDS:
            raise self._no(f"the token is older than {issuer.longest:g} s")
        if claims["exp"] - claims["iat"] > issuer.longest:
            raise self._no(f"the token is good for longer than {issuer.longest:g} s")

    def _user(self, claims: Mapping[str, Any]) -> str:
        name = claims.get(self.issuer.user)
        if (
            name is not None
            and self.issuer.user == "email"
            and claims.get("email_verified") is not True
        ):
            raise self._no("the token's address is not verified")
        if not isinstance(name, str) or not USER.match(name + self.issuer.suffix):
            raise self._no(f"the token's claim {self.issuer.user!r} is no name of a user")
        return name + self.issuer.suffix

    def _role(self, claims: Mapping[str, Any]) -> Role:
        """The highest role that a group of his has; without any, he is nobody here."""
        if not self.issuer.groups:
            return "user"
        said: Any = claims
        for part in self.issuer.groups.split("."):
            said = said.get(part) if isinstance(said, Mapping) else None
        words = {said} if isinstance(said, str) else set(_texts(said))
        for role in ("admin", "user", "reader"):
            if words & set(self.issuer.roles.get(role, ())):
                return role
        raise self._no("the token's user is in no group that has a role here")

    def _no(self, why: str) -> SiteRefused:
        return SiteRefused(self._site, why)


class Revoked:
    """Tokens and users that are not believed any more, from a text file that is read when it changes.

    Each line is ``user NAME``, ``token ID`` (the claim ``jti``) or ``before SECONDS`` (since the epoch:
    whatever was issued earlier); ``#`` starts a comment. ``user NAME before SECONDS`` lets new tokens
    of that user in. It holds from the next request on, and for what is being read.

    Raises
    ------
    ConfigError
        If a line is wrong.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._users: dict[str, float] = {}
        self._tokens: frozenset[str] = frozenset()
        self._before = float("-inf")
        self._read()

    def check(self, site: str, claims: Mapping[str, Any], user: str) -> None:
        """Refuse what was revoked, and everything as long as the file cannot be understood."""
        try:
            self._read()
        except (ConfigError, OSError):
            raise SiteRefused(site, "its list of what was revoked cannot be read") from None
        issued = float(claims["iat"])
        if (
            issued < self._before
            or issued < self._users.get(user, float("-inf"))
            or claims.get("jti") in self._tokens
        ):
            raise SiteRefused(site, "the token was revoked")

    def _read(self) -> None:
        with self._lock:
            try:
                facts = self._path.stat()
            except FileNotFoundError:
                if self._stamp is not None:
                    raise  # it was there: somebody has taken the list away
                return
            stamp = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
            if stamp == self._stamp:
                return
            try:
                text = self._path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                raise ConfigError("the list is no UTF-8 text", str(self._path)) from None
            self._take(text)
            self._stamp = stamp

    def _take(self, text: str) -> None:
        users: dict[str, float] = {}
        tokens: set[str] = set()
        before = float("-inf")
        for number, line in enumerate(text.splitlines(), start=1):
            words = line.partition("#")[0].split()
            try:
                match words:
                    case []:
                        pass
                    case ["user", name]:
                        users[name] = float("inf")
                    case ["user", name, "before", seconds]:
                        users[name] = max(users.get(name, float("-inf")), float(seconds))
                    case ["token", id]:
                        tokens.add(id)
                    case ["before", seconds]:
                        before = max(before, float(seconds))
                    case _:
                        raise ValueError
            except ValueError:
                raise ConfigError(
                    "a line must read: user NAME [before SECONDS], token ID or before SECONDS",
                    str(self._path),
                    line=number,
                ) from None
        self._users, self._tokens, self._before = users, frozenset(tokens), before


class AnyOf:
    """Whoever one of several ways of signing in knows: signed tokens by their issuer, else the file."""

    def __init__(self, site: str, plain: Authenticate, issued: Sequence[IssuedTokens]) -> None:
        self._site, self._plain = site, plain
        self._issued = {one.issuer.issuer: one for one in issued}

    async def __call__(self, request: HTTPConnection, /) -> Identity:
        token = bearer_of(request, self._site)
        if token.count(".") != 2:
            return await self._plain(request)
        # Which issuer to ask is all that is believed of it before the signature was checked.
        issuer = self._issued.get(str(_unverified(token, 1).get("iss", "")))
        if issuer is None:
            return await self._plain(request)
        return await issuer.identity(token)

    def lists(self, user: str) -> bool:
        """Whether the file knows a user now."""
        return isinstance(self._plain, KeepsUsers) and self._plain.lists(user)

    def still(self, user: str, since: float) -> None:
        """Refuse what was given to a user earlier, if somebody has revoked it."""
        for one in self._issued.values():
            one.still(user, since)


def bearer_of(request: HTTPConnection, site: str) -> str:
    """The token that a request shows.

    Raises
    ------
    SiteRefused
        If it shows none.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise SiteRefused(site, "a bearer token is needed")
    return token.strip()


def kid_of(token: str) -> str | None:
    """The name of the key that a token says it is signed by; ``None`` if it is not signed so."""
    header = _unverified(token, 0)
    kid = header.get("kid")
    fine = header.get("alg") in ALGORITHMS and "crit" not in header and "b64" not in header
    return kid if fine and isinstance(kid, str) and kid else None


def _unverified(token: str, part: int) -> Mapping[str, Any]:
    """One part of a token, of which nothing is known yet."""
    import base64
    import binascii

    try:
        text = token.split(".")[part].encode("ascii")
        found = json.loads(base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4)))
    except (IndexError, UnicodeError, binascii.Error, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _has(keys: KeySet, kid: str) -> bool:
    return any(key.kid == kid for key in keys.keys)


def _signs(key: Any) -> bool:
    """Whether a published key is one to check signatures with: public, and not for something else."""
    return (
        isinstance(key, Mapping)
        and key.get("kty") in ("RSA", "EC", "OKP")
        and key.get("use", "sig") == "sig"
        and "d" not in key
        and not (key["kty"] == "OKP" and key.get("crv") != "Ed25519")
    )


def _of_kind(key: Any) -> list[str]:
    """Algorithms that go with a key; the one that it says, if it says one."""
    said = key.as_dict(private=False)
    if said.get("alg"):
        return [said["alg"]] if said["alg"] in ALGORITHMS else []
    beginning = {"RSA": ("RS", "PS"), "EC": ("ES",), "OKP": ("Ed",)}[said["kty"]]
    return [name for name in ALGORITHMS if name.startswith(beginning)]


def _texts(said: Any) -> list[str]:
    return [word for word in said if isinstance(word, str)] if isinstance(said, list) else []


async def _fetched(http: httpx2.AsyncClient, url: str) -> Any:
    """A document of an issuer, over a road on which nobody can change it."""
    check_url(url)
    async with asyncio.timeout(2 * TIMEOUT_SECONDS), http.stream("GET", url) as answer:
        answer.raise_for_status()
        body = b""
        async for piece in answer.aiter_bytes():
            body += piece
            if len(body) > LONGEST_ANSWER:
                raise ValueError("it says too much")
    return json.loads(body)


def check_url(url: str) -> None:
    """Refuse to ask an issuer over a road where others can answer in its place.

    Raises
    ------
    ConfigError
        If it is no https, nor this machine.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = False
    if parts.scheme != "https" and not (parts.scheme == "http" and here):
        raise ConfigError(f"an issuer needs https://, not {url!r}")
