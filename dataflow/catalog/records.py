"""Records: the catalog's file with its types; what the rows of all sites say.

`Log` keeps the rows and their order; this module gives them back as datasets, replicas, sites,
stores, links, jobs and tags, and as one frozen `Snapshot`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from dataflow.agreements import Agreement
from dataflow.catalog import typed
from dataflow.catalog.entries import TYPES, JobSummary, TagSet
from dataflow.catalog.log import Log
from dataflow.catalog.search import TagPattern, order
from dataflow.catalog.snapshot import Snapshot, assemble, topology
from dataflow.datasets import Dataset, Replica
from dataflow.sites import Link, Site, Topology
from dataflow.stores import Store

_POLICY = ("agreement", "archetype", "operation")


class Records(Log):
    """The records of all sites, as one participant holds them.

    Writes are those of `Log`. Reading parses what changed since the last time and no more.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as here, Records(Path(here, "c.db"), "uva") as records:
    ...     records.put("site", "uva", Site(name="uva"))
    1
    """

    def __init__(self, path: Path | str, site: str) -> None:
        self._caches = {kind: typed.Cache(kind) for kind in TYPES}
        self._snapshot: tuple[Any, Snapshot] | None = None
        self._topology: tuple[Any, Topology] | None = None
        super().__init__(path, site)

    def get(self, kind: str, id: str, site: str | None = None) -> Any:
        """One record, or ``None``: of ``site`` if given, else ours, else the first that has it."""
        with self._reading() as db:
            found = db.execute(
                "SELECT body FROM record WHERE kind = ? AND id = ? AND deleted = 0 "
                "AND (? IS NULL OR site = ?) ORDER BY site != ?, site LIMIT 1",
                [kind, id, site, site, self.site],
            ).fetchone()
        return typed.parse(kind, found[0]) if found else None

    def written(self, kind: str) -> list[tuple[str, Any]]:
        """All records of a kind, each with the site that wrote it, by site and age.

        A record that cannot be read, from another version of dataflow, is left out; so is one
        that claims another site's place. Repeated calls parse what changed and no more.
        """
        with self._reading() as db:
            return self._caches[kind].read(db, self.origins())

    def datasets(self) -> list[Dataset]:
        """Datasets of all sites, sorted by name, site, id."""
        return sorted((record for _, record in self.written("dataset")), key=order)

    def replicas(self, key: str | None = None) -> list[Replica]:
        """Copies of all datasets, or of one key."""
        if key is None:
            return [record for _, record in self.written("replica")]
        with self._reading() as db:
            return typed.replicas_with_key(db, key)

    def sites(self) -> list[Site]:
        """Sites by their own word, sorted by name; addresses as for a plan."""
        return list(self.topology().sites)

    def stores(self) -> list[Store]:
        """Stores of all sites."""
        return list(self.topology().stores)

    def links(self) -> list[Link]:
        """The best reading of each link."""
        return list(self.topology().links)

    def jobs(self) -> list[JobSummary]:
        """Jobs of all coordinators, newest first."""
        jobs = [record for _, record in self.written("job")]
        return sorted(jobs, key=lambda job: (-job.created, job.id))

    def agreements(self, site: str | None = None) -> list[Agreement]:
        """What owners grant: at one site, or at all; as far as we may know of it."""
        found = [record for _, record in self.written("agreement")]
        return [agreement for agreement in found if site in (None, agreement.site)]

    def tag_sets(self, key: str | None = None) -> list[TagSet]:
        """What users wrote on data, or on the data with one key."""
        found = [record for _, record in self.written("tags")]
        return [tags for tags in found if key is None or tags.key == key]

    def find(
        self,
        *,
        name: str | None = None,
        owner: str | None = None,
        site: str | None = None,
        kind: str | None = None,
        tags: TagPattern | None = None,
        limit: int | None = None,
        **asked: Any,
    ) -> list[Dataset]:
        """Datasets that fit, sorted by name: as ``Snapshot.search``, without reading all of them.

        Name, owner, site, kind and plain tags are looked up in the database, the rest is compared
        on what that finds.
        """
        with self._reading() as db:
            asked = {"name": name, "owner": owner, "site": site, "kind": kind, "tags": tags} | asked
            return typed.find(db, asked, limit)

    def topology(self, away: Collection[str] = ()) -> Topology:
        """Sites, stores and links alone; the same object while nothing changes about them."""
        kinds = ("site", "store", "link", "peer")
        with self._reading() as db:
            at = self.origins()
            state = (frozenset(away), *(self._caches[kind].refresh(db, at) for kind in kinds))
            if self._topology is None or self._topology[0] != state:
                written: Mapping[str, Any] = {
                    kind: self._caches[kind].read(db, at) for kind in kinds
                }
                found = topology(written, me=self.site, away=away, taken_at=time.time())
                self._topology = (state, found)
            return self._topology[1]

    def snapshot(self, away: Collection[str] = (), taken_at: float | None = None) -> Snapshot:
        """All that is known now, as one frozen value; the same object while nothing changes."""
        kinds = ("site", "store", "dataset", "replica", "link", "peer", "tags", *_POLICY)
        with self._reading() as db:
            at = self.origins()
            state = (frozenset(away), *(self._caches[kind].refresh(db, at) for kind in kinds))
            if self._snapshot is not None and self._snapshot[0] == state and taken_at is None:
                return self._snapshot[1]
            written: Mapping[str, Any] = {kind: self._caches[kind].read(db, at) for kind in kinds}
            now = time.time() if taken_at is None else taken_at
            snapshot = assemble(written, me=self.site, away=away, taken_at=now)
            self._snapshot = (state, snapshot)
        return snapshot
