"""Pinned: TLS with one party whose certificate was handed over beforehand, and with nobody else.

No authority is asked and no name is compared: that the other side has the key of this very certificate is
what counts. What it is connected to by mistake, or by somebody's will, learns neither token nor question.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
from pathlib import Path

from dataflow.config.records import Federation
from dataflow.errors import ConfigError


def read_certificate(file: Path) -> bytes:
    """The first certificate in a PEM file, as it is sent (DER).

    Raises
    ------
    ConfigError
        If the file cannot be read, or there is none in it.
    """
    try:
        text = file.read_text()
        begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
        return ssl.PEM_cert_to_DER_cert(text[text.index(begin) : text.index(end) + len(end)])
    except OSError as error:
        raise ConfigError(f"cannot read this certificate: {error.strerror}", str(file)) from error
    except ValueError:
        raise ConfigError(
            "there is no certificate in this file; it begins with -----BEGIN CERTIFICATE-----",
            str(file),
        ) from None


def digest_of(certificate: bytes) -> bytes:
    """SHA-256 of a certificate (DER)."""
    return hashlib.sha256(certificate).digest()


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of a certificate (DER), as ``openssl x509 -fingerprint -sha256`` writes it."""
    return digest_of(certificate).hex(":").upper()


def pinned_tls(file: Path, pair: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """TLS, as a client, with whoever has the key of the certificate in ``file``.

    Parameters
    ----------
    file
        PEM. Signed by itself or by anybody: it is believed because it stands here.
    pair
        Files of the certificate and the key that are shown, if any are.

    Raises
    ------
    ConfigError
        If a file cannot be read or is not what it should be.
    """
    certificate = read_certificate(file)
    expected = digest_of(certificate)

    class Pinned(ssl.SSLObject):
        """A connection that comes about with the holder of one key only.

        A certificate that is believed may sign others, which OpenSSL would believe as well.
        """

        def do_handshake(self) -> None:
            super().do_handshake()
            shown = self.getpeercert(binary_form=True) or b""
            if not hmac.compare_digest(digest_of(shown), expected):
                raise ssl.SSLCertVerificationError("this is not the certificate given for it")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.sslobject_class = Pinned
    try:
        context.load_verify_locations(cadata=certificate)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"this certificate is damaged: {error}", str(file)) from error
    if pair is not None:
        show(context, *pair)
    return context


def shown(federation: Federation) -> tuple[Path, Path] | None:
    """The pair of which our agent shows the certificate; none as long as it has not made it."""
    pair, listen = federation.pair, federation.listen
    if pair is not None and listen is not None and listen.own and not pair[1].exists():
        return None
    return pair


def show(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Have a context show this certificate.

    Raises
    ------
    ConfigError
        If a file cannot be read, or the key is of another certificate.
    """
    try:
        context.load_cert_chain(certificate, key, password="")  # or it would be asked for
    except ssl.SSLError as error:
        why = error.reason or "the key is protected by a password"
        raise ConfigError(
            f"this certificate and {key} do not fit: {why}", str(certificate)
        ) from None
    except OSError as error:
        raise ConfigError(
            f"cannot read this certificate, or its key {key}: {error.strerror}", str(certificate)
        ) from error
