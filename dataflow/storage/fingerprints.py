"""Fingerprints: short words that change when the bytes do.

Up to :data:`WHOLE_NBYTES` the fingerprint is the XXH3-128 of the content (``xxh3:…``). Above, it
covers the size, the first and the last 64 KiB, 16 evenly spaced blocks of 64 KiB between them, and
the time of the last change (nanoseconds) or the ETag (``sample:…``). Such a fingerprint notices
every rewrite through the file system or the store, and not a change of bits between the samples
that leaves size and time alone. For a directory, the same rule over the sorted list of its files and
their contents: all of it up to the limit in total, above it the sample of each of the first 1000 files
and names and sizes of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import xxhash

from dataflow.errors import StorageError, UnreadableDataset
from dataflow.storage.open import Options, local_path, object_store, split
from dataflow.storage.source import Source
from dataflow.storage.web import may_be_zarr, zarr_files
from dataflow.stores import in_database

if TYPE_CHECKING:
    from dataflow.storage.open import AnyStore

WHOLE_NBYTES = 64 * 2**20
BLOCK_NBYTES = 64 * 2**10
BLOCKS = 16
SAMPLED_FILES = 1000


def current_fingerprint(
    url: str,
    *,
    credentials: Mapping[str, str] | None = None,
    options: Options = (),
    headers: Mapping[str, str] | None = None,
) -> str:
    """The fingerprint of the file or directory at ``url`` as it is now.

    Reads at most 64 MiB of one file; see the module for what it covers.

    Raises
    ------
    UnreadableDataset
        If nothing is there.
    """
    if in_database(url):
        from dataflow.storage import databases

        table = Source(url, dict(credentials or {}), tuple(options), dict(headers or {}))
        return databases.fingerprint(table)
    return fingerprint_of(
        url,
        stored_files(url, credentials=credentials, options=options, headers=headers),
        credentials=credentials,
        options=options,
        headers=headers,
    )


def no_files(url: str) -> UnreadableDataset:
    """What is to be said where a table in a database should be copied."""
    return UnreadableDataset(
        url,
        "a table in a database has no files to be copied\n"
        "What you can do: query it where it is; the result can go elsewhere.",
    )


def stored_files(
    url: str,
    *,
    credentials: Mapping[str, str] | None = None,
    options: Options = (),
    headers: Mapping[str, str] | None = None,
) -> tuple[tuple[str, int], ...]:
    """Files at ``url`` with their sizes in bytes; a single file has the path ``""``.

    Raises
    ------
    UnreadableDataset
        If nothing is there, or no files.
    """
    if in_database(url):
        raise no_files(url)
    path = local_path(url)
    if path is not None:
        if path.is_file():
            return (("", path.stat().st_size),)
        found = sorted(
            (str(file.relative_to(path)), file.stat().st_size)
            for file in path.rglob("*")
            if file.is_file()
        )
    else:
        web = url.startswith(("http://", "https://"))
        if web and not headers and may_be_zarr(url):
            # A server answers for a directory too, with a page about it.
            there = object_store(url, credentials=credentials, options=options)
            hierarchy = zarr_files(url, there)
            if hierarchy is not None:
                return hierarchy
        try:
            parent, name = split(url)
            store = object_store(parent, credentials=credentials, options=options, headers=headers)
            return (("", int(store.head(name)["size"])),)
        except (FileNotFoundError, StorageError) as error:
            if web and not headers:
                reason = "nothing is there" if isinstance(error, FileNotFoundError) else str(error)
                raise UnreadableDataset(url, reason) from error
            inside = object_store(url, credentials=credentials, options=options, headers=headers)
            found = sorted(
                (str(meta["path"]), int(meta["size"])) for batch in inside.list() for meta in batch
            )
    if not found:
        raise UnreadableDataset(url, "nothing is there")
    return tuple(found)


def fingerprint_of(
    url: str,
    files: Iterable[tuple[str, int]],
    *,
    credentials: Mapping[str, str] | None = None,
    options: Options = (),
    headers: Mapping[str, str] | None = None,
) -> str:
    """The fingerprint of ``url`` whose files are listed already."""
    listed = tuple(files)
    single = len(listed) == 1 and listed[0][0] == ""
    base, name = split(url) if single else (url, "")
    store = object_store(
        base, credentials=credentials, options=options, headers=headers, mkdir=False
    )
    digest = xxhash.xxh3_128()
    whole = sum(size for _, size in listed) <= WHOLE_NBYTES
    for number, (path, size) in enumerate(listed):
        if not single:
            digest.update(f"{path}\0{size}\0".encode())
        target = name if single else path
        if whole:
            digest.update(memoryview(store.get(target).bytes()))
        elif number < SAMPLED_FILES:
            digest.update(_sample(base, store, target, size))
    return f"{'xxh3' if whole else 'sample'}:{digest.hexdigest()}"


def _sample(base: str, store: AnyStore, path: str, size: int) -> bytes:
    room = max(size - BLOCK_NBYTES, 0)
    starts = sorted({room * step // (BLOCKS + 1) for step in range(BLOCKS + 2)})
    ends = [min(start + BLOCK_NBYTES, size) for start in starts]
    digest = xxhash.xxh3_128(f"{size}\0{_changed(base, store, path)}\0".encode())
    if size:
        for piece in store.get_ranges(path, starts=starts, ends=ends):
            digest.update(memoryview(piece))
    return digest.digest()


def _changed(base: str, store: AnyStore, path: str) -> str:
    directory = local_path(base)
    if directory is not None:
        return str((directory / path).stat().st_mtime_ns)
    facts = store.head(path)
    return str(facts["e_tag"] or facts["last_modified"])
