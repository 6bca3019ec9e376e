"""One certificate counts, and nothing is said to anybody else."""

from __future__ import annotations

import asyncio
import datetime
import functools
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dataflow.agent.certificates import ask_for, make_pair, read_certificates
from dataflow.client import AgentClient
from dataflow.client.pinned import fingerprint, pinned_tls, read_certificate
from dataflow.errors import ConfigError, SiteUnreachable


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **more: Any) -> None:
        asyncio.run(test(*args, **more))

    return run


TOKEN = "a-token-that-nobody-else-may-see"
SITE = b'{"site": {"name": "delft"}}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
ANSWER %= (len(SITE), SITE)


def pair(folder: Path, name: str) -> tuple[Path, Path]:
    files = folder / f"{name}.pem", folder / f"{name}.key"
    make_pair(name, *files)
    return files


def signed(folder: Path, name: str, by: tuple[Path, Path], *, days: float = 9) -> tuple[Path, Path]:
    """A certificate that the holder of another one has signed."""
    authority = x509.load_pem_x509_certificate(by[0].read_bytes())
    signer = serialization.load_pem_private_key(by[1].read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.fromtimestamp(time.time(), datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=30))
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(signer, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    files = folder / f"{name}.pem", folder / f"{name}.key"
    files[0].write_bytes(certificate.public_bytes(pem))
    files[1].write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


@asynccontextmanager
async def server(files: tuple[Path, Path], *known: Path) -> AsyncIterator[tuple[str, list[bytes]]]:
    """An agent, as far as its own word goes; and all that it has heard."""
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(ANSWER)
            await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    if known:
        ask_for(context, read_certificates({file.stem: file for file in known}))
    listening = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}", heard
    finally:
        listening.close()


async def ask(address: str, tls: ssl.SSLContext) -> None:
    async with AgentClient(address, TOKEN, tls=tls, timeout=5.0) as client:
        await client.hello()


@in_loop
async def test_the_certificate_that_was_given_is_believed(tmp_path: Path) -> None:
    ours = pair(tmp_path, "ours")
    async with server(ours) as (address, heard):
        await ask(address, pinned_tls(ours[0]))
    assert TOKEN.encode() in heard[0]


@pytest.mark.parametrize("whose", ["another", "signed by it"])
@in_loop
async def test_anybody_else_learns_nothing(tmp_path: Path, whose: str) -> None:
    ours = pair(tmp_path, "ours")
    other = pair(tmp_path, "x") if whose == "another" else signed(tmp_path, "x", ours)
    async with server(other) as (address, heard):
        with pytest.raises(SiteUnreachable, match=r"certificate"):
            await ask(address, pinned_tls(ours[0]))
    assert not heard


@in_loop
async def test_one_by_an_authority_may_be_given_as_well(tmp_path: Path) -> None:
    theirs = signed(tmp_path, "theirs", pair(tmp_path, "authority"))
    async with server(theirs) as (address, heard):
        await ask(address, pinned_tls(theirs[0]))
        with pytest.raises(SiteUnreachable):
            await ask(address, pinned_tls(tmp_path / "authority.pem"))
    assert len(heard) == 1


@in_loop
async def test_what_has_run_out_is_not_believed(tmp_path: Path) -> None:
    old = signed(tmp_path, "old", pair(tmp_path, "authority"), days=-1)
    async with server(old) as (address, heard):
        with pytest.raises(SiteUnreachable, match="expired"):
            await ask(address, pinned_tls(old[0]))
    assert not heard


@in_loop
async def test_a_site_that_does_not_know_us_says_so_in_words(tmp_path: Path) -> None:
    theirs, ours, friend = (pair(tmp_path, name) for name in ("theirs", "ours", "friend"))
    async with server(theirs, friend[0]) as (address, heard):
        await ask(address, pinned_tls(theirs[0], friend))
        with pytest.raises(SiteUnreachable, match="perhaps it does not know the certificate"):
            await ask(address, pinned_tls(theirs[0], ours))
        await ask(address, pinned_tls(theirs[0]))
    assert len(heard) == 2


@in_loop
async def test_libraries_are_sent_to_a_port_that_leads_there_alone(tmp_path: Path) -> None:
    ours, other = pair(tmp_path, "ours"), pair(tmp_path, "other")
    for files, answers in ((ours, True), (other, False)):
        async with (
            server(files) as (address, heard),
            AgentClient(address, TOKEN, tls=pinned_tls(ours[0])) as client,
        ):
            with pytest.raises(ConfigError):
                client.data_url("x")
            await client.ready()
            where = client.data_url("x")
            host, _, port = where.removeprefix("http://").partition("/")[0].partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            answer = await reader.read()
            writer.close()
            assert (answer == ANSWER, len(heard)) == (answers, int(answers))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read"),
        ("no certificate", "there is no certificate"),
        ("-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n", "certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "damaged"),
    ],
)
def test_a_file_that_is_none_is_told(tmp_path: Path, content: str | None, said: str) -> None:
    file = tmp_path / "c.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=said) as error:
        pinned_tls(file)
    assert str(file) in str(error.value)


def test_a_pair_that_does_not_fit_is_told(tmp_path: Path) -> None:
    one, other = pair(tmp_path, "one"), pair(tmp_path, "other")
    with pytest.raises(ConfigError, match="do not fit"):
        pinned_tls(one[0], (one[0], other[1]))
    with pytest.raises(ConfigError, match="cannot read"):
        pinned_tls(one[0], (one[0], tmp_path / "gone.key"))


def test_the_fingerprint_is_written_as_elsewhere(tmp_path: Path) -> None:
    file, _ = pair(tmp_path, "one")
    known = x509.load_pem_x509_certificate(file.read_bytes()).fingerprint(hashes.SHA256())
    shown = fingerprint(read_certificate(file))
    assert shown == ":".join(f"{byte:02X}" for byte in known)
