"""Reading: a copy anywhere as an object in this process; only what is touched travels."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

from dataflow.catalog.entries import replica_id
from dataflow.datasets import Dataset, Replica
from dataflow.errors import (
    ConfigError,
    CorruptResult,
    DataflowError,
    PolicyError,
    SiteError,
    SiteUnreachable,
    StorageError,
    TransferFailed,
    UnknownDataset,
    UnreadableDataset,
)
from dataflow.execution.events import Errand
from dataflow.participant import Participant
from dataflow.session.loop import LoopThread
from dataflow.storage.credentials import resolve
from dataflow.storage.fingerprints import no_files
from dataflow.storage.manifest import ONE_FILE, Manifest, replica_of
from dataflow.storage.open import local_path, split
from dataflow.storage.transfer import copy
from dataflow.stores import Store, in_database

#: Arrays up to this size (bytes in memory) are loaded at once, larger ones are lazy.
SMALL_ARRAY = 2**20
#: Tables up to this size (bytes in memory) are given as pandas, larger ones as Dask DataFrames.
SMALL_TABLE = 64 * 2**20


def read(
    participant: Participant,
    loop: LoopThread,
    dataset: Dataset,
    copies: Sequence[Replica],
    errand: Errand,
    *,
    lazy: bool = True,
) -> Any:
    """Open the nearest of several copies.

    What lies in a store that we open ourselves is read from there. Large arrays of other sites are read lazily through their agent, small ones at once; tables and
    files are fetched first, into a cache of this account, where the next reader finds them.

    Raises
    ------
    UnknownDataset
        If there is no copy.
    SiteUnreachable, StorageError
        If no site that holds one answers, or no store.
    """
    small = dataset.extent.nbytes <= (SMALL_TABLE if dataset.kind == "table" else SMALL_ARRAY)
    lazy = lazy and not small
    away = participant.topology().away
    opened = {replica: participant.store_of(replica) for replica in copies}
    ranked = sorted(
        copies,
        key=lambda r: (r.site != participant.name, opened[r] is None, r.site in away),
    )
    last: DataflowError = UnknownDataset(dataset.name)
    for replica in ranked:
        try:
            store = opened[replica]
            if replica.site == participant.name or store is not None:
                return _opened(participant, loop, dataset, replica, store, lazy)
            bear = replica == ranked[-1]
            return _there(participant, loop, dataset, replica, errand, lazy, small, bear)
        except (SiteError, UnknownDataset, UnreadableDataset, StorageError) as error:
            last = error
    raise last


def signed(opened: Any, dataset: Dataset) -> Any:
    """What was opened, with its origin for ``.flow`` where that is an xarray object."""
    if "xarray" not in sys.modules:  # then it is none
        return opened
    from dataflow.session.accessor import marked

    return marked(opened, dataset)


def _opened(
    participant: Participant,
    loop: LoopThread,
    dataset: Dataset,
    replica: Replica,
    store: Store | None,
    lazy: bool,
) -> Any:
    """Straight from a store that we open ourselves, ours or another site's."""
    from dataflow.storage.read import open_data  # xarray, pandas and Dask: a second

    if dataset.kind == "files" and local_path(replica.url) is None:
        replica = loop.run(_fetch(participant, dataset, replica, Errand()))
        return open_data(replica, kind=dataset.kind, lazy=lazy)
    credentials = resolve(store.credentials) if store is not None else {}
    options = store.options if store is not None else ()
    return open_data(
        replica, kind=dataset.kind, credentials=credentials, options=options, lazy=lazy
    )


def _there(
    participant: Participant,
    loop: LoopThread,
    dataset: Dataset,
    replica: Replica,
    errand: Errand,
    lazy: bool,
    small: bool,
    bear: bool,
) -> Any:
    from dataflow.storage.read import open_data

    if in_database(replica.url):
        raise no_files(replica.url)
    client = participant.ways.to(participant.opened.server(replica))
    if small and replica.format in ("zarr", "parquet") and replica.nbytes <= SMALL_ARRAY:
        return loop.run(_small(participant, dataset, replica, errand, bear))
    loop.run(client.ready())
    try:
        url = client.data_url(replica_id(replica))
    except ConfigError:  # a Unix socket, which the libraries that read arrays cannot be sent to
        url = ""
    if dataset.kind in ("table", "files") or not url:
        replica = loop.run(_fetch(participant, dataset, replica, errand))
        return open_data(replica, kind=dataset.kind, lazy=lazy)
    if replica.format in ONE_FILE:
        url = f"{url}/{split(replica.url)[1]}"
    there = replace(replica, url=url)
    try:
        return open_data(there, kind=dataset.kind, headers=client.headers(errand), lazy=lazy)
    except CorruptResult:
        raise
    except StorageError as error:
        raise SiteUnreachable(replica.site, str(error)) from error


async def _small(
    participant: Participant, dataset: Dataset, replica: Replica, errand: Errand, bear: bool
) -> Any:
    """All files of a small array or table in one round trip, in place of one for each file."""
    from dataflow.storage.read import as_kind, open_data
    from dataflow.storage.small import small_result

    client = participant.ways.to(participant.opened.server(replica))
    files = unpacked(replica, await client.archive(replica_id(replica), job=errand, bear=bear))
    opened = small_result(replica.url, files.get) if replica.format == "zarr" else None
    if opened is not None:
        return as_kind(opened, dataset.kind, replica)
    participant.cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=participant.cache) as folder:
        for name, body in files.items():
            path = Path(folder, *name.split("/"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
        here = replace(replica, url=Path(folder).as_uri())
        try:
            return await asyncio.to_thread(open_data, here, kind=dataset.kind, lazy=False)
        except DataflowError:
            raise
        except (OSError, ValueError) as error:  # as Arrow's, of a page against its checksum
            raise CorruptResult(replica.url, f"what {replica.site} sends: {error}") from error


def unpacked(replica: Replica, archive: bytes) -> dict[str, bytes]:
    """The files of an archive that another site packed, by path.

    Raises
    ------
    UnreadableDataset
        If it is none, holds more than it should, or paths that would be written elsewhere.
    """
    try:
        with ZipFile(BytesIO(archive)) as packed:
            files = packed.infolist()
            if sum(file.file_size for file in files) > 2 * SMALL_ARRAY:
                raise UnreadableDataset(replica.url, f"{replica.site} sends more than it has said")
            for file in files:
                if file.compress_type != ZIP_STORED:
                    raise UnreadableDataset(replica.url, f"what {replica.site} sends is packed")
                parts = file.filename.split("/")
                if any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in parts):
                    name = file.orig_filename
                    raise UnreadableDataset(replica.url, f"{replica.site} lists {name!r} in it")
            return {file.filename: packed.read(file) for file in files}
    except UnreadableDataset:
        raise
    except (BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise UnreadableDataset(replica.url, f"what {replica.site} sends: {error}") from error


async def _fetch(
    participant: Participant, dataset: Dataset, replica: Replica, errand: Errand
) -> Replica:
    participant.cache.mkdir(parents=True, exist_ok=True)
    try:
        manifest = await _copied(participant, dataset, replica, errand)
    except TransferFailed as error:
        if isinstance(error.__cause__, PolicyError):  # it is no failure of the way
            raise error.__cause__ from None
        raise
    return replica_of(manifest, participant.name, "cache")


async def _copied(
    participant: Participant, dataset: Dataset, replica: Replica, errand: Errand
) -> Manifest:
    return await copy(
        participant.source_of(replica, errand),
        root=participant.cache.as_uri(),
        key=replica.key,
        attempt="fetched",
        provenance={},
        kind=dataset.kind,
        format=replica.format,
        extent=dataset.extent,
        variable=replica.variable,
    )
