"""Upkeep of a results store: whether it is fit for results, and clearing up after dead attempts."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING

from obstore.exceptions import AlreadyExistsError, BaseError

from dataflow.errors import UnsafeStore
from dataflow.storage.layout import Area, key_prefix
from dataflow.storage.multipart import abort_below
from dataflow.storage.open import Options, object_store
from dataflow.storage.publish import delete_below, find_result, first_line, plain_errors

if TYPE_CHECKING:
    from dataflow.storage.open import AnyStore


def collect_garbage(
    root: str,
    *,
    older_than: float,
    now: float,
    credentials: Mapping[str, str] | None = None,
    options: Options = (),
) -> tuple[str, ...]:
    """Delete attempts that were never committed, and uploads that nobody goes on with.

    Parameters
    ----------
    older_than
        Seconds since the attempt last wrote anything. Must exceed the longest time that a live
        writer may pause: an attempt that is collected cannot be committed.
    now
        Seconds since the epoch, by the clock of the store.

    Returns
    -------
    tuple of str
        Paths below the root that were removed.
    """
    removed = []
    with plain_errors(root):
        store = object_store(root, credentials=credentials, options=options)
        areas: tuple[Area, ...] = ("results", "copies")
        for area in areas:
            for shard in store.list_with_delimiter(area)["common_prefixes"]:
                for key in store.list_with_delimiter(shard)["common_prefixes"]:
                    for prefix in _uncommitted(root, store, key, area, credentials, options):
                        newest = max(
                            (
                                meta["last_modified"].timestamp()
                                for batch in store.list(prefix)
                                for meta in batch
                            ),
                            default=0.0,
                        )
                        if now - newest > older_than:
                            delete_below(root, store, prefix)
                            removed.append(prefix)
        known = tuple(sorted((credentials or {}).items()))
        for area in areas:
            removed.extend(
                abort_below(root, f"{area}/", known, options, silent_since=now - older_than)
            )
    return tuple(removed)


def discard_uncommitted(
    root: str,
    key: str,
    *,
    area: Area = "results",
    credentials: Mapping[str, str] | None = None,
    options: Options = (),
) -> tuple[str, ...]:
    """Delete all attempts at a key that are not committed; nobody may be writing it.

    Returns
    -------
    tuple of str
        Paths below the root that were removed.
    """
    with plain_errors(root):
        store = object_store(root, credentials=credentials, options=options)
        prefix = key_prefix(area, key)
        removed = _uncommitted(root, store, prefix, area, credentials, options)
        for attempt in removed:
            delete_below(root, store, attempt)
    known = tuple(sorted((credentials or {}).items()))
    for attempt in removed:
        abort_below(root, f"{attempt}/", known, options)
    return tuple(removed)


def _uncommitted(
    root: str,
    store: AnyStore,
    key: str,
    area: Area,
    credentials: Mapping[str, str] | None,
    options: Options,
) -> list[str]:
    # The attempts first: one that commits after this line was either not listed or is excluded.
    attempts = store.list_with_delimiter(key)["common_prefixes"]
    name = key.rpartition("/")[2]
    found = find_result(root, name, area=area, credentials=credentials, options=options)
    return [
        prefix for prefix in attempts if found is None or prefix.rpartition("/")[2] != found.attempt
    ]


def check_store(
    root: str,
    *,
    credentials: Mapping[str, str] | None = None,
    options: Options = (),
    name: str = "",
) -> None:
    """Try whether a store can hold results: whether it honours "only if absent".

    Parameters
    ----------
    name
        Of the store, for the error; its URL if empty.

    Raises
    ------
    UnsafeStore
        If a second conditional put of one key is accepted, or no conditional put is.
    StorageError
        If the store cannot be reached or written to at all.
    """
    probe = f"results/probe-{uuid.uuid4().hex}"
    with plain_errors(root):
        store = object_store(root, credentials=credentials, options=options)
        store.put(probe, b"plain", use_multipart=False)
        store.delete(probe)
        try:
            store.put(probe, b"first", mode="create", use_multipart=False)
        except BaseError as error:
            raise UnsafeStore(
                name or root, f"it refuses conditional writes ({first_line(error)})"
            ) from error
        try:
            store.put(probe, b"second", mode="create", use_multipart=False)
        except AlreadyExistsError:
            return
        finally:
            store.delete(probe)
    raise UnsafeStore(name or root, "it ignores the condition 'only if absent' of a write")
