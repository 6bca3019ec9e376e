"""Serving: a session that holds its site in this process answers the notebooks that run there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from dataflow.errors import ConfigError, SiteRefused

if TYPE_CHECKING:
    from dataflow.session.session import Session


@contextmanager
def answering(session: Session, site: str) -> Iterator[None]:
    """While this holds, a notebook at ``site`` is answered; nothing to do where an agent serves it.

    Raises
    ------
    ConfigError
        If what an agent is made of is not installed.
    """
    participant = session.participant
    if site != participant.federation.me:
        yield
        return
    with session.held(_served(participant)):
        yield


@asynccontextmanager
async def _served(participant: Any) -> AsyncIterator[None]:
    try:
        from dataflow.agent.app import create_app
        from dataflow.agent.inside import guests_of
        from dataflow.agent.serve import server_of
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"notebooks at this site need {error.name!r}: pip install 'jupyter-dataflow[service]'"
        ) from error

    async def nobody(request: Any, /) -> Any:
        del request
        raise SiteRefused(participant.name, "only notebooks that run here are answered")

    async with guests_of(participant) as inside:
        assert inside is not None
        app = create_app(participant, inside.admits(nobody))
        server = server_of(app)
        serving = asyncio.create_task(server.serve(sockets=[inside.listening]))
        try:
            yield
        finally:
            app.state.stopping.set()
            server.should_exit = True
            await serving
