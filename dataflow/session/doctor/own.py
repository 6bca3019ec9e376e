"""Own: the state directory, the place to listen at, and the machine of our own site."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import ssl
import stat
import tempfile
import time
from pathlib import Path

from dataflow.client.look import NoAnswer, looking
from dataflow.config import Federation, Listen
from dataflow.config.shapes import LONGEST_SOCKET
from dataflow.session.doctor import judge
from dataflow.session.doctor.checks import Finding, Notes, failed, in_thread, ok, warning
from dataflow.session.doctor.stores import existing

#: Seconds for all of it.
OWN_SECONDS = 8.0

#: The longest name of a socket that an agent makes in its state directory by itself.
_SOCKET = "agent.sock"

#: Seconds for an agent on this machine to say that it is there.
_ANSWER_SECONDS = 2.0

#: A certificate should hold for so many days yet.
_DAYS = 14


async def examine_own(federation: Federation, notes: Notes) -> None:
    """All checks of this machine as a site, or as a visitor."""
    notes.begin("state directory")
    if notes.end(await in_thread(lambda: _state(federation.state))):
        notes.begin("free space")
        there = await in_thread(lambda: existing(federation.state))
        notes.end(judge.space((await in_thread(lambda: shutil.disk_usage(there))).free))
    if federation.me is None:
        return
    listen = federation.listen
    notes.begin("listen")
    if listen is None:
        notes.end(_socket_path(federation.state / _SOCKET))
    elif listen.socket is not None:
        notes.end(await _socket(listen.socket, federation.me))
    else:
        notes.end(await _port(listen, federation.me))
    if federation.pair is not None:
        pair, own = federation.pair, listen is not None and listen.own
        notes.begin("certificate")
        notes.end(await in_thread(lambda: _certificate(*pair, own=own)))


def _state(path: Path) -> Finding:
    if not path.exists():
        parent = existing(path)
        if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
            return ok(f"{path} is made when it is needed")
        advice = "name another with state: in the site file, or DATAFLOW_STATE_DIR"
        return failed(f"{path} cannot be made in {parent}", advice)
    if not path.is_dir():
        return failed(f"{path} is no directory", "remove it, or name another with state:")
    try:
        # Trying is the only way to know: file systems have more rules than modes.
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        advice = "make it writable for this account, or name another with state:"
        return failed(f"{path} cannot be written to: {error.strerror}", advice)
    facts = path.stat()
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return failed(f"others can write to {path}", f"chmod 700 {path}")
    if facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return warning(f"others can look into {path}", f"chmod 700 {path}")
    return ok(f"{path}, writable and private")


def _socket_path(path: Path) -> Finding:
    length = len(str(path).encode())
    if length > LONGEST_SOCKET:
        said = f"the path of a socket there has {length} bytes, more than {LONGEST_SOCKET}"
        advice = "name a shorter directory with state:; until then an agent takes any free port"
        return warning(said, advice)
    return ok(f"an agent would listen on {path}")


async def _socket(path: Path, site: str) -> Finding:
    if not path.exists():
        return _socket_path(path)
    if not path.is_socket():
        return failed(f"{path} exists and is no socket", "remove it, or name another in listen:")
    return await _who(f"unix://{path}", site) or ok(f"{path} is left over; an agent replaces it")


async def _port(listen: Listen, site: str) -> Finding:
    shown = f"{listen.host}:{listen.port}"
    try:
        await in_thread(lambda: _bind(listen))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            scheme = "https" if listen.certificate or listen.own else "http"
            host = f"[{listen.host}]" if ":" in listen.host else listen.host
            said = f"{shown} is taken, by something that is no agent"
            advice = "end that program, or name another port in listen:"
            return await _who(f"{scheme}://{host}:{listen.port}", site) or failed(said, advice)
        advice = {
            errno.EACCES: "ports below 1024 are for administrators: name a higher one",
            errno.EADDRNOTAVAIL: "this machine has no such address; 127.0.0.1 is always there",
        }.get(error.errno or 0, "name another address in listen:")
        return failed(f"{shown}: {error.strerror or error}", advice)
    return ok(f"{shown} is free" if listen.port else f"any free port of {listen.host}")


def _bind(listen: Listen) -> None:
    """Take the port for a moment, as an agent would."""
    family, kind, protocol, _, where = socket.getaddrinfo(
        listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(where)


async def _who(address: str, site: str) -> Finding | None:
    """Whether our own agent answers at an address; ``None`` if no agent does."""
    try:
        async with looking(address, seconds=_ANSWER_SECONDS) as ask:
            # An agent refuses this without a token, and in its own name.
            look = await ask("/v1/site")
    except NoAnswer as error:
        if error.step == "tls":  # its certificate is for another name than this address
            return ok(f"something that speaks TLS answers at {address}")
        return None
    words = look.document.get("args") if isinstance(look.document, dict) else None
    if look.status != 401 or not isinstance(words, list) or not words:
        return None
    if words[0] == site:
        return ok(f"the agent of {site} answers at {address}")
    advice = "name another port or socket in listen:"
    return failed(f"the agent of {words[0]} answers at {address}", advice)


def _certificate(certificate: Path, key: Path, *, own: bool) -> Finding:
    from cryptography.x509 import load_pem_x509_certificate

    if own and not certificate.exists() and not key.exists():
        return ok(f"{certificate} is made when the agent starts")
    advice = "mend certificate: and key: in listen:"
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # A password would be asked for at the terminal.
        context.load_cert_chain(certificate, key, password="")
        found = load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError) as error:
        return failed(f"{certificate}: {error}", advice)
    days = (found.not_valid_after_utc.timestamp() - time.time()) / 86_400
    if days < 0:
        return failed(f"{certificate} is no longer valid", "renew it")
    if days < _DAYS:
        return warning(f"{certificate} holds for {days:.0f} days yet", "renew it")
    return ok(f"{certificate} holds for {days:.0f} days yet")
