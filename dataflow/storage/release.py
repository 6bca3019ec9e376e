"""Giving up a copy: compared with another one byte by byte, then deleted."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence

import xxhash

from dataflow.datasets import Replica
from dataflow.errors import CorruptResult, StorageError
from dataflow.storage.layout import Area
from dataflow.storage.manifest import FileEntry
from dataflow.storage.open import Options, local_path, object_store, split
from dataflow.storage.publish import delete_below, find_result, plain_errors, remove_result
from dataflow.storage.transfer import listing_of, read_range

_PIECE = 8 * 2**20


def compare(
    replica: Replica,
    other: Sequence[FileEntry],
    *,
    where: str,
    credentials: Mapping[str, str] | None = None,
    options: Options = (),
) -> None:
    """Make sure that another copy has every file of ``replica``, with the same bytes.

    Parameters
    ----------
    other
        The files of the other copy, with checksums as they were found when it was made.
    where
        What to call the other copy in an error.

    Raises
    ------
    CorruptResult
        If a file is missing there, or differs, or nobody knows its checksum.
    """
    files = listing_of(replica, credentials=credentials, options=options)
    there = {file.path: file for file in other}
    for file in files:
        found = there.get(file.path)
        if found is None or found.size != file.size:
            raise CorruptResult(where, f"{file.path} is missing or of another size")
        digest = xxhash.xxh3_128()
        for start in range(0, file.size, _PIECE):
            end = min(start + _PIECE, file.size)
            piece = read_range(
                replica, file.path, start, end, credentials=credentials, options=options
            )
            digest.update(piece)
        if found.checksum is None or found.checksum != digest.hexdigest():
            raise CorruptResult(where, f"the bytes of {file.path} are not those of {replica.url}")


def delete_replica(
    replica: Replica,
    *,
    root: str,
    credentials: Mapping[str, str] | None = None,
    options: Options = (),
) -> None:
    """Delete the bytes of a replica that lies below ``root``; what is gone already is no error.

    Of a committed result, or copy, the commit goes first.

    Raises
    ------
    StorageError
        If the store does not do it, or the replica is the store itself.
    """
    if replica.url.rstrip("/") == root.rstrip("/"):
        raise StorageError(f"{replica.url} is a whole store, and is not deleted")
    areas: tuple[Area, ...] = ("results", "copies")
    for area in areas if replica.fingerprint.startswith("manifest:") else ():
        found = find_result(root, replica.key, area=area, credentials=credentials, options=options)
        if found is not None and found.url == replica.url:
            remove_result(root, replica.key, area=area, credentials=credentials, options=options)
            return
    path = local_path(replica.url)
    if path is not None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return
    parent, name = split(replica.url)
    with plain_errors(replica.url):
        store = object_store(parent, credentials=credentials, options=options)
        if replica.format == "zarr":
            delete_below(parent, store, name)
        else:
            store.delete(name)
