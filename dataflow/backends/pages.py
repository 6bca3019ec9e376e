"""Pages: Dask's dashboard, loaded when somebody looks at it first.

Its plots (Bokeh) take an agent up to a second of processor time to load and 18 MB to keep, and most
agents are never looked at. Until then the scheduler answers numbers only (``/json/counts.json``, ``/metrics``).
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

_PAGES = "distributed.dashboard.scheduler"


def offer(scheduler: Any) -> None:
    """Have whatever page is asked of a scheduler loaded, with all others, and shown then.

    Parameters
    ----------
    scheduler
        A :class:`distributed.Scheduler` that runs in this event loop and was started with
        ``dashboard=False``. One that serves no HTTP stays as it is.
    """
    from tornado import web

    application: Any = getattr(scheduler, "http_application", None)
    if application is None:
        return
    loading: asyncio.Future[Any] | None = None

    class FirstLook(web.RequestHandler):
        async def get(self) -> None:
            nonlocal loading
            if loading is None or (loading.done() and first in application.applications):
                loading = asyncio.ensure_future(load())
            await asyncio.shield(loading)  # whoever looks may go away meanwhile
            self.redirect("/" + (self.request.uri or "").lstrip("/"))

    async def load() -> None:
        pages = await asyncio.to_thread(import_module, _PAGES)
        pages.connect(application, scheduler.http_server, scheduler)
        application.applications.remove(first)

    first = web.Application([(r".*", FirstLook)])
    application.add_application(first)
