"""Store: a place with bytes, at a site."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Purpose = Literal["data", "results"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A place with bytes, at a site.

    Attributes
    ----------
    name
        Unique within its site.
    site
        The site that owns it.
    url
        ``file:///…`` or ``s3://bucket/prefix``; what lies below it belongs to the store.
    purpose
        ``"data"`` is only read; ``"results"`` also takes results and copies.
    credentials
        Name of a credential, resolved at the site that reads or writes; never the secret itself.
    options
        Public options of the service, sorted pairs: ``endpoint``, ``region``, ``path_style`` …
    """

    name: str
    site: str
    url: str
    purpose: Purpose = "results"
    credentials: str | None = None
    options: tuple[tuple[str, str], ...] = ()

    def holds(self, url: str) -> bool:
        """Whether ``url`` lies in this store."""
        root = self.url.rstrip("/")
        return url == root or url.startswith(root + "/")


def store_for(url: str, stores: Iterable[Store]) -> Store | None:
    """The store with the longest root that holds ``url``; ``None`` if none does."""
    holding = [store for store in stores if store.holds(url)]
    return max(holding, key=lambda store: (len(store.url), store.name), default=None)
