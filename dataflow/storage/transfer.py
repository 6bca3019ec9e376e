"""Copies: a replica's files brought into a results store of this site, verified and in one step.

A copy is published like a result, below ``copies/``. Files are read in parts, several at a time. An
attempt that was cut off continues under the same name: files that are complete and parts that
arrived are not asked for again. Parts of a large file go to S3 as parts of one upload, which the
service puts together, and in a directory to their place in a file that has no name yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import xxhash

from dataflow.datasets import Extent, Format, Kind, Replica
from dataflow.errors import StorageError, TransferFailed, UnreadableDataset
from dataflow.storage.fingerprints import stored_files
from dataflow.storage.manifest import FileEntry, Manifest, opened_url
from dataflow.storage.multipart import step_of, upload_to
from dataflow.storage.open import Options, local_path, object_store, split
from dataflow.storage.parts import Placed, Sent, Staged, can_place, check, failed
from dataflow.storage.publish import (
    ROOT_METADATA,
    Attempt,
    attempt_at,
    checksum_of,
    find_result,
    plain_errors,
    publish,
)
from dataflow.tasks import together

#: What is asked of the source at a time (bytes).
PART_NBYTES = 8 * 2**20


class Source(Protocol):
    """Where a copy comes from: the files there are, and ranges of their bytes."""

    async def listing(self) -> Sequence[FileEntry]:
        """All files; checksums where the source knows them."""
        ...

    async def read(self, path: str, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end`` (exclusive) of one file."""
        ...


@runtime_checkable
class Streams(Protocol):
    """A source that gives ranges piece by piece as well, as they come."""

    def stream(
        self, path: str, start: int, end: int
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Bytes ``start`` to ``end`` (exclusive) of one file."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSource:
    """A replica read straight from the store that holds it.

    Of a committed result the ``manifest`` is the list, or what ``find`` finds when it is asked.
    """

    replica: Replica
    manifest: Manifest | None = None
    find: Callable[[], Manifest | None] | None = field(default=None, repr=False)
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    options: Options = ()

    async def listing(self) -> Sequence[FileEntry]:
        manifest = self.manifest
        if manifest is None and self.find is not None:
            manifest = await asyncio.to_thread(self.find)
        return await asyncio.to_thread(
            listing_of,
            self.replica,
            manifest=manifest,
            credentials=self.credentials,
            options=self.options,
        )

    async def stored(self) -> Sequence[FileEntry]:
        """All files that the store has there, whatever a manifest says."""
        return await asyncio.to_thread(
            listing_of, self.replica, credentials=self.credentials, options=self.options
        )

    async def read(self, path: str, start: int, end: int) -> bytes:
        return await asyncio.to_thread(
            read_range,
            self.replica,
            path,
            start,
            end,
            credentials=self.credentials,
            options=self.options,
        )


def listing_of(
    replica: Replica,
    *,
    manifest: Manifest | None = None,
    credentials: Mapping[str, str] | None = None,
    options: Options = (),
) -> tuple[FileEntry, ...]:
    """The files of a replica, sorted by path; a single file is listed under its own name.

    Parameters
    ----------
    manifest
        Of the committed result that the replica is, if it is one: its list, with checksums.

    Raises
    ------
    UnreadableDataset
        If nothing is there.
    """
    if manifest is not None:
        return manifest.files
    files = stored_files(replica.url, credentials=credentials, options=options)
    if files[0][0] == "":
        return (FileEntry(split(replica.url)[1], files[0][1]),)
    return tuple(FileEntry(path, size) for path, size in files)


def read_range(
    replica: Replica,
    path: str,
    start: int,
    end: int,
    *,
    credentials: Mapping[str, str] | None = None,
    options: Options = (),
) -> bytes:
    """Bytes ``start`` to ``end`` of one file of a replica, for somebody else to read.

    Raises
    ------
    UnreadableDataset
        If the path is not one of a file in the replica, by whatever trick: ``..``, an absolute
        path, a symbolic link that leads out; or if the range is not in the file.
    """
    parts = path.split("/")
    if not path or "\0" in path or "\\" in path or any(part in {"", ".", ".."} for part in parts):
        raise UnreadableDataset(replica.url, f"{path!r} is not a path inside it")
    if not 0 <= start <= end:
        raise UnreadableDataset(replica.url, f"{start}-{end} is not a range of bytes")
    root = local_path(replica.url)
    if root is not None:
        return _read_local(replica, root, path, start, end)
    parent, name = split(replica.url)
    base = parent if path == name and replica.format != "zarr" else replica.url
    if start == end:
        return b""
    store = object_store(base, credentials=credentials, options=options)
    try:
        with plain_errors(replica.url):
            return bytes(store.get_range(path, start=start, end=end))
    except StorageError as error:
        raise UnreadableDataset(replica.url, f"{path!r}: {error}") from error


def _read_local(replica: Replica, root: Path, path: str, start: int, end: int) -> bytes:
    inside = root if root.is_dir() else root.parent
    file = inside / path
    if root.is_file() and file != root:
        raise UnreadableDataset(replica.url, f"{path!r} is not a path inside it")
    real = file.resolve()
    if not real.is_relative_to(inside.resolve()) or not real.is_file():
        raise UnreadableDataset(replica.url, f"{path!r} is not a file inside it")
    with real.open("rb") as opened:
        opened.seek(start)
        found = opened.read(end - start)
    if len(found) != end - start:
        raise UnreadableDataset(replica.url, f"{path!r} ends before byte {end}")
    return found


async def copy(
    source: Source,
    *,
    root: str,
    key: str,
    attempt: str,
    provenance: Mapping[str, Any],
    kind: Kind,
    format: Format,
    extent: Extent,
    variable: str | None = None,
    credentials: Mapping[str, str] | None = None,
    options: Options = (),
    concurrency: int = 8,
    part_nbytes: int = PART_NBYTES,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> Manifest:
    """Copy all files of ``source`` to this site and publish them together.

    Parameters
    ----------
    root
        URL of a results store of this site.
    key, attempt
        Identity of the content, and the name of this try. The same name again continues where an
        interrupted one stopped; two tries at a time need two names.
    concurrency
        Parts on their way at a time; memory stays near ``concurrency * part_nbytes``.
    on_bytes
        Told the number of bytes of every part that came over the link, when it came.

    Returns
    -------
    Manifest
        Of the copy that is committed, by us or by somebody faster.

    Raises
    ------
    TransferFailed
        If a part is not what the listing promised, or source or target failed. Nothing is visible
        then; what arrived is kept for the next try.
    """
    place = attempt_at(root, key, attempt, area="copies", credentials=credentials, options=options)
    found = await asyncio.to_thread(
        find_result, root, key, area="copies", credentials=credentials, options=options
    )
    if found is not None:
        return found
    try:
        listing = sorted(await source.listing(), key=lambda file: file.path)
        copier = _Copier(source, place, part_nbytes, on_bytes)
        last = next((f for f in listing if format == "zarr" and f.path == ROOT_METADATA), None)
        files = await copier.bring([file for file in listing if file is not last], concurrency)
        root_metadata = await copier.part(last, 0, last.size) if last else None
        manifest = Manifest(
            key=key,
            attempt=attempt,
            kind=kind,
            format=format,
            files=files,
            nbytes=sum(file.size for file in files),
            extent=extent,
            provenance=dict(provenance),
            variable=variable,
            url=opened_url(place.url, format, files),
            prefix=place.url,
        )
        return await asyncio.to_thread(publish, place, manifest, root_metadata=root_metadata)
    except TransferFailed:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise TransferFailed(key, repr(source), place.url, reason) from error


@dataclass(frozen=True, slots=True)
class _Copier:
    """Brings files into one attempt."""

    source: Source
    place: Attempt
    part_nbytes: int
    on_bytes: Callable[[int], None]

    async def bring(self, listing: Sequence[FileEntry], concurrency: int) -> tuple[FileEntry, ...]:
        """All files, in the order of the listing, with what was found at the target."""
        there = await asyncio.to_thread(self.place.listing)
        done: dict[str, FileEntry] = {}
        for file in listing:
            if await asyncio.to_thread(self._has, file, there):
                done[file.path] = FileEntry(
                    file.path, file.size, there[file.path].etag, file.checksum
                )
        wanted = [file for file in listing if file.path not in done]
        large: dict[str, Staged | Placed | Sent] = {}
        opening = iter([file for file in wanted if not self._fits(file)])

        async def open_large() -> None:
            for file in opening:
                large[file.path] = await asyncio.to_thread(self._large, file, there, concurrency)

        await together([open_large() for _ in range(concurrency)])
        missing = {
            file.path: large[file.path].missing() if file.path in large else [(0, file.size)]
            for file in wanted
        }
        open_parts = {path: len(parts) for path, parts in missing.items()}
        # A file whose parts all arrived earlier has one job without a part: putting it together.
        nothing: list[tuple[int, int] | None] = [None]
        jobs = iter([(file, part) for file in wanted for part in missing[file.path] or nothing])

        async def work() -> None:
            for file, part in jobs:
                whole = large.get(file.path)
                if part is not None:
                    if whole is not None:
                        await whole.turn(part)
                    body = await self.part(file, *part)
                    if whole is None:
                        done[file.path] = await asyncio.to_thread(self.place.put, file.path, [body])
                        continue
                    await whole.take(part, body)
                    open_parts[file.path] -= 1
                if whole is not None and not open_parts[file.path]:
                    done[file.path] = await asyncio.to_thread(whole.finish)

        await together([work() for _ in range(concurrency)])
        return tuple(done[file.path] for file in listing)

    async def part(self, file: FileEntry, start: int, end: int) -> bytes:
        """One part over the link, metered; checked at once if it is the whole file."""
        body = await self.source.read(file.path, start, end) if end > start else b""
        self.on_bytes(len(body))
        if len(body) != end - start:
            reason = f"{file.path} came with {len(body)} of {end - start} bytes"
            raise failed(self.place, reason)
        if end - start == file.size:
            check(self.place, file, xxhash.xxh3_128_hexdigest(body))
        return body

    def _fits(self, file: FileEntry) -> bool:
        return file.size <= self.part_nbytes

    def _has(self, file: FileEntry, there: Mapping[str, FileEntry]) -> bool:
        """Whether an earlier try of this attempt put the whole file there."""
        found = there.get(file.path)
        if found is None or found.size != file.size:
            return False
        path = f"{self.place.prefix}/{file.path}"
        return file.checksum is None or checksum_of(self.place.store, path) == file.checksum

    def _large(
        self, file: FileEntry, there: Mapping[str, FileEntry], concurrency: int
    ) -> Staged | Placed | Sent:
        """How the parts of a file become one, where it is to lie."""
        step = step_of(self.place.root, file.size, self.part_nbytes)
        if not step and can_place(self.place, file.path):
            return Placed(self.place, file, self.part_nbytes, there, concurrency)
        if not step:
            return Staged(self.place, file, self.part_nbytes, there)
        return Sent(self.place, file, step, upload_to(self.place, file.path), concurrency)
