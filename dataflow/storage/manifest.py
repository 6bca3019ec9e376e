"""Manifest: the list of all files of a committed result, and what they mean."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import xxhash

from dataflow.datasets import Dataset, Extent, Format, Kind, Lineage, Replica
from dataflow.documents import from_document, to_document
from dataflow.errors import CorruptResult

#: Changes when a reader of an older version could misread what is written.
VERSION = 1

#: Formats of which a replica is one file, not a directory of them.
ONE_FILE = frozenset({"hdf5", "netcdf", "npy", "csv"})
#: How names of Parquet files end.
PARQUET = (".parquet", ".parq", ".pq")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: ``path`` below the attempt, ``size`` in bytes, ``checksum`` = XXH3-128 in hex."""

    path: str
    size: int
    etag: str | None = None
    checksum: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What one commit made visible.

    Attributes
    ----------
    key, attempt
        Which result, and which of the attempts at it won.
    files
        Every file, sorted by path; nothing else belongs to the result.
    nbytes
        Stored bytes, the sum over ``files``.
    extent
        Shape and size in memory.
    provenance
        What the writer said about how it came to be; JSON values.
    url
        What to open: the directory, or the one file of a single-file format.
    prefix
        URL of the attempt; the paths of ``files`` lie below it.
    """

    key: str
    attempt: str
    kind: Kind
    format: Format
    files: tuple[FileEntry, ...]
    nbytes: int
    extent: Extent
    url: str
    prefix: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    variable: str | None = None

    def __repr__(self) -> str:
        return (
            f"<Manifest {self.key} attempt {self.attempt}: {self.format} {self.kind}, "
            f"{len(self.files)} files, {self.nbytes} bytes>"
        )


def to_bytes(manifest: Manifest) -> bytes:
    """The manifest as JSON, without its URLs: a store may be mounted elsewhere one day."""
    return json.dumps(
        {
            "version": VERSION,
            "key": manifest.key,
            "attempt": manifest.attempt,
            "kind": manifest.kind,
            "format": manifest.format,
            "variable": manifest.variable,
            "nbytes": manifest.nbytes,
            "extent": to_document(manifest.extent),
            "provenance": dict(manifest.provenance),
            "files": [[f.path, f.size, f.etag, f.checksum] for f in manifest.files],
        },
        separators=(",", ":"),
    ).encode()


def from_bytes(body: bytes, key_url: str) -> Manifest:
    """The manifest that :func:`to_bytes` wrote, read from below ``key_url``.

    Raises
    ------
    CorruptResult
        If it is not a manifest, or of a later version than this program knows.
    """
    try:
        document = json.loads(body)
        if document["version"] > VERSION:
            raise CorruptResult(key_url, f"manifest version {document['version']} is newer than us")
        files = tuple(FileEntry(*entry) for entry in document["files"])
        prefix = f"{key_url}/{document['attempt']}"
        return Manifest(
            key=document["key"],
            attempt=document["attempt"],
            kind=document["kind"],
            format=document["format"],
            variable=document["variable"],
            nbytes=document["nbytes"],
            extent=from_document(Extent, document["extent"]),
            provenance=document["provenance"],
            files=files,
            prefix=prefix,
            url=opened_url(prefix, document["format"], files),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptResult(key_url, f"unreadable manifest: {error}") from error


def opened_url(prefix: str, format: Format, files: Iterable[FileEntry]) -> str:
    """What a reader opens: the one file of a single-file format, else the directory."""
    first = next(iter(files), None)
    if format in ONE_FILE and first is not None:
        return f"{prefix}/{first.path}"
    return prefix


def digest_of(files: Iterable[FileEntry]) -> str:
    """One digest of paths, sizes and checksums, in the order of the list."""
    digest = xxhash.xxh3_128()
    for file in files:
        digest.update(f"{file.path}\0{file.size}\0{file.checksum}\n".encode())
    return digest.hexdigest()


def replica_of(manifest: Manifest, site: str, store: str, created: float = 0.0) -> Replica:
    """The catalog's record of a committed result or copy; its fingerprint is that of the files."""
    return Replica(
        key=manifest.key,
        site=site,
        store=store,
        url=manifest.url,
        format=manifest.format,
        nbytes=manifest.nbytes,
        fingerprint=f"manifest:{digest_of(manifest.files)}",
        variable=manifest.variable,
        created=created,
    )


def dataset_of(
    manifest: Manifest,
    *,
    id: str,
    name: str,
    site: str,
    owner: str = "",
    tags: Mapping[str, str] | None = None,
    lineage: Lineage | None = None,
    created: float = 0.0,
) -> Dataset:
    """The catalog's record of what a committed result means."""
    return Dataset(
        id=id,
        name=name,
        key=manifest.key,
        kind=manifest.kind,
        extent=manifest.extent,
        site=site,
        owner=owner,
        tags=dict(tags or {}),
        lineage=lineage,
        created=created,
    )
