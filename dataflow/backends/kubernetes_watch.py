"""Jobs and Pods of one run of an agent, as its API server shows them: listed, then watched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from dataflow.backends.kubernetes_api import Expired, KubernetesApi, Object
from dataflow.backends.pods import owner_of
from dataflow.errors import SiteError

log = structlog.get_logger(__name__)

#: Seconds between the end of a watch and the next list.
AGAIN = 0.5


class Watched:
    """What is there now, by the name of the Job.

    A list says what there is; a watch from its version on says what changes. A watch that is cut is
    no loss: the next list also shows what went away meanwhile.

    Parameters
    ----------
    api
        Where to look.
    selector
        Labels of what to look for.
    changed
        Called after each change.
    """

    def __init__(self, api: KubernetesApi, selector: str, changed: Callable[[], None]) -> None:
        self._api, self._selector, self._changed = api, selector, changed
        self.jobs: dict[str, Object] = {}
        self.pods: dict[str, Object] = {}
        #: Why nothing new is heard; ``None`` while it is.
        self.silent: SiteError | None = None
        self._following: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to look, in the background."""
        self._following = [
            asyncio.create_task(
                self._follow("jobs", self.jobs, lambda job: job["metadata"]["name"])
            ),
            asyncio.create_task(self._follow("pods", self.pods, owner_of)),
        ]

    async def close(self) -> None:
        """Look no more."""
        for task in self._following:
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)

    async def _follow(
        self, kind: str, found: dict[str, Object], key: Callable[[Object], str]
    ) -> None:
        while True:
            try:
                with suppress(Expired):
                    await self._once(kind, found, key)
            except SiteError as error:
                if self.silent is None:
                    log.warning("kubernetes-not-heard", kind=kind, reason=str(error))
                self.silent = error
                self._changed()
            await asyncio.sleep(AGAIN)

    async def _once(
        self, kind: str, found: dict[str, Object], key: Callable[[Object], str]
    ) -> None:
        items, version = await self._api.listed(kind, self._selector)
        found.clear()
        found.update((key(item), item) for item in items)
        self.silent = None
        self._changed()
        async for change, item in self._api.changes(kind, self._selector, version):
            if change == "DELETED":
                found.pop(key(item), None)
            elif change in ("ADDED", "MODIFIED"):
                found[key(item)] = item
            self._changed()
