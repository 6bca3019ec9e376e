"""Signed tokens: who is believed, and that nothing else is."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from starlette.requests import HTTPConnection

from dataflow.agent.auth import Identity, TokenFile
from dataflow.agent.issued import AnyOf, IssuedTokens, Revoked, check_url
from dataflow.config.records import Issuer
from dataflow.errors import ConfigError, SiteRefused
from tests.agent.issuer import AUDIENCE, EC, RSA, TestIssuer

PLAIN = "a-plain-token-of-the-file"


@pytest.fixture(scope="module")
def running() -> Iterator[TestIssuer]:
    with TestIssuer() as issuer:
        yield issuer


@pytest.fixture
def issuer(running: TestIssuer) -> Iterator[TestIssuer]:
    before = list(running.keys)
    running.asked.clear()
    yield running
    running.keys, running.changes = before, {}


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Door:
    """What an agent asks, with an issuer and a file of plain tokens."""

    def __init__(self, folder: Path, issuer: TestIssuer, **said: Any) -> None:
        self.clock, self.revoked = Clock(), folder / "revoked"
        record = Issuer(
            issuer=issuer.url, **{"audience": AUDIENCE, "user": "preferred_username", **said}
        )
        tokens = folder / "tokens"
        tokens.touch(mode=0o600)
        tokens.write_text(f"{PLAIN} root admin\n")
        issued = IssuedTokens(record, "uva", Revoked(self.revoked), self.clock)
        self.all = AnyOf("uva", TokenFile(tokens, "uva"), [issued])

    def asked(self, token: str) -> Identity:
        headers = [(b"authorization", f"Bearer {token}".encode("latin-1"))]
        return asyncio.run(self.all(HTTPConnection({"type": "http", "headers": headers})))

    def refuses(self, token: str, why: str) -> None:
        with pytest.raises(SiteRefused) as refused:
            self.asked(token)
        assert why in refused.value.reason, refused.value.reason
        assert token not in str(refused.value)


@pytest.fixture
def door(tmp_path: Path, issuer: TestIssuer) -> Door:
    return Door(tmp_path, issuer)


@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES256", "Ed25519"])
def test_who_is_signed_for_is_known(door: Door, issuer: TestIssuer, alg: str) -> None:
    assert door.asked(issuer.token(alg)) == Identity(user="anna", role="user")
    assert door.asked(issuer.token(alg, aud=["other", AUDIENCE])).user == "anna"
    assert door.asked(PLAIN) == Identity(user="root", role="admin")
    assert len(issuer.asked) == 2, "the keys are kept"


def b64(document: Any) -> str:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unsigned(issuer: TestIssuer, alg: str) -> str:
    return f"{b64({'alg': alg, 'kid': 'rsa'})}.{b64(issuer.claims())}."


def confused(issuer: TestIssuer) -> str:
    """Signed with the published key, taken for a shared secret."""
    body = f"{b64({'alg': 'HS256', 'kid': 'rsa'})}.{b64(issuer.claims())}"
    secret = RSA.as_pem(private=False)
    return f"{body}.{b64(hmac.new(secret, body.encode(), hashlib.sha256).digest())}"


def edited(issuer: TestIssuer) -> str:
    head, _, signature = issuer.token().split(".")
    return f"{head}.{b64(issuer.claims(preferred_username='root'))}.{signature}"


def forged(issuer: TestIssuer) -> str:
    """By a key of one's own, under the name of the issuer's."""
    return issuer.token(key=RSAKey.generate_key(2048, {"kid": "rsa"}, private=True))


def brought(issuer: TestIssuer) -> str:
    """By a key that the token brings along, or says where to fetch."""
    own = RSAKey.generate_key(2048, {"kid": "own"}, private=True)
    header = {
        "alg": "RS256",
        "kid": "own",
        "jwk": own.as_dict(private=False),
        "jku": f"{issuer.url}/keys",
    }
    return jwt.encode(header, issuer.claims(), own)


def of_other_kind(issuer: TestIssuer) -> str:
    """An algorithm that is not that of the key."""
    head = {"alg": "RS256", "kid": "ec"}
    own = RSAKey.generate_key(2048, {"kid": "ec"}, private=True)
    return jwt.encode(head, issuer.claims(), own)


def shared(issuer: TestIssuer) -> str:
    return jwt.encode({"alg": "HS256", "kid": "rsa"}, issuer.claims(), OctKey.import_key("x" * 32))


def critical(issuer: TestIssuer) -> str:
    head, body, signature = issuer.token().split(".")
    del head
    return f"{b64({'alg': 'RS256', 'kid': 'rsa', 'crit': ['exp']})}.{body}.{signature}"


ATTACKS: dict[str, tuple[Callable[[TestIssuer], str], str]] = {
    "none": (lambda issuer: unsigned(issuer, "none"), "no signed one"),
    "None": (lambda issuer: unsigned(issuer, "None"), "no signed one"),
    "empty signature": (lambda issuer: unsigned(issuer, "RS256"), "signature"),
    "key confusion": (confused, "no signed one"),
    "shared secret": (shared, "no signed one"),
    "claims edited": (edited, "signature"),
    "forged": (forged, "signature"),
    "key brought along": (brought, "does not publish"),
    "key of another kind": (of_other_kind, "signature"),
    "critical header": (critical, "no signed one"),
    "ran out": (
        lambda i: i.token(iat=int(time.time()) - 600, exp=int(time.time()) - 60),
        "run out",
    ),
    "not yet": (lambda i: i.token(nbf=int(time.time()) + 600), "not for this site"),
    "of the future": (
        lambda i: i.token(iat=int(time.time()) + 600, exp=int(time.time()) + 900),
        "not for this site",
    ),
    "for another site": (lambda i: i.token(aud="amc"), "not for this site"),
    "for nobody": (lambda i: i.token(aud=None), "not for this site"),
    "for ever": (lambda i: i.token(exp=None), "not for this site"),
    "for too long": (lambda i: i.token(exp=int(time.time()) + 86_400), "good for longer"),
    "made when": (lambda i: i.token(iat=None), "not for this site"),
    "about nobody": (lambda i: i.token(sub=None), "not for this site"),
    "without a name": (lambda i: i.token(preferred_username=None), "no name of a user"),
    "a name like a path": (lambda i: i.token(preferred_username="../root"), "no name of a user"),
    "a name that is a list": (lambda i: i.token(preferred_username=["anna"]), "no name"),
    "time as text": (lambda i: i.token(exp="never"), "not for this site"),
    "of another issuer": (lambda i: i.token(iss="https://evil.example.org"), "not known here"),
    "too long": (lambda i: i.token(more="x" * 20_000), "too long"),
    "no JSON": (lambda i: "a.b.c", "not known here"),
    "nested": (lambda i: f"{b64(b'[' * 9_000)}.{b64(b'[' * 9_000)}.x", "not known here"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_not_signed_for_us_is_refused(door: Door, issuer: TestIssuer, attack: str) -> None:
    make, why = ATTACKS[attack]
    door.refuses(make(issuer), why)


def test_what_was_revoked_is_refused_from_the_next_request_on(
    door: Door, issuer: TestIssuer
) -> None:
    token, other = issuer.token(), issuer.token(jti="t2")
    assert door.asked(token).user == "anna"
    door.revoked.write_text("token t1 # lost\n")
    door.refuses(token, "revoked")
    assert door.asked(other).user == "anna"
    door.revoked.write_text(f"user anna before {time.time() + 60}\n")
    door.refuses(other, "revoked")
    later = int(time.time()) + 120
    door.clock.ahead = 130.0
    assert door.asked(issuer.token(iat=later, exp=later + 60)).user == "anna"
    door.revoked.write_text(f"before {later + 1:.0f} # all of them\n")
    door.refuses(issuer.token(iat=later, exp=later + 60), "revoked")
    door.revoked.write_text("whom?\n")
    door.refuses(issuer.token(iat=later + 5, exp=later + 60), "cannot be read")
    door.revoked.write_text("\n# nobody\n")
    assert door.asked(issuer.token(iat=later, exp=later + 60)).user == "anna"
    os.unlink(door.revoked)
    door.refuses(issuer.token(iat=later, exp=later + 60), "cannot be read")
    door.revoked.write_text("user\n")
    with pytest.raises(ConfigError, match="user NAME"):
        Revoked(door.revoked)
    door.revoked.write_bytes(b"user \xff\xfe\n")
    door.refuses(issuer.token(iat=later, exp=later + 60), "cannot be read")
    with pytest.raises(ConfigError, match="UTF-8"):
        Revoked(door.revoked)


def test_keys_that_an_issuer_withdraws_are_not_believed_for_long(
    door: Door, issuer: TestIssuer
) -> None:
    assert door.asked(issuer.token("ES256")).user == "anna"
    issuer.keys = [key for key in issuer.keys if key["kid"] != "ec"]
    door.clock.ahead = 290.0
    assert door.asked(issuer.token("ES256")).user == "anna", "the keys are asked for every 5 min"
    door.clock.ahead = 310.0
    later = int(time.time()) + 310
    door.refuses(issuer.token("ES256", iat=later, exp=later + 60), "does not publish")
    many = len(issuer.asked)
    for _ in range(5):
        door.refuses(issuer.token("ES256", iat=later, exp=later + 60), "does not publish")
    assert len(issuer.asked) == many, "nobody makes us ask again and again"
    issuer.keys.append(EC.as_dict(private=False))
    door.clock.ahead = 320.0
    assert door.asked(issuer.token("ES256", iat=later, exp=later + 60)).user == "anna"


def test_a_token_with_an_unknown_key_takes_nobody_elses_keys_away(
    door: Door, issuer: TestIssuer
) -> None:
    assert door.asked(issuer.token()).user == "anna"
    issuer.changes = {"issuer": "https://evil.example.org"}  # as if it did not answer
    door.clock.ahead = 10.0
    unknown = f"{b64({'alg': 'RS256', 'kid': 'nobody'})}.{b64(issuer.claims())}.{b64(b'x')}"
    door.refuses(unknown, "does not publish")
    assert door.asked(issuer.token()).user == "anna"
    door.clock.ahead = 320.0
    later = int(time.time()) + 320
    door.refuses(issuer.token(iat=later, exp=later + 60), "cannot be had")


def test_who_cannot_ask_the_issuer_lets_nobody_in(door: Door, issuer: TestIssuer) -> None:
    issuer.changes = {"issuer": "https://evil.example.org"}
    door.refuses(issuer.token(), "cannot be had")
    issuer.changes = {"jwks_uri": "http://192.0.2.1/keys"}
    door.clock.ahead = 10.0
    door.refuses(issuer.token(), "cannot be had")
    issuer.changes, issuer.keys = {}, [{"kty": "oct", "k": "eHh4", "kid": "rsa"}]
    door.clock.ahead = 20.0
    door.refuses(issuer.token(), "cannot be had")
    assert door.asked(PLAIN).user == "root", "the file does not need it"
    for url in ("http://sso.example.org", "ftp://127.0.0.1", "file:///etc/passwd"):
        with pytest.raises(ConfigError, match="https"):
            check_url(url)


def test_roles_come_of_groups_and_nothing_else(tmp_path: Path, issuer: TestIssuer) -> None:
    roles = {"admin": ("stewards",), "user": ("staff",), "reader": ("guests",)}
    door = Door(tmp_path, issuer, groups="realm_access.roles", roles=roles, suffix="@lab")
    assert door.asked(issuer.token()) == Identity(user="anna@lab", role="user")

    def of(*groups: Any) -> str:
        return issuer.token(realm_access={"roles": list(groups)}, role="admin")

    assert door.asked(of("stewards", "staff")).role == "admin"
    assert door.asked(of("guests", 7)).role == "reader"
    door.refuses(of("others"), "no group")
    door.refuses(of(), "no group")
    door.refuses(issuer.token(realm_access="stewards"), "no group")


def test_an_address_counts_only_if_it_was_verified(tmp_path: Path, issuer: TestIssuer) -> None:
    door = Door(tmp_path, issuer, user="email")
    mail = "anna@example.org"
    assert door.asked(issuer.token(email=mail, email_verified=True)).user == mail
    door.refuses(issuer.token(email=mail), "not verified")
    door.refuses(issuer.token(email=mail, email_verified="yes"), "not verified")
