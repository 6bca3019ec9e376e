"""An agent's own certificate, and sites that are known by theirs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from dataflow.agent.auth import Identity, Role
from dataflow.agent.certificates import SHOWN, Known, make_pair, read_certificates
from dataflow.client.pinned import digest_of
from dataflow.errors import ConfigError, SiteRefused

CERTIFICATES = {"delft": b"certificate of delft", "leiden": b"certificate of leiden"}
ROLES: tuple[Role, ...] = ("reader", "user", "site", "admin")


async def admitted(identity: Identity, shown: bytes | None) -> bool:
    async def known(_: HTTPConnection, /) -> Identity:
        return identity

    scope: dict[str, Any] = {"type": "http", "headers": []}
    if shown is not None:
        scope[SHOWN] = digest_of(shown)
    try:
        found = await Known(known, "amsterdam", CERTIFICATES)(HTTPConnection(scope))
    except SiteRefused:
        return False
    assert found == identity
    return True


@given(
    user=st.sampled_from(["delft", "leiden", "utrecht"]),
    role=st.sampled_from(ROLES),
    shown=st.sampled_from([None, b"", b"another", *CERTIFICATES.values()]),
)
def test_a_known_site_needs_its_own_certificate(user: str, role: Role, shown: bytes | None) -> None:
    needed = CERTIFICATES.get(user) if role == "site" else None
    expected = needed is None or shown == needed
    assert asyncio.run(admitted(Identity(user=user, role=role), shown)) is expected


def test_who_is_not_known_at_all_stays_unknown() -> None:
    async def nobody(_: HTTPConnection, /) -> Identity:
        raise SiteRefused("amsterdam", "the token is not known here")

    scope = {"type": "http", "headers": [], SHOWN: digest_of(CERTIFICATES["delft"])}
    with pytest.raises(SiteRefused, match="not known"):
        asyncio.run(Known(nobody, "amsterdam", CERTIFICATES)(HTTPConnection(scope)))


def test_a_pair_is_made_once_and_its_key_is_private(tmp_path: Path) -> None:
    certificate, key = tmp_path / "state" / "c.pem", tmp_path / "state" / "k.pem"
    make_pair("delft", certificate, key)
    assert key.stat().st_mode & 0o777 == 0o600
    read = x509.load_pem_x509_certificate(certificate.read_bytes())
    assert read.subject.rfc4514_string() == "CN=delft"
    assert not read.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    before = certificate.read_bytes(), key.read_bytes()
    make_pair("delft", certificate, key)
    assert (certificate.read_bytes(), key.read_bytes()) == before
    assert sorted(path.name for path in certificate.parent.iterdir()) == ["c.pem", "k.pem"]


@pytest.mark.parametrize("gone", ["c.pem", "k.pem"])
def test_half_a_pair_is_not_replaced(tmp_path: Path, gone: str) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    make_pair("delft", certificate, key)
    (tmp_path / gone).unlink()
    with pytest.raises(ConfigError, match=gone):
        make_pair("delft", certificate, key)
    assert not (tmp_path / gone).exists()


def test_two_sites_do_not_share_a_certificate(tmp_path: Path) -> None:
    make_pair("delft", tmp_path / "c.pem", tmp_path / "k.pem")
    with pytest.raises(ConfigError, match=r"'leiden' and 'delft' have the same"):
        read_certificates({"delft": tmp_path / "c.pem", "leiden": tmp_path / "c.pem"})
