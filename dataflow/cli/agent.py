"""``dataflow agent``: from a site file to a served site."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dataflow import tracing
from dataflow.agent.lean import UNUSED, without
from dataflow.config import Federation, Listen, read_site_file
from dataflow.config.shapes import LONGEST_SOCKET
from dataflow.errors import ConfigError

if TYPE_CHECKING:
    from dataflow.agent.auth import Authenticate

#: An agent that was started for somebody ends when nobody has wanted anything for so long.
IDLE_SECONDS = 900.0
#: In the state directory: tokens and users that are not believed any more.
REVOKED_FILE = "revoked"


def run(
    config: Path,
    *,
    host: str | None,
    port: int | None,
    socket: Path | None,
    state: Path | None,
    tokens: Path | None,
    debug: bool,
    detach: bool = False,
    idle: float | None = None,
) -> None:
    """Serve the site that ``config`` describes until the process is told to stop.

    With ``detach``: see to it that such a process runs, and print where it answers. With ``idle``
    it ends by itself when nobody has asked for anything, and nothing has run, for so many seconds.

    Raises
    ------
    ConfigError
        If the file describes no site, or the address may not be used.
    """
    federation = read_site_file(config)
    site = federation.site
    if site is None:
        raise ConfigError(
            "this file has no site: of its own, so there is none to serve", str(config)
        )
    if state is not None:
        federation = replace(federation, state=state.absolute())
    if detach:
        tokens = tokens.absolute() if tokens is not None else None
        socket, port = _socket_of_ones_own(federation, host, port, socket)
        idle = IDLE_SECONDS if idle is None else idle
        if _found(federation, tokens):
            return
    try:
        with without(*UNUSED):
            from dataflow.agent.auth import TokenFile
            from dataflow.agent.serve import configure_logs, serve
            from dataflow.participant import Participant
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"an agent needs {error.name!r}: pip install 'jupyter-dataflow[service]'"
        ) from error
    configure_logs(debug=debug)
    tracing.begin(site.name)
    authenticate: Authenticate | None = None
    if tokens is not None:
        authenticate = TokenFile(tokens, site.name)
    if federation.issuers:
        authenticate = _signing_in(federation, site.name, authenticate)
    asyncio.run(
        serve(
            lambda address: Participant(federation, address),
            site=site.name,
            listen=_with_pair(federation, _listen(federation, host, port, socket)),
            state_dir=federation.state,
            authenticate=authenticate,
            certificates=federation.certificates,
            idle=idle,
        )
    )


def show_certificate(config: Path, *, state: Path | None) -> None:
    """Print where the certificate of a site's agent lies, and its fingerprint; make it if need be.

    Raises
    ------
    ConfigError
        If the site's agent has none, or it cannot be read.
    """
    from dataflow.client.pinned import fingerprint, read_certificate

    federation = read_site_file(config)
    if state is not None:
        federation = replace(federation, state=state.absolute())
    if federation.pair is None:
        raise ConfigError(
            "this file gives its agent no certificate; 'certificate: own' in listen: has it make one",
            str(config),
        )
    _with_pair(federation, federation.listen or Listen())
    certificate, _ = federation.pair
    print(f"{certificate}\nSHA-256 {fingerprint(read_certificate(certificate))}", flush=True)


def _with_pair(federation: Federation, listen: Listen) -> Listen:
    """Where to listen, with the files of a certificate that is of the agent's own making."""
    if not listen.own or listen.socket is not None or federation.pair is None:
        return listen
    from dataflow.agent.certificates import make_pair

    certificate, key = federation.pair
    make_pair(federation.me or "", certificate, key)
    return replace(listen, certificate=certificate, key=key)


def _signing_in(federation: Federation, site: str, plain: Authenticate | None) -> Authenticate:
    """Those whom the file of tokens knows, and those whom an issuer knows."""
    from dataflow.agent.auth import TokenFile
    from dataflow.agent.detached import TOKEN_FILE
    from dataflow.agent.serve import own_tokens

    try:
        from dataflow.agent.issued import AnyOf, IssuedTokens, Revoked
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"identity: needs {error.name!r}: pip install 'jupyter-dataflow[service]'"
        ) from error
    if plain is None:
        own_tokens(federation.state)
        plain = TokenFile(federation.state / TOKEN_FILE, site)
    revoked = Revoked(federation.state / REVOKED_FILE)
    return AnyOf(site, plain, [IssuedTokens(one, site, revoked) for one in federation.issuers])


def _found(federation: Federation, tokens: Path | None) -> bool:
    """Whether an agent runs, now at the latest, and it is not we who are to be it."""
    from dataflow.agent.detached import ensure_agent

    site = federation.site
    assert site is not None
    line = ensure_agent(site.name, federation.state, tokens)
    if line is not None:
        print(line, flush=True)
    return line is not None


def _socket_of_ones_own(
    federation: Federation, host: str | None, port: int | None, socket: Path | None
) -> tuple[Path | None, int | None]:
    """Where an agent listens that was started for somebody, unless it is said where."""
    from dataflow.agent.detached import SOCKET_FILE

    if socket is not None or host is not None or port is not None or federation.listen is not None:
        return socket.absolute() if socket is not None else None, port
    socket = federation.state / SOCKET_FILE
    if len(str(socket).encode()) > LONGEST_SOCKET:
        return None, 0
    return socket.absolute(), None


def _listen(
    federation: Federation, host: str | None, port: int | None, socket: Path | None
) -> Listen:
    listen = federation.listen or Listen()
    if socket is not None:
        if host is not None or port is not None:
            raise ConfigError("give a host and port, or a socket, not both")
        return Listen(socket=socket.absolute(), public=listen.public)
    if host is not None or port is not None:
        return replace(
            listen,
            host=listen.host if host is None else host,
            port=listen.port if port is None else port,
            socket=None,
        )
    return listen
