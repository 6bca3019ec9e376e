"""Snapshot: everything the federation knows of its data, at one moment, as one frozen value.

Pure. Plans are made from a snapshot, names are resolved in it and completed from it; nothing in
here asks anybody.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from dataflow.agreements import Agreement, Archetype
from dataflow.catalog import search as searching
from dataflow.catalog.entries import Peer, TagSet, link_id
from dataflow.catalog.index import Index
from dataflow.datasets import Dataset, Replica
from dataflow.errors import AmbiguousDataset, UnknownDataset
from dataflow.graph.operation import Operation
from dataflow.sites import Link, Site, Topology
from dataflow.stores import Store

#: So many first characters of an id stand for the id, if no other begins with them.
SHORTEST_PREFIX = 4
#: Names that are compared letter by letter when one is mistyped; more would be slow.
_COMPARED = 4_000

#: A record and the site that wrote it.
Written = tuple[str, Any]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All datasets, their copies, their tags, and the world they lie in.

    Attributes
    ----------
    datasets
        Sorted by name, site, id. Data registered at two sites is there twice, with one key.
    replicas
        Copies by key; a key without copies is absent.
    topology
        Sites, stores and links; ``topology.away`` are the sites that do not answer.
    tags
        Key → user → tags: what users wrote on the data, beside the owner's own tags.
    agreements
        What owners grant, as far as we may know of it.
    archetypes
        Site → archetypes that it defined itself.
    operations
        Site → operations that it has installed, as it runs them.
    """

    datasets: tuple[Dataset, ...] = ()
    replicas: Mapping[str, tuple[Replica, ...]] = field(default_factory=dict)
    topology: Topology = field(default_factory=lambda: Topology(sites=()))
    tags: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)
    agreements: tuple[Agreement, ...] = ()
    archetypes: Mapping[str, tuple[Archetype, ...]] = field(default_factory=dict)
    operations: Mapping[str, tuple[Operation, ...]] = field(default_factory=dict)

    def resolve(self, name: str) -> Dataset:
        """The dataset that ``name`` means.

        Tried in this order: id, key, name, ``site/name``, beginning of an id (four characters or
        more). Of several records with one key, the same data at several sites, the oldest at a
        site that answers is given: either way the planner sees all copies.

        Raises
        ------
        UnknownDataset
            With the names that are close.
        AmbiguousDataset
            If several different datasets fit, with what to say instead.
        """
        candidates = (
            self._by_id.get(name)
            or self._by_key.get(name)
            or self._by_name.get(name)
            or self._by_full_name.get(name)
            or self._with_prefix(name)
        )
        if not candidates:
            raise UnknownDataset(name, self._similar(name))
        if len({dataset.key for dataset in candidates}) > 1:
            raise AmbiguousDataset(name, self._ways_to_say(candidates))
        return min(candidates, key=self._preference)

    def __getitem__(self, name: str) -> Dataset:
        return self.resolve(name)

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and bool(self.resolve(name))
        except UnknownDataset:
            return False
        except AmbiguousDataset:
            return True

    def names(self) -> list[str]:
        """What to offer for completion: plain names where they are clear, else ``site/name``."""
        return list(self._names)

    def with_key(self, key: str) -> list[Dataset]:
        """All records of one content, of all sites."""
        return list(self._by_key.get(key, ()))

    def replicas_of(self, dataset: Dataset | str) -> tuple[Replica, ...]:
        """Copies of a dataset, or of a key; empty if none is known."""
        return self.replicas.get(dataset if isinstance(dataset, str) else dataset.key, ())

    def sites_of(self, dataset: Dataset | str) -> tuple[str, ...]:
        """Sites that hold a copy, sorted."""
        return tuple(sorted({replica.site for replica in self.replicas_of(dataset)}))

    def tags_of(self, dataset: Dataset) -> Mapping[str, Mapping[str, str]]:
        """User → tags of a dataset, its owner's included; no user overwrites another."""
        given = self.tags.get(dataset.key, {})
        if not dataset.tags:
            return given
        return {**given, dataset.owner: {**dataset.tags, **given.get(dataset.owner, {})}}

    def search(self, **asked: Any) -> list[Dataset]:
        """Datasets that fit a description, each key and name once, sorted by name.

        Takes what :func:`dataflow.catalog.search.matches` takes: ``tags``, ``owner``, ``name``,
        ``kind``, ``shape``, ``dims``, ``dtype``, ``site``, ``text``.
        """
        return self.distinct(self.records(**asked))

    def records(self, **asked: Any) -> list[Dataset]:
        """As :meth:`search`, with all records of the same data: each site's owner has a say of his own."""
        words = {name for name, value in asked.items() if value is not None}
        return searching.search(
            self._index.candidates(**asked),
            tags_of=self.tags_of if words & {"tags", "text"} else None,
            copies_of=self.sites_of if "site" in words else None,
            **asked,
        )

    def distinct(self, datasets: Iterable[Dataset]) -> list[Dataset]:
        """Each (name, key) once, in the order given: two records of the same data are one."""
        best: dict[tuple[str, str], Dataset] = {}
        for dataset in datasets:
            other = best.setdefault((dataset.name, dataset.key), dataset)
            if other is not dataset and self._preference(dataset) < self._preference(other):
                best[dataset.name, dataset.key] = dataset
        return list(best.values())

    def __repr__(self) -> str:
        return f"<Snapshot {len(self.datasets)} datasets, {len(self.topology.sites)} sites>"

    # --- indexes, made on first use ---------------------------------------------------------

    @cached_property
    def _index(self) -> Index:
        return Index(self.datasets, self.replicas, self.tags)

    @cached_property
    def _by_id(self) -> Mapping[str, list[Dataset]]:
        return {dataset.id: [dataset] for dataset in self.datasets}

    @cached_property
    def _by_key(self) -> Mapping[str, list[Dataset]]:
        return _grouped((dataset.key, dataset) for dataset in self.datasets)

    @cached_property
    def _by_name(self) -> Mapping[str, list[Dataset]]:
        return _grouped((dataset.name, dataset) for dataset in self.datasets)

    @cached_property
    def _by_full_name(self) -> Mapping[str, list[Dataset]]:
        named = [(_full_name(dataset), dataset) for dataset in self.datasets]
        # Who looked at data of a site without an agent wrote the record; it lies there all the same.
        there = self.topology.stores_only
        named += [
            (f"{site}/{dataset.name}", dataset)
            for dataset in (self.datasets if there else ())
            for site in self.sites_of(dataset)
            if site in there
        ]
        return _grouped(named)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        clear: set[str] = set()
        for name, group in self._by_name.items():
            if len({dataset.key for dataset in group}) == 1:
                clear.add(name)
            else:
                clear.update(self._ways_to_say(group))
        return tuple(sorted(clear - {""}))

    def _with_prefix(self, prefix: str) -> list[Dataset]:
        if len(prefix) < SHORTEST_PREFIX:
            return []
        return [dataset for dataset in self.datasets if dataset.id.startswith(prefix)]

    def _ways_to_say(self, datasets: Sequence[Dataset]) -> list[str]:
        """For each different dataset a name that means it alone: ``site/name``, else the id."""
        ways = set()
        for dataset in self.distinct(datasets):
            group = self._by_full_name[_full_name(dataset)]
            alone = len({other.key for other in group}) == 1
            ways.add(_full_name(dataset) if alone else dataset.id)
        return sorted(ways)

    def _preference(self, dataset: Dataset) -> tuple[bool, float, str, str]:
        return dataset.site in self.topology.away, dataset.created, dataset.site, dataset.id

    def _similar(self, name: str) -> list[str]:
        known = [*self._by_name, *self._by_full_name] if "/" in name else [*self._by_name]
        if len(known) > _COMPARED:
            head = name[:2].casefold()
            known = [other for other in known if other.casefold().startswith(head)][:_COMPARED]
        by_text = {other.casefold(): other for other in known}
        close = difflib.get_close_matches(name.casefold(), by_text, n=3, cutoff=0.6)
        return [by_text[text] for text in close]


def assemble(
    written: Mapping[str, Iterable[Written]],
    *,
    me: str = "",
    away: Collection[str] = (),
    taken_at: float = 0.0,
) -> Snapshot:
    """A snapshot out of the records of all sites, by kind.

    A site's own word about itself wins over hearsay. Of several readings of one link a measured
    one wins over a declared one, then the newest. Addresses come from the ``peer`` records; the
    site called ``me`` has none, because it is served by this process.
    """
    replicas: dict[str, list[Replica]] = defaultdict(list)
    for copy in _own_word(written.get("replica", ()), _copy, lambda record: record.site):
        replicas[copy.key].append(copy)
    datasets = [record for _, record in written.get("dataset", ())]
    archetypes: dict[str, list[Archetype]] = defaultdict(list)
    for writer, archetype in written.get("archetype", ()):
        archetypes[writer].append(archetype)
    operations: dict[str, list[Operation]] = defaultdict(list)
    for writer, operation in written.get("operation", ()):
        operations[writer].append(operation)
    return Snapshot(
        datasets=tuple(sorted(datasets, key=searching.order)),
        replicas={
            key: tuple(sorted(copies, key=lambda copy: (copy.site, copy.store, copy.url)))
            for key, copies in replicas.items()
        },
        topology=topology(written, me=me, away=away, taken_at=taken_at),
        tags=merge_tags(record for _, record in written.get("tags", ())),
        agreements=tuple(record for _, record in written.get("agreement", ())),
        archetypes={site: tuple(found) for site, found in archetypes.items()},
        operations={site: tuple(found) for site, found in operations.items()},
    )


def topology(
    written: Mapping[str, Iterable[Written]],
    *,
    me: str = "",
    away: Collection[str] = (),
    taken_at: float = 0.0,
) -> Topology:
    """The world alone, by the same rules: it needs no look at the datasets, however many."""
    stores = list(written.get("store", ()))
    return Topology(
        sites=_sites(written, me),
        stores=_stores(stores),
        views=tuple((writer, store) for writer, store in stores if writer != store.site),
        links=_links(written.get("link", ())),
        away=frozenset(away) - {me},
        taken_at=taken_at,
    )


def merge_tags(sets: Iterable[TagSet]) -> dict[str, dict[str, dict[str, str]]]:
    """Key → user → tags. One user's words from several sites add up, the newest value wins."""
    merged: dict[str, dict[str, dict[str, str]]] = {}
    for given in sorted(sets, key=lambda tags: tags.updated):
        merged.setdefault(given.key, {}).setdefault(given.user, {}).update(given.tags)
    return merged


def _sites(written: Mapping[str, Iterable[Written]], me: str) -> tuple[Site, ...]:
    doors: dict[str, Peer] = {
        record.site: record for writer, record in written.get("peer", ()) if writer == record.site
    }
    sites: list[Site] = []
    for site in _own_word(written.get("site", ()), lambda s: s.name, lambda s: s.name):
        door = doors.get(site.name)
        if site.name == me:
            sites.append(replace(site, address=None))
        elif door is not None and door.address is not None:
            credentials = site.credentials or door.credentials
            sites.append(replace(site, address=door.address, credentials=credentials))
        else:
            sites.append(site)
    return tuple(sorted(sites, key=lambda site: site.name))


def _stores(written: Sequence[Written]) -> tuple[Store, ...]:
    """In the order in which each site wrote them: the first one is its first choice.

    What others call the store of a site that has a word of its own is not counted.
    """
    spoken = {writer for writer, store in written if writer == store.site}
    counted = [(w, store) for w, store in written if w == store.site or store.site not in spoken]
    return tuple(_own_word(counted, lambda s: (s.site, s.name), lambda s: s.site))


def _links(written: Iterable[Written]) -> tuple[Link, ...]:
    best: dict[str, tuple[tuple[tuple[bool, bool], float, bool, str], Link]] = {}
    for writer, link in written:
        told_by_an_end = writer in (link.source, link.target)
        told = (link.origin == "measured", link.origin != "timed")
        rank = (told, link.measured_at or 0.0, told_by_an_end, writer)
        name = link_id(link)
        if name not in best or rank > best[name][0]:
            best[name] = (rank, link)
    return tuple(best[name][1] for name in sorted(best))


def _own_word(written: Iterable[Written], identity: Any, about: Any) -> list[Any]:
    """One record per identity: the word of the site it is about, else of the first by name."""
    best: dict[Any, tuple[tuple[bool, str], Any]] = {}
    for writer, record in written:
        rank = (writer != about(record), writer)
        name = identity(record)
        if name not in best or rank < best[name][0]:
            best[name] = (rank, record)
    return [record for _, record in best.values()]


def _copy(replica: Replica) -> tuple[str, str, str, str | None]:
    """What makes two records one copy: as :func:`replica_id`, without the digest."""
    return replica.site, replica.store, replica.url, replica.variable


def _grouped(pairs: Iterable[tuple[str, Dataset]]) -> Mapping[str, list[Dataset]]:
    groups: dict[str, list[Dataset]] = defaultdict(list)
    for name, dataset in pairs:
        groups[name].append(dataset)
    return dict(groups)


def _full_name(dataset: Dataset) -> str:
    return f"{dataset.site}/{dataset.name}"
