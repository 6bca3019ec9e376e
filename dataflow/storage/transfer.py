"""Copies: a replica's files brought into a results store of this site, verified and in one step.

A copy is published like a result, below ``copies/``. Files are read in parts, several at a time. An
attempt that was cut off continues under the same name: files that are complete and parts that
arrived are not asked for again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import xxhash
from obstore import open_writer

from dataflow.datasets import Extent, Format, Kind, Replica
from dataflow.errors import StorageError, TransferFailed, UnreadableDataset
from dataflow.storage.fingerprints import stored_files
from dataflow.storage.manifest import FileEntry, Manifest, opened_url
from dataflow.storage.open import Options, local_path, object_store, split
from dataflow.storage.publish import (
    ROOT_METADATA,
    Attempt,
    attempt_at,
    checksum_of,
    find_result,
    plain_errors,
    publish,
)

#: Parts of files larger than a part wait below this name until their file is whole.
PARTS = ".parts"
PART_NBYTES = 8 * 2**20


class Source(Protocol):
    """Where a copy comes from: the files there are, and ranges of their bytes."""

    async def listing(self) -> Sequence[FileEntry]:
        """All files; checksums where the source knows them."""
        ...

    async def read(self, path: str, start: int, end: int) -> bytes:
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
        missing = {file.path: self._missing(file, there) for file in wanted}
        open_parts = {path: len(parts) for path, parts in missing.items()}
        # A file whose parts all arrived earlier has one job without a part: putting it together.
        nothing: list[tuple[int, int] | None] = [None]
        jobs = iter([(file, part) for file in wanted for part in missing[file.path] or nothing])

        async def work() -> None:
            for file, part in jobs:
                if part is not None:
                    body = await self.part(file, *part)
                    if self._fits(file):
                        done[file.path] = await asyncio.to_thread(self.place.put, file.path, [body])
                        continue
                    await asyncio.to_thread(self._stage, file, part, body)
                    open_parts[file.path] -= 1
                if not open_parts[file.path]:
                    done[file.path] = await asyncio.to_thread(self._assemble, file)

        await _together([work() for _ in range(concurrency)])
        return tuple(done[file.path] for file in listing)

    async def part(self, file: FileEntry, start: int, end: int) -> bytes:
        """One part over the link, metered; checked at once if it is the whole file."""
        body = await self.source.read(file.path, start, end) if end > start else b""
        self.on_bytes(len(body))
        if len(body) != end - start:
            raise self._failed(f"{file.path} came with {len(body)} of {end - start} bytes")
        if end - start == file.size:
            self._check(file, xxhash.xxh3_128_hexdigest(body))
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

    def _missing(self, file: FileEntry, there: Mapping[str, FileEntry]) -> list[tuple[int, int]]:
        if self._fits(file):
            return [(0, file.size)]
        starts = range(0, file.size, self.part_nbytes)
        wanted = [(start, min(start + self.part_nbytes, file.size)) for start in starts]
        staged = {_range_of(path) for path in there if path.startswith(f"{PARTS}/{file.path}/")}
        return [part for part in wanted if part not in staged]

    def _stage(self, file: FileEntry, part: tuple[int, int], body: bytes) -> None:
        digest = xxhash.xxh3_64_hexdigest(body)
        self.place.put(f"{PARTS}/{file.path}/{part[0]}-{part[1]}-{digest}", [body])

    def _assemble(self, file: FileEntry) -> FileEntry:
        """One file out of its parts, read again and checked; inside the target store only."""
        prefix = f"{PARTS}/{file.path}/"
        staged = {_range_of(path): path for path in self.place.listing() if path.startswith(prefix)}
        starts = range(0, file.size, self.part_nbytes)
        wanted = [(start, min(start + self.part_nbytes, file.size)) for start in starts]
        digest = xxhash.xxh3_128()
        store = self.place.store

        path = f"{self.place.prefix}/{file.path}"
        # Not an iterator given to put: obstore cannot be called from inside of one of its calls.
        writer = open_writer(
            store, path, buffer_size=max(self.part_nbytes, 5 * 2**20), max_concurrency=4
        )
        for part in wanted:
            name = staged[part]
            body = store.get(f"{self.place.prefix}/{name}").bytes()
            if xxhash.xxh3_64_hexdigest(memoryview(body)) != name.rpartition("-")[2]:
                # Left unclosed, the file does not appear.
                store.delete(f"{self.place.prefix}/{name}")
                raise self._failed(f"bytes {part[0]}-{part[1]} of {file.path} have changed")
            digest.update(memoryview(body))
            writer.write(body)
        writer.close()
        try:
            self._check(file, digest.hexdigest())
        except TransferFailed:
            store.delete([f"{self.place.prefix}/{path}" for path in (file.path, *staged.values())])
            raise
        store.delete([f"{self.place.prefix}/{path}" for path in staged.values()])
        return FileEntry(file.path, file.size, store.head(path)["e_tag"], digest.hexdigest())

    def _check(self, file: FileEntry, digest: str) -> None:
        if file.checksum is not None and digest != file.checksum:
            raise self._failed(f"the bytes of {file.path} are not those of the listing")

    def _failed(self, reason: str) -> TransferFailed:
        return TransferFailed(self.place.key, "the source", self.place.url, reason)


def _range_of(path: str) -> tuple[int, int]:
    start, end, _ = path.rpartition("/")[2].split("-")
    return int(start), int(end)


async def _together(works: Sequence[Any]) -> None:
    """Run all; the first failure stops the others and is raised as itself."""
    running = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
