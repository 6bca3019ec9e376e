"""Files of a plain web server, which cannot list them: a Zarr hierarchy tells its files by its metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from math import ceil, prod
from typing import TYPE_CHECKING, Any

from dataflow.errors import UnreadableDataset
from dataflow.storage.manifest import PARQUET

if TYPE_CHECKING:
    from dataflow.storage.open import AnyStore

#: Endings of names that are single files: nobody looks for a hierarchy there.
_ONE_FILE = (".h5", ".hdf5", ".nc", ".nc4", ".cdf", ".npy", ".csv", *PARQUET)
_ROOTS = ("zarr.json", ".zmetadata", ".zarray")
#: Chunks that are asked about one by one, at most.
MOST_CHUNKS = 100_000
_AT_A_TIME = 16


def may_be_zarr(url: str) -> bool:
    """Whether it is worth asking for the metadata of a hierarchy at ``url``."""
    return not url.rstrip("/").lower().endswith(_ONE_FILE)


def zarr_files(url: str, store: AnyStore) -> tuple[tuple[str, int], ...] | None:
    """Files of the Zarr array, or the consolidated group, at the root of a store, with their sizes.

    Chunks that are not there are left out: they are all fill value. ``None`` if nothing like that
    is there.

    Raises
    ------
    UnreadableDataset
        For a group that is not consolidated, whose arrays nobody can find, or of too many chunks.
    """
    for root in _ROOTS:
        try:
            document = json.loads(bytes(store.get(root).bytes()))
        except FileNotFoundError:
            continue
        except ValueError:
            return None  # a page that says in words that nothing is there
        names = _v3(url, document) if root == "zarr.json" else _v2(root, document)
        known = [root, *names]
        if len(known) > MOST_CHUNKS:
            raise UnreadableDataset(url, f"it has more than {MOST_CHUNKS} files to be asked about")
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            sizes = pool.map(lambda name: _size(store, name), known)
            found = zip(known, sizes, strict=True)
            return tuple(sorted((name, size) for name, size in found if size is not None))
    return None


def _size(store: AnyStore, name: str) -> int | None:
    try:
        return int(store.head(name)["size"])
    except FileNotFoundError:
        return None


def _v3(url: str, root: Mapping[str, Any]) -> list[str]:
    if root.get("node_type") == "array":
        return list(_chunks("", root))
    documents = (root.get("consolidated_metadata") or {}).get("metadata")
    if documents is None:
        raise UnreadableDataset(
            url, "a Zarr group on a web server needs consolidated metadata: nobody can list it"
        )
    names = []
    for name, document in documents.items():
        names.append(f"{name}/zarr.json")
        if document.get("node_type") == "array":
            names += _chunks(f"{name}/", document)
    return names


def _chunks(prefix: str, document: Mapping[str, Any]) -> Iterator[str]:
    """Names of the chunks of an array of version 3, whether they are there or not."""
    lengths = document["chunk_grid"]["configuration"]["chunk_shape"]
    encoding = document.get("chunk_key_encoding") or {"name": "default"}
    default = encoding.get("name") == "default"
    mark = (encoding.get("configuration") or {}).get("separator", "/" if default else ".")
    for index in _grid(document["shape"], lengths):
        words = [*(["c"] if default else []), *map(str, index)]
        yield prefix + (mark.join(words) or "0")


def _v2(root: str, document: Mapping[str, Any]) -> list[str]:
    if root == ".zarray":
        return [".zattrs", *_chunks_v2("", document)]
    names = []
    for name, part in document["metadata"].items():
        names.append(name)
        folder, _, what = name.rpartition("/")
        if what == ".zarray":
            names += _chunks_v2(f"{folder}/" if folder else "", part)
    return names


def _chunks_v2(prefix: str, document: Mapping[str, Any]) -> Iterator[str]:
    mark = document.get("dimension_separator", ".")
    for index in _grid(document["shape"], document["chunks"]):
        yield prefix + (mark.join(map(str, index)) or "0")


def _grid(shape: list[int], lengths: list[int]) -> Iterator[tuple[int, ...]]:
    counts = [ceil(n / c) for n, c in zip(shape, lengths, strict=True)]
    if prod(counts) > MOST_CHUNKS:  # counted before they are made
        yield from ((n,) for n in range(MOST_CHUNKS + 1))
        return
    yield from product(*map(range, counts))
