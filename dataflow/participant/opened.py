"""Opened: the stores that a participant opens itself, its own and those of others in its site file.

A credential is used for a store only because our own file says so: what others write of a store in the
catalog may tell us that a copy lies there, and never makes us open it.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote

from dataflow.catalog.entries import replica_id, view_id
from dataflow.catalog.records import Records
from dataflow.config import Federation
from dataflow.datasets import Replica
from dataflow.sites import Topology
from dataflow.storage.credentials import resolve
from dataflow.storage.layout import Area
from dataflow.storage.manifest import ONE_FILE, Manifest
from dataflow.storage.publish import find_result
from dataflow.storage.transfer import StoreSource
from dataflow.stores import Store, opened_as, store_for

_AREAS: tuple[Area, ...] = ("results", "copies")


class Opened:
    """Stores that one participant opens itself.

    Parameters
    ----------
    federation
        What the site file says.
    name
        The participant's.
    records, topology
        The catalog, and the world as it is known now.
    """

    def __init__(
        self, federation: Federation, name: str, records: Records, topology: Callable[[], Topology]
    ) -> None:
        self._federation, self._name = federation, name
        self._records, self._topology = records, topology
        self.own = tuple(store for store in federation.stores if store.site == name)
        self.all = (*self.own, *federation.views)
        bare = {site.name for site in federation.sites if site.stores_only}
        self._bare = tuple(store for store in federation.views if store.site in bare)

    def registrable(self) -> tuple[Store, ...]:
        """Stores in which data may be registered here: our own, and those of sites of stores."""
        return (*self.own, *self._bare)

    def at(self, site: str) -> Store | None:
        """The first store of a site."""
        return next((store for store in self.all if store.site == site), None)

    def files(self, store: Store) -> tuple[tuple[str, int], ...]:
        """Single files that are known to lie in a store, as paths in it, with their sizes."""
        root = store.url.rstrip("/") + "/"
        return tuple(
            (unquote(replica.url.removeprefix(root)), replica.nbytes)
            for _, replica in self._records.written("replica")
            if replica.url.startswith(root) and replica.format in ONE_FILE
        )

    def publish(self) -> None:
        """Tell of our stores, of those of others that we open, and of sites that cannot speak."""
        self._records.add(*self.own)
        self._records.add(*(site for site in self._federation.sites if site.stores_only))
        views = {view_id(store): store for store in self._federation.views}
        for writer, store in self._records.written("store"):
            if writer == self._name and store.site != self._name and view_id(store) not in views:
                self._records.delete("store", view_id(store))
        self._records.put_many([("store", id, store) for id, store in views.items()])

    def of(self, replica: Replica) -> Store | None:
        """The store by which we get at a copy ourselves, wherever it lies.

        ``None`` if we do not, or if the copy is our own and lies in none of our stores.
        """
        if replica.site == self._name:
            return store_for(replica.url, self.own)
        there = self._topology().stores_at(replica.site)
        home = next((store for store in there if store.name == replica.store), None)
        return opened_as(self.all, replica.url, site=replica.site, name=replica.store, home=home)

    def source(self, replica: Replica) -> StoreSource | None:
        """Something to copy from, straight from the store; ``None`` if we do not open it."""
        store = self.of(replica)
        if store is None:
            return StoreSource(replica=replica) if replica.site == self._name else None
        credentials = resolve(store.credentials)

        def manifest() -> Manifest | None:
            if not replica.fingerprint.startswith("manifest:"):
                return None
            for area in _AREAS:
                found = find_result(
                    store.url,
                    replica.key,
                    area=area,
                    credentials=credentials,
                    options=store.options,
                )
                if found is not None and found.url == replica.url:
                    return found
            return None

        return StoreSource(
            replica=replica, find=manifest, credentials=credentials, options=store.options
        )

    def server(self, replica: Replica) -> str:
        """The site whose agent hands out a copy: its own, or of a site of stores whoever knows it."""
        topology, id = self._topology(), replica_id(replica)
        if replica.site not in topology.stores_only:
            return replica.site
        for writer, known in self._records.written("replica"):
            answers = writer in topology.site_by_name and writer not in topology.away
            if answers and known.key == replica.key and replica_id(known) == id:
                return str(writer)
        return replica.site
