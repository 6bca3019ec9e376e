"""Which token is shown where."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dataflow.config import Federation
from dataflow.config.records import PeerAddress
from dataflow.errors import ConfigError, SiteUnreachable
from dataflow.participant.ways import Ways
from dataflow.sites import Site, Topology


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "credentials.yaml"
    file.touch(mode=0o600)
    file.write_text(
        "mine: {token: one}\n"
        "theirs: {token: two, address: 'http://b.example/'}\n"
        "empty: {user: nobody}\n"
    )
    monkeypatch.setenv("DATAFLOW_CREDENTIALS_FILE", str(file))
    return file


def ways(tmp_path: Path, *peers: PeerAddress, sites: tuple[Site, ...] = ()) -> Ways:
    federation = Federation(peers=peers, state=tmp_path)
    return Ways(federation, "me", lambda: Topology(sites=sites))


def shown(ways: Ways, address: str) -> str:
    return ways.at(address).headers().get("authorization", "")


A = PeerAddress(address="http://a.example", credentials="mine", site="a")


def test_own_file_decides(tmp_path: Path, credentials: Path) -> None:
    known = ways(tmp_path, A)
    assert shown(known, "http://a.example") == "Bearer one"
    assert shown(known, "http://b.example") == "Bearer two", "the entry names this address itself"
    assert shown(known, "http://c.example") == "", "a stranger is shown nothing"


def test_what_others_suggest_is_not_shown(tmp_path: Path, credentials: Path) -> None:
    known = ways(tmp_path, A)
    client = known.at("http://evil.example", "mine")
    assert "authorization" not in client.headers()


def test_an_administrator_may_allow_an_address(tmp_path: Path, credentials: Path) -> None:
    known = ways(tmp_path)
    known.allow("http://c.example", "mine")
    assert shown(known, "http://c.example/") == "Bearer one"
    with pytest.raises(ConfigError, match="nowhere-to-be-found"):
        known.allow("http://d.example", "nowhere-to-be-found")


def test_allowing_without_a_name_takes_no_token_away(tmp_path: Path, credentials: Path) -> None:
    known = ways(tmp_path, A)
    known.allow("http://a.example/", None)
    known.allow("http://b.example", None)
    assert shown(known, "http://a.example") == "Bearer one"
    assert shown(known, "http://b.example") == "Bearer two"


def test_missing_credentials_are_told_at_once(tmp_path: Path, credentials: Path) -> None:
    peer = PeerAddress(address="http://a.example", credentials="lost")
    with pytest.raises(ConfigError, match="'lost'"):
        ways(tmp_path, peer).check()


def test_a_credential_without_a_token(tmp_path: Path, credentials: Path) -> None:
    peer = PeerAddress(address="http://a.example", credentials="empty", site="a")
    known = ways(tmp_path, peer, sites=(Site(name="a", address="http://a.example"),))
    with pytest.raises(SiteUnreachable, match="no field 'token'"):
        known.to("a")


def test_sites_by_name(tmp_path: Path, credentials: Path) -> None:
    known = ways(tmp_path, A, sites=(Site(name="b", address="http://b.example"), Site(name="x")))
    assert known.to("a").name == "a"
    assert known.to("b") is known.to("b")
    for nowhere in ("x", "nobody"):
        with pytest.raises(SiteUnreachable, match="not known where"):
            known.to(nowhere)
    asyncio.run(known.close())
