"""Registering: from an address to the records of a dataset, without copying anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from dataflow.catalog.records import Records
from dataflow.datasets import Dataset, Replica
from dataflow.errors import CatalogError, UnreadableDataset
from dataflow.graph.keys import digest, source_key
from dataflow.storage.credentials import resolve
from dataflow.stores import Store, store_for

if TYPE_CHECKING:
    from dataflow.storage.probe import Probe


def look_at(url: str, stores: Sequence[Store], variable: str | None) -> tuple[Probe, Store | None]:
    """What lies at a URL, and the store that it lies in; reads headers only.

    Raises
    ------
    UnreadableDataset
        If nothing is there, or nothing that is understood.
    """
    from dataflow.storage.probe import probe  # with all libraries that read arrays

    store = store_for(url, stores)
    credentials = resolve(store.credentials) if store is not None else {}
    options = store.options if store is not None else ()
    return probe(url, variable=variable, credentials=credentials, options=options), store


def records_of(
    found: Probe,
    store: Store | None,
    url: str,
    *,
    site: str,
    name: str | None,
    owner: str,
    tags: Mapping[str, str],
    records: Records,
    replica_of: str | None,
    now: float,
) -> tuple[Dataset, Replica]:
    """The records of data that was looked at.

    The same data registered again is the same dataset. Data that has changed since gets a new key
    under its old name, so that results of the old data are not taken for results of the new. It
    stays with whoever registered it first; what tags others give it does not count.

    Raises
    ------
    CatalogError
        If the name is taken by other data at this site, or the copy is not of the same form.
    """
    original = records.snapshot().resolve(replica_of) if replica_of else None
    key = original.key if original else source_key(found.fingerprint, found.variable)
    title = name or (original.name if original else _name(url, found.variable))
    if original is not None and original.extent.nbytes != found.extent.nbytes:
        raise CatalogError(
            f"{url} is no copy of {replica_of!r}: it has {found.extent.nbytes} bytes in memory, "
            f"not {original.extent.nbytes}"
        )
    replica = Replica(
        key=key,
        site=store.site if store is not None else site,
        store=store.name if store is not None else "",
        url=url,
        format=found.format,
        nbytes=found.nbytes,
        fingerprint=found.fingerprint,
        variable=found.variable,
        created=now,
    )
    dataset = Dataset(
        id=digest(["dataset", site, title, found.variable])[:32],
        name=title,
        key=key,
        kind=found.kind,
        extent=found.extent,
        site=site,
        owner=owner,
        tags=dict(tags),
        created=now,
    )
    before = records.get("dataset", dataset.id, site)
    if before is not None:
        _may_replace(before, dataset, url, replica.site, records)
        same = before.key == key
        dataset = replace(
            dataset,
            owner=before.owner or owner,
            tags=before.tags if _stranger(owner, before) else {**before.tags, **tags},
            created=before.created if same else now,
        )
    return dataset, replica


def _stranger(user: str, before: Dataset) -> bool:
    """Whether somebody else owns the dataset; without a name the site itself registers."""
    return bool(user and before.owner and user != before.owner)


def _may_replace(before: Dataset, dataset: Dataset, url: str, there: str, records: Records) -> None:
    if before.key == dataset.key:
        return
    copies = [r for r in records.replicas(before.key) if r.site == there]
    if copies and all(copy.url != url for copy in copies):
        raise CatalogError(
            f"the name {dataset.name!r} is taken at {dataset.site!r} by other data "
            f"({copies[0].url})\nWhat you can do: register {url} with another name=."
        )


def _name(url: str, variable: str | None) -> str:
    stem = PurePosixPath(unquote(url.rstrip("/"))).name
    stem = stem.partition(".")[0] or stem
    if not stem:
        raise UnreadableDataset(url, "it has no name to take; give one with name=")
    return f"{stem}.{variable.strip('/').replace('/', '.')}" if variable else stem
