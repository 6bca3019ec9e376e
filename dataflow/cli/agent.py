"""``dataflow agent``: from a site file to a served site."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from dataflow.config import Federation, Listen, read_site_file
from dataflow.config.shapes import LONGEST_SOCKET
from dataflow.errors import ConfigError

#: An agent that was started for somebody ends when nobody has wanted anything for so long.
IDLE_SECONDS = 900.0


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
        _detach(config, federation, host, port, socket, tokens, idle)
        return
    try:
        from dataflow.agent.auth import TokenFile
        from dataflow.agent.serve import configure_logs, serve
        from dataflow.participant import Participant
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"an agent needs {error.name!r}: pip install 'jupyter-dataflow[service]'"
        ) from error
    configure_logs(debug=debug)
    asyncio.run(
        serve(
            lambda address: Participant(federation, address),
            site=site.name,
            listen=_listen(federation, host, port, socket),
            state_dir=federation.state,
            authenticate=TokenFile(tokens, site.name) if tokens is not None else None,
            idle=idle,
        )
    )


def _detach(
    config: Path,
    federation: Federation,
    host: str | None,
    port: int | None,
    socket: Path | None,
    tokens: Path | None,
    idle: float | None,
) -> None:
    from dataflow.agent.detached import SOCKET_FILE, ensure_agent

    if socket is None and host is None and port is None and federation.listen is None:
        socket = federation.state / SOCKET_FILE
        if len(str(socket).encode()) > LONGEST_SOCKET:
            socket, port = None, 0
    chosen: dict[str, object] = {
        "config": config.absolute(),
        "state": federation.state,
        "tokens": tokens.absolute() if tokens is not None else None,
        "host": host,
        "port": port,
        "socket": socket.absolute() if socket is not None else None,
        "idle": IDLE_SECONDS if idle is None else idle,
    }
    arguments = [f"--{name}={value}" for name, value in chosen.items() if value is not None]
    site = federation.site
    assert site is not None
    print(ensure_agent(site.name, federation.state, arguments, tokens), flush=True)


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
