"""``dataflow agent``: from a site file to a served site."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from dataflow.config import Federation, Listen, read_site_file
from dataflow.errors import ConfigError


def run(
    config: Path,
    *,
    host: str | None,
    port: int | None,
    socket: Path | None,
    state: Path | None,
    tokens: Path | None,
    debug: bool,
) -> None:
    """Serve the site that ``config`` describes until the process is told to stop.

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
    try:
        from dataflow.agent.auth import TokenFile
        from dataflow.agent.serve import configure_logs, serve
        from dataflow.participant import Participant
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"an agent needs {error.name!r}: pip install 'jupyter-dataflow[service]'"
        ) from error
    if state is not None:
        federation = replace(federation, state=state.absolute())
    configure_logs(debug=debug)
    asyncio.run(
        serve(
            lambda address: Participant(federation, address),
            site=site.name,
            listen=_listen(federation, host, port, socket),
            state_dir=federation.state,
            authenticate=TokenFile(tokens, site.name) if tokens is not None else None,
        )
    )


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
