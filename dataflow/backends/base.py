"""Backend: how a site gets its workers, as a protocol."""

from __future__ import annotations

from typing import Any, Protocol


class Backend(Protocol):
    """The workers of one site: one Dask scheduler, and no way to it from outside the site."""

    async def start(self) -> None:
        """Start the workers, unless they run; otherwise the first :meth:`client` does it."""

    async def client(self) -> Any:
        """An asynchronous :class:`distributed.Client` of the running scheduler.

        Starts the workers once, also when called several times at once, and anew if the cluster
        has died.
        """

    @property
    def dashboard(self) -> str | None:
        """Address of the scheduler's pages on this machine; ``None`` while it does not run."""

    async def stop_worker(self, address: str) -> None:
        """End one worker process at once, whatever it does, and start another in its place.

        Other tasks that it had are run again elsewhere and are not counted as failed.
        """

    async def close(self) -> None:
        """End all workers; nothing can be run afterwards."""
