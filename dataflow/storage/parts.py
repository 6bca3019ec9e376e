"""Parts: how a file larger than a part comes to lie in a store, and what a later try finds of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import xxhash
from obstore import open_writer

from dataflow.errors import TransferFailed
from dataflow.storage.manifest import FileEntry
from dataflow.storage.multipart import Upload
from dataflow.storage.publish import Attempt, checksum_of

#: Parts wait below this name until their file is whole, where the store's service does not keep them.
PARTS = ".parts"


class Sent:
    """A file whose parts the store's own service keeps and puts together.

    Nothing is read again, unless an earlier try had sent some of it: what came to another process
    can be checked only where it lies now.
    """

    def __init__(
        self, place: Attempt, file: FileEntry, step: int, upload: Upload, ahead: int
    ) -> None:
        self._place, self._file, self._step, self._upload = place, file, step, upload
        self._ahead = ahead
        self._tags: dict[int, str] = {}
        self._missing = []
        for number, part in enumerate(cuts(file.size, step), 1):
            size, tag = upload.there.get(number, (-1, ""))
            if size == part[1] - part[0]:
                self._tags[number] = tag
            else:
                self._missing.append(part)
        self._continued = bool(self._tags)
        self._digest = xxhash.xxh3_128()
        self._waiting: dict[int, bytes] = {}
        self._hashed = 0
        self._moved = asyncio.Condition()

    def missing(self) -> list[tuple[int, int]]:
        """Parts that are still wanted, in order."""
        return self._missing

    async def turn(self, part: tuple[int, int]) -> None:
        """Wait until the part is near enough to those before it, which have to be hashed first."""
        if not self._continued:
            furthest = self._hashed + self._ahead * self._step
            if part[0] >= furthest:
                async with self._moved:
                    await self._moved.wait_for(
                        lambda: part[0] < self._hashed + self._ahead * self._step
                    )

    async def take(self, part: tuple[int, int], body: bytes) -> None:
        """Send a part on."""
        number = part[0] // self._step + 1
        if not self._continued:
            self._waiting[part[0]] = body
            while (following := self._waiting.pop(self._hashed, None)) is not None:
                self._digest.update(following)
                self._hashed += len(following)
            async with self._moved:
                self._moved.notify_all()
        self._tags[number] = await asyncio.to_thread(self._upload.put, number, body)

    def finish(self) -> FileEntry:
        """Make one file of the parts, checked."""
        file, store = self._file, self._place.store
        path = f"{self._place.prefix}/{file.path}"
        try:
            if not self._continued:
                check(self._place, file, self._digest.hexdigest())
        except TransferFailed:
            self._upload.abort()
            raise
        self._upload.complete(self._tags)
        digest = checksum_of(store, path) if self._continued else self._digest.hexdigest()
        try:
            check(self._place, file, digest)
        except TransferFailed:
            store.delete(path)
            raise
        return FileEntry(file.path, file.size, store.head(path)["e_tag"], digest)


class Staged:
    """A file whose parts wait as files of their own, below :data:`PARTS`, until all are there."""

    def __init__(
        self, place: Attempt, file: FileEntry, step: int, there: Mapping[str, FileEntry]
    ) -> None:
        self._place, self._file, self._step = place, file, step
        prefix = f"{PARTS}/{file.path}/"
        self._staged = {_range_of(path) for path in there if path.startswith(prefix)}

    def missing(self) -> list[tuple[int, int]]:
        """Parts that are still wanted, in order."""
        return [p for p in cuts(self._file.size, self._step) if p not in self._staged]

    async def turn(self, part: tuple[int, int]) -> None:
        """Any part may come at any time."""

    async def take(self, part: tuple[int, int], body: bytes) -> None:
        """Put a part aside."""
        await asyncio.to_thread(self._stage, part, body)

    def _stage(self, part: tuple[int, int], body: bytes) -> None:
        digest = xxhash.xxh3_64_hexdigest(body)
        self._place.put(f"{PARTS}/{self._file.path}/{part[0]}-{part[1]}-{digest}", [body])

    def finish(self) -> FileEntry:
        """One file out of its parts, read again and checked; inside the target store only."""
        place, file = self._place, self._file
        prefix = f"{PARTS}/{file.path}/"
        staged = {_range_of(path): path for path in place.listing() if path.startswith(prefix)}
        digest = xxhash.xxh3_128()
        store = place.store

        path = f"{place.prefix}/{file.path}"
        # Not an iterator given to put: obstore cannot be called from inside of one of its calls.
        writer = open_writer(store, path, buffer_size=max(self._step, 5 * 2**20), max_concurrency=4)
        for part in cuts(file.size, self._step):
            name = staged[part]
            body = store.get(f"{place.prefix}/{name}").bytes()
            if xxhash.xxh3_64_hexdigest(memoryview(body)) != name.rpartition("-")[2]:
                # Left unclosed, the file does not appear.
                store.delete(f"{place.prefix}/{name}")
                raise failed(place, f"bytes {part[0]}-{part[1]} of {file.path} have changed")
            digest.update(memoryview(body))
            writer.write(body)
        writer.close()
        try:
            check(place, file, digest.hexdigest())
        except TransferFailed:
            store.delete([f"{place.prefix}/{path}" for path in (file.path, *staged.values())])
            raise
        store.delete([f"{place.prefix}/{path}" for path in staged.values()])
        return FileEntry(file.path, file.size, store.head(path)["e_tag"], digest.hexdigest())


def cuts(size: int, step: int) -> list[tuple[int, int]]:
    """Ranges of ``step`` bytes, the last one shorter, that make up ``size``."""
    return [(start, min(start + step, size)) for start in range(0, size, step)]


def check(place: Attempt, file: FileEntry, digest: str) -> None:
    """Raise unless that is the digest which the listing promised, if it did."""
    if file.checksum is not None and digest != file.checksum:
        raise failed(place, f"the bytes of {file.path} are not those of the listing")


def failed(place: Attempt, reason: str) -> TransferFailed:
    """The error of a copy into ``place``."""
    return TransferFailed(place.key, "the source", place.url, reason)


def _range_of(path: str) -> tuple[int, int]:
    start, end, _ = path.rpartition("/")[2].split("-")
    return int(start), int(end)
