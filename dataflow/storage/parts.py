"""Parts: how a file larger than a part comes to lie in a store, and what a later try finds of it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import xxhash
from obstore import open_writer

from dataflow.errors import TransferFailed
from dataflow.storage.manifest import FileEntry
from dataflow.storage.multipart import Upload
from dataflow.storage.open import local_path
from dataflow.storage.publish import Attempt, checksum_of

#: Parts wait below this name until their file is whole, where the store's service does not keep them.
PARTS = ".parts"
#: Name of a file there of which not all parts have come.
_WHOLE = "whole"


class _Hashed:
    """Parts in any order, hashed in theirs while they are in memory, unless some came before."""

    def __init__(self, step: int, ahead: int, missing: list[tuple[int, int]], *, all: bool) -> None:
        self._step, self._ahead, self._wanted = step, ahead, missing
        self._continued = not all
        self._digest = xxhash.xxh3_128()
        self._waiting: dict[int, bytes] = {}
        self._done = 0
        self._moved = asyncio.Condition()

    def missing(self) -> list[tuple[int, int]]:
        """Parts that are still wanted, in order."""
        return self._wanted

    async def turn(self, part: tuple[int, int]) -> None:
        """Wait until the part is near enough to those before it, which have to be hashed first."""
        if not self._continued and part[0] >= self._done + self._ahead * self._step:
            async with self._moved:
                await self._moved.wait_for(lambda: part[0] < self._done + self._ahead * self._step)

    async def _hash(self, part: tuple[int, int], body: bytes) -> None:
        if self._continued:
            return
        self._waiting[part[0]] = body
        while (following := self._waiting.pop(self._done, None)) is not None:
            self._digest.update(following)
            self._done += len(following)
        async with self._moved:
            self._moved.notify_all()


class Sent(_Hashed):
    """A file whose parts the store's own service keeps and puts together.

    Nothing is read again, unless an earlier try had sent some of it: what came to another process
    can be checked only where it lies now.
    """

    def __init__(
        self, place: Attempt, file: FileEntry, step: int, upload: Upload, ahead: int
    ) -> None:
        self._place, self._file, self._upload = place, file, upload
        self._tags: dict[int, str] = {}
        missing = []
        for number, part in enumerate(cuts(file.size, step), 1):
            size, tag = upload.there.get(number, (-1, ""))
            if size == part[1] - part[0]:
                self._tags[number] = tag
            else:
                missing.append(part)
        super().__init__(step, ahead, missing, all=not self._tags)

    async def take(self, part: tuple[int, int], body: bytes) -> None:
        """Send a part on."""
        await self._hash(part, body)
        number = part[0] // self._step + 1
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


class Placed(_Hashed):
    """A file in a directory, whose parts are written where they belong.

    Beside it a name for each part that came keeps its digest, for a later try. Only that one reads
    what an earlier one wrote.
    """

    def __init__(
        self,
        place: Attempt,
        file: FileEntry,
        step: int,
        there: Mapping[str, FileEntry],
        ahead: int,
    ) -> None:
        self._place, self._file = place, file
        own = f"{PARTS}/{file.path}/"
        self._folder = _directory(place) / PARTS / file.path
        names = [path for path in there if path.startswith(own) and path != f"{own}{_WHOLE}"]
        self._marks = {_range_of(path): path.rpartition("/")[2] for path in names}
        missing = [part for part in cuts(file.size, step) if part not in self._marks]
        super().__init__(step, ahead, missing, all=not self._marks)

    async def take(self, part: tuple[int, int], body: bytes) -> None:
        """Write a part."""
        await self._hash(part, body)
        await asyncio.to_thread(self._write, part, body)

    def _write(self, part: tuple[int, int], body: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        file = os.open(self._folder / _WHOLE, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            rest = memoryview(body)
            while rest:
                rest = rest[os.pwrite(file, rest, part[1] - len(rest)) :]
        finally:
            os.close(file)
        mark = f"{part[0]}-{part[1]}-{xxhash.xxh3_64_hexdigest(body)}"
        (self._folder / mark).touch()
        self._marks[part] = mark

    def finish(self) -> FileEntry:
        """Check the file and give it its name."""
        place, file, whole = self._place, self._file, self._folder / _WHOLE
        if self._continued:
            self._read_again(whole)
        digest = self._digest.hexdigest()
        try:
            check(place, file, digest)
        except TransferFailed:
            shutil.rmtree(self._folder)
            raise
        path = _directory(place) / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        whole.replace(path)
        shutil.rmtree(self._folder)
        found = place.store.head(f"{place.prefix}/{file.path}")
        return FileEntry(file.path, file.size, found["e_tag"], digest)

    def _read_again(self, whole: Path) -> None:
        with whole.open("rb") as opened:
            for part in cuts(self._file.size, self._step):
                body = opened.read(part[1] - part[0])
                if xxhash.xxh3_64_hexdigest(body) != self._marks[part].rpartition("-")[2]:
                    (self._folder / self._marks[part]).unlink()
                    reason = f"bytes {part[0]}-{part[1]} of {self._file.path} have changed"
                    raise failed(self._place, reason)
                self._digest.update(body)


def can_place(place: Attempt, path: str) -> bool:
    """Whether a file's name means the same to a directory as to the store that opens it."""
    plain = re.fullmatch(r"[A-Za-z0-9_=+,. /-]+", path) is not None
    words = path.split("/")
    named = not any(word in {"", ".", ".."} for word in words) and words[0] != PARTS
    return plain and named and local_path(place.root) is not None


def _directory(place: Attempt) -> Path:
    root = local_path(place.root)
    assert root is not None
    return root / place.prefix


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
