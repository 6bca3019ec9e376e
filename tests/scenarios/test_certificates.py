"""Sites that talk TLS and know one another by certificate: a whole job, and those who pretend."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import xarray as xr

import dataflow as flow
from dataflow.agent.certificates import make_pair
from dataflow.client.pinned import pinned_tls
from dataflow.errors import SiteUnreachable
from dataflow.participant.audit import verify
from dataflow.testing.federation import Federation, SiteSettings

SITES = ("delft", "leiden", "surf")
VALUES = {name: np.arange(50_000.0) + 7 * number for number, name in enumerate(SITES)}


@flow.operation(lazy=False, output=8)
def total(*parts: xr.DataArray) -> xr.DataArray:
    """Sum of all values of all parts."""
    return sum((part.sum() for part in parts[1:]), parts[0].sum())


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("tls")
    settings = {name: SiteSettings(memory="1 GB") for name in SITES}
    with Federation(
        folder, settings, users={"anna": "user"}, tls=True, ready_within=60
    ) as federation:
        for name in SITES:
            np.save(federation.data(name) / "values.npy", VALUES[name])
        yield federation


def key_of(federation: Federation, site: str) -> Path:
    return federation.certificate(site).with_name("key.pem")


def asked(federation: Federation, site: str, token: str, pair: tuple[Path, Path] | None) -> int:
    """Status of what a site answers to who shows this token, and this certificate."""
    tls = pinned_tls(federation.certificate(site), pair)
    url = f"{federation.address(site)}/v1/records"
    shown = {"authorization": f"Bearer {federation.token(token)}"}
    return httpx2.get(url, headers=shown, verify=tls, trust_env=False).status_code


def test_a_job_over_three_sites(federation: Federation, tmp_path: Path) -> None:
    with flow.connect(federation.sites_file, state=tmp_path / "notebook") as session:
        parts = [
            session.register((federation.data(n) / "values.npy").as_uri(), name=n, site=n)
            for n in SITES
        ]
        job = session.submit(total(*(session[part.name] for part in parts)))
        job.wait(120)
        assert float(job.result()) == sum(values.sum() for values in VALUES.values())
        whole = session.open(SITES[0])  # read here, over a way of our own
        np.testing.assert_array_equal(np.asarray(whole), VALUES[SITES[0]])


def test_a_token_of_a_site_needs_its_certificate(federation: Federation, tmp_path: Path) -> None:
    pairs = {name: (federation.certificate(name), key_of(federation, name)) for name in SITES}
    assert asked(federation, "delft", "leiden", pairs["leiden"]) == 200
    assert asked(federation, "delft", "leiden", None) == 401
    assert asked(federation, "delft", "leiden", pairs["surf"]) == 401
    assert asked(federation, "delft", "anna", None) == 200
    assert asked(federation, "delft", "anna", pairs["surf"]) == 200

    forged = tmp_path / "c.pem", tmp_path / "k.pem"
    make_pair("leiden", *forged)
    with pytest.raises(httpx2.HTTPError):  # of its name, not of its key
        asked(federation, "delft", "leiden", forged)

    path = federation.root("delft") / "state" / "audit.jsonl"
    assert not verify(path).broken
    assert path.read_text().count("only with that site's certificate") == 2


def test_who_answers_in_the_place_of_a_site_learns_nothing(
    federation: Federation, tmp_path: Path
) -> None:
    forged = tmp_path / "c.pem", tmp_path / "k.pem"
    make_pair("surf", *forged)
    wire = federation.wires["surf"]
    before = wire.target
    with impostor(forged) as (address, heard):
        try:
            wire.target = address
            wire.reset()
            with (
                flow.connect(federation.sites_file, state=tmp_path / "notebook") as session,
                pytest.raises(SiteUnreachable, match="certificate"),
            ):
                session.register((federation.data("surf") / "values.npy").as_uri(), site="surf")
            assert heard, "nobody has tried"
            assert not any(heard)
        finally:
            wire.target = before
            wire.reset()


@contextmanager
def impostor(pair: tuple[Path, Path]) -> Iterator[tuple[str, list[bytes]]]:
    """A server with a certificate of its own making; what each connection told it."""
    heard: list[bytes] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    class Raw(asyncio.Protocol):
        """TLS by hand, so that also a handshake that fails is a connection that was tried."""

        def connection_made(self, transport: Any) -> None:
            heard.append(b"")
            self.transport = transport
            self.inward, self.outward = ssl.MemoryBIO(), ssl.MemoryBIO()
            self.tls = context.wrap_bio(self.inward, self.outward, server_side=True)

        def data_received(self, data: bytes) -> None:
            self.inward.write(data)
            try:
                self.tls.do_handshake()
                while read := self.tls.read(65536):
                    heard.append(read)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                self.transport.close()
                return
            self.transport.write(self.outward.read())

    async def listen() -> asyncio.Server:
        return await loop.create_server(Raw, "127.0.0.1", 0)

    listening = asyncio.run_coroutine_threadsafe(listen(), loop).result(10)
    try:
        yield f"127.0.0.1:{listening.sockets[0].getsockname()[1]}", heard
    finally:
        loop.call_soon_threadsafe(listening.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
