"""Certificates: what an agent shows, and which other sites it knows by theirs.

A site whose certificate stands in our site file is believed only with it: its token, shown by anybody
without the key of that certificate, is good for nothing here. The handshake proves the key; what was shown
is put into the scope of each request of the connection, where no client can write.
"""

from __future__ import annotations

import datetime
import hmac
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from dataflow.agent.auth import Authenticate, Identity
from dataflow.client.pinned import digest_of, read_certificate
from dataflow.errors import ConfigError, SiteRefused

if TYPE_CHECKING:
    import asyncio

    from starlette.requests import HTTPConnection
    from starlette.types import ASGIApp, Receive, Scope, Send

#: In the scope of a request: digest of the certificate whose key its sender has.
SHOWN = "dataflow.certificate"
#: A certificate of our own making holds for so many days; a new one has to be handed over again.
_DAYS = 3650


class Known:
    """The same question as ``authenticate``, and for sites with a certificate a second proof.

    Parameters
    ----------
    authenticate
        Who believes the tokens.
    site
        Name of our own site, for the text of a refusal.
    certificates
        Site → its certificate (DER).
    """

    def __init__(
        self, authenticate: Authenticate, site: str, certificates: Mapping[str, bytes]
    ) -> None:
        self._authenticate, self._site = authenticate, site
        self._digests = {name: digest_of(one) for name, one in certificates.items()}

    async def __call__(self, request: HTTPConnection, /) -> Identity:
        identity = await self._authenticate(request)
        expected = self._digests.get(identity.user) if identity.role == "site" else None
        if expected is not None:
            shown = request.scope.get(SHOWN) or b""
            if not hmac.compare_digest(shown, expected):
                raise SiteRefused(
                    self._site, "the token of a site is good here only with that site's certificate"
                )
        return identity


class ShowsCertificate(AutoHTTPProtocol):  # type: ignore[misc,valid-type]
    """Uvicorn's connection, except that requests carry what their sender has shown."""

    app: ASGIApp

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        shown = tls.getpeercert(binary_form=True) if tls is not None else None
        self.app = _with_shown(self.app, digest_of(shown) if shown else None)


def _with_shown(app: ASGIApp, digest: bytes | None) -> ASGIApp:
    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        scope[SHOWN] = digest
        await app(scope, receive, send)

    return called


def ask_for(context: ssl.SSLContext, certificates: Mapping[str, bytes]) -> None:
    """Have a server ask for certificates, and take those of these sites or none at all.

    Raises
    ------
    ConfigError
        If one of them is damaged.
    """
    for site, certificate in certificates.items():
        try:
            context.load_verify_locations(cadata=certificate)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"the certificate of {site!r} is damaged: {error}") from error
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_mode = ssl.CERT_OPTIONAL


def read_certificates(files: Mapping[str, Path]) -> dict[str, bytes]:
    """Site → its certificate (DER).

    Raises
    ------
    ConfigError
        If a file cannot be read or holds none, or two sites have the same one.
    """
    found: dict[str, bytes] = {}
    for site, file in files.items():
        certificate = read_certificate(file)
        for other, known in found.items():
            if known == certificate:
                raise ConfigError(f"{site!r} and {other!r} have the same certificate", str(file))
        found[site] = certificate
    return found


def make_pair(site: str, certificate: Path, key: Path) -> None:
    """Write a new key, for its owner only, and a certificate of it that is signed by itself.

    Nothing is done if both are there.

    Raises
    ------
    ConfigError
        If only one of them is: nobody can say which of the two is to be replaced.
    """
    there = [path for path in (certificate, key) if path.exists()]
    if len(there) == 2:
        return
    if there:
        gone = key if there == [certificate] else certificate
        raise ConfigError(
            f"its counterpart {gone} is missing: bring it back, or remove this file as well to have "
            "a new pair made, whose certificate you then have to hand over again",
            str(there[0]),
        )
    private, public = _pair(site)
    for path, content, mode in ((key, private, 0o600), (certificate, public, 0o644)):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        draft.replace(path)


def _pair(site: str) -> tuple[bytes, bytes]:
    """A new key and its certificate (PEM)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, site[:64])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks of two sites may differ.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem: Any = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(pem)
