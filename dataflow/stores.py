"""Store: a place with bytes, at a site."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Purpose = Literal["data", "results"]

#: Kinds of stores that hold tables and no files.
DATABASES = ("postgresql", "mysql")


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
        ``file:///…``, ``s3://bucket/prefix``, ``sftp://host/path``, ``https://…``, or a database
        (``postgresql://host/database``, ``mysql://…``); what lies below it belongs to the store.
    purpose
        ``"data"`` is only read; ``"results"`` also takes results and copies.
    credentials
        Name of a credential, resolved at the site that reads or writes; never the secret itself.
    options
        Public options of the service, sorted pairs: ``endpoint``, ``region``, ``path_style`` …
    room
        Bytes that results and copies may take there in all, by its owner's word; 0 if he has said
        none.
    """

    name: str
    site: str
    url: str
    purpose: Purpose = "results"
    credentials: str | None = None
    options: tuple[tuple[str, str], ...] = ()
    room: int = 0

    def holds(self, url: str) -> bool:
        """Whether ``url`` lies in this store."""
        root = self.url.rstrip("/")
        return url == root or url.startswith(root + "/")


def in_database(url: str) -> bool:
    """Whether a URL is of a table in a database."""
    return url.partition("://")[0] in DATABASES


def opened_as(
    stores: Iterable[Store], url: str, *, site: str, name: str, home: Store | None = None
) -> Store | None:
    """The one of ``stores``, which somebody opens, by which he gets at ``url`` in another's store.

    Parameters
    ----------
    site, name
        The store in which ``url`` lies.
    home
        Its record, where it is known. A store that is given otherwise but means the same place of
        the same service will do; paths mean something on their own machine only, and will not.
    """
    fit = [
        store
        for store in stores
        if store.holds(url)
        and ((store.site, store.name) == (site, name) or (home is not None and _same(store, home)))
    ]
    return max(fit, key=lambda store: (len(store.url), store.name), default=None)


def _same(one: Store, other: Store) -> bool:
    """Whether two stores are of one service: then equal URLs are one place."""
    scheme = one.url.partition("://")[0]
    if scheme == one.url or scheme == "file" or not other.url.startswith(f"{scheme}://"):
        return False
    return dict(one.options).get("endpoint") == dict(other.options).get("endpoint")


def store_for(url: str, stores: Iterable[Store]) -> Store | None:
    """The store with the longest root that holds ``url``; ``None`` if none does."""
    holding = [store for store in stores if store.holds(url)]
    return max(holding, key=lambda store: (len(store.url), store.name), default=None)
