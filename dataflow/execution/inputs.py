"""What a step reads from stores, as a function or a command wants it; inside a worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataflow.datasets import Kind, Replica
from dataflow.errors import StorageError, UnreadableDataset
from dataflow.storage.layout import READ_NBYTES
from dataflow.storage.open import Options, local_path, object_store, split
from dataflow.storage.transfer import listing_of

_PIECE = 16 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Lying:
    """Something that lies in a store of the site: what a step reads."""

    replica: Replica
    kind: Kind
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    options: Options = ()


def opened(
    source: Lying,
    *,
    lazy: bool,
    scratch: Callable[[], Path],
    chunk_nbytes: int = READ_NBYTES,
) -> Any:
    """A value for a function; lazy ones in blocks of about ``chunk_nbytes``.

    Raises
    ------
    UnreadableDataset
        Whatever the library of the format had to say about the bytes.
    """
    from dataflow.storage.read import open_data  # with all libraries that read arrays

    if source.kind == "files" and local_path(source.replica.url) is None:
        return fetched(source, scratch())
    try:
        return open_data(
            source.replica,
            kind=source.kind,
            credentials=source.credentials,
            options=source.options,
            lazy=lazy,
            chunk_nbytes=chunk_nbytes,
        )
    except OSError as error:
        if isinstance(error, StorageError) or error.errno is not None:
            raise
        raise UnreadableDataset(source.replica.url, f"{error}") from error
    except (ValueError, KeyError, TypeError, EOFError) as error:
        if isinstance(error, UnreadableDataset):
            raise
        reason = f"{type(error).__name__}: {error}"
        raise UnreadableDataset(source.replica.url, reason) from error


def as_table(source: Lying, scratch: Callable[[], Path]) -> Any:
    """The same for functions that read tables as streams: what to open, not opened."""
    from dataflow.storage.tabular import StoredTable

    remote = local_path(source.replica.url) is None
    files: tuple[Path, ...] = ()
    if source.kind == "files":
        files = tuple(
            fetched(source, scratch()) if remote else opened(source, lazy=False, scratch=scratch)
        )
    return StoredTable(
        replica=source.replica,
        kind=source.kind,
        credentials=source.credentials,
        options=source.options,
        paths=files,
    )


def path_of(source: Any, scratch: Callable[[], Path]) -> Path:
    """The local path of something that lies in a store."""
    assert isinstance(source, Lying), "what a command reads is always stored"
    path = local_path(source.replica.url)
    if path is None:
        directory = scratch()
        files = fetched(source, directory)
        return files[0] if len(files) == 1 else directory
    if not path.exists():
        raise UnreadableDataset(source.replica.url, "nothing is there")
    if source.kind == "files" and path.is_dir():
        inside = [file for file in path.rglob("*") if file.is_file()]
        return inside[0] if len(inside) == 1 else path
    return path


def fetched(source: Lying, directory: Path) -> list[Path]:
    """The files of a replica in an object store, brought into a directory.

    Raises
    ------
    UnreadableDataset
        If the name of one leads out of the directory.
    """
    url = source.replica.url
    entries = listing_of(source.replica, credentials=source.credentials, options=source.options)
    single = len(entries) == 1 and entries[0].path == split(url)[1]
    store = object_store(
        split(url)[0] if single else url, credentials=source.credentials, options=source.options
    )
    paths = []
    for entry in entries:
        path = directory / entry.path
        if ".." in path.parts or not path.is_relative_to(directory):
            raise UnreadableDataset(url, f"{entry.path!r} is no name of a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as opened:
            for piece in store.get(entry.path).stream(min_chunk_size=_PIECE):
                opened.write(memoryview(piece))
        paths.append(path)
    return paths
