"""Verify: the bytes of a copy beside the digests that its writer noted."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import xxhash

from dataflow.datasets import Replica
from dataflow.errors import (
    ConfigError,
    PolicyError,
    SiteError,
    SiteUnreachable,
    StorageError,
    UnreadableDataset,
)
from dataflow.storage.manifest import FileEntry, digest_of
from dataflow.storage.transfer import PART_NBYTES, Source, StoreSource

#: A chunk of a Zarr array: its variable, and its place in the grid.
_CHUNK = re.compile(r"^(?:(?P<variable>.+)/)?c(?P<place>(?:/\d+)*)$")
#: A copy that was not registered as one with digests has no such word in front.
COMMITTED = "manifest:"
_GROWN = "it goes on after {} bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """One file that is not what its writer noted."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{chunk_of(self.path)}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What became of a look at every byte of a copy.

    Attributes
    ----------
    files, nbytes
        Files that have a digest, and bytes that were read of them.
    wrong
        Files whose bytes are not those of the digest, that have more, that cannot be read, or that
        are there and not in the list (of a store that is opened directly); the path is empty
        where the list itself is not the one that the catalog knows.
    bare
        Paths of files that nobody noted a digest of.
    """

    files: int
    nbytes: int
    wrong: tuple[Wrong, ...] = ()
    bare: tuple[str, ...] = ()


def chunk_of(path: str) -> str:
    """A path in the words of who looks at arrays: ``chunk (0, 1) of velocity``."""
    found = _CHUNK.match(path)
    if found is None:
        return path or "the list of files"
    place = ", ".join(found["place"].split("/")[1:])
    what = f"chunk ({place})" if place else "the one chunk"
    return f"{what} of {found['variable']}" if found["variable"] else what


async def verify(
    source: Source,
    replica: Replica,
    *,
    part_nbytes: int = PART_NBYTES,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Checked:
    """Read all of a copy and compare; memory stays near ``part_nbytes``.

    Parameters
    ----------
    told
        Gets the number of files that are through, and of all.

    Raises
    ------
    SiteUnreachable, PolicyError
        If the site does not answer, or an owner does not let it be read.
    StorageError
        If there is no list of files.
    """
    listing = sorted(await source.listing(), key=lambda file: file.path)
    wrong = list(_list_itself(replica, listing))
    direct = isinstance(source, StoreSource)
    known = [file for file in listing if file.checksum is not None]
    nbytes = 0
    for number, file in enumerate(known, start=1):
        reason, count = await _file(source, file, part_nbytes, beyond=not direct)
        nbytes += count
        if reason:
            wrong.append(Wrong(path=file.path, reason=reason))
        told(number, len(known))
    if isinstance(source, StoreSource) and known:
        said = {one.path for one in wrong}
        wrong += [one for one in await _more_stored(source, listing) if one.path not in said]
    bare = tuple(file.path for file in listing if file.checksum is None)
    return Checked(files=len(known), nbytes=nbytes, wrong=tuple(wrong), bare=bare)


def _list_itself(replica: Replica, listing: Sequence[FileEntry]) -> Sequence[Wrong]:
    """Whoever changes a file and its digest in the list has changed the list."""
    if not replica.fingerprint.startswith(COMMITTED):
        return ()
    if COMMITTED + digest_of(listing) == replica.fingerprint:
        return ()
    return (Wrong(path="", reason="it is not the one that the catalog knows"),)


async def _more_stored(source: StoreSource, listing: Sequence[FileEntry]) -> list[Wrong]:
    """What a store has more than the list says: whole files, or bytes at their ends."""
    try:
        stored = await source.stored()
    except (StorageError, UnreadableDataset):  # said of each file already
        return []
    sizes = {file.path: file.size for file in listing}
    return [
        Wrong(path=file.path, reason=_GROWN.format(sizes[file.path]))
        if file.path in sizes
        else Wrong(path=file.path, reason="it is not in the list of files")
        for file in stored
        if file.size > sizes.get(file.path, -1)
    ]


async def _file(
    source: Source, file: FileEntry, part_nbytes: int, *, beyond: bool
) -> tuple[str, int]:
    """Why a file is wrong, empty if it is not, and how much was read of it.

    With ``beyond``, one byte more than there should be is asked for.
    """
    digest, count = xxhash.xxh3_128(), 0
    try:
        if beyond and not file.size and await _begins(source, file.path):
            return _GROWN.format(0), 0
        while count < file.size:
            end = min(file.size, count + part_nbytes)
            part = await source.read(file.path, count, end + (beyond and end == file.size))
            if count + len(part) > file.size:
                return _GROWN.format(file.size), file.size
            if not part:
                return f"it ends after {count} of {file.size} bytes", count
            digest.update(part)
            count += len(part)
    except (SiteUnreachable, PolicyError):
        raise
    except (StorageError, SiteError, UnreadableDataset) as error:
        return f"it cannot be read: {error}", count
    if digest.hexdigest() != file.checksum:
        return f"its bytes are XXH3-128 {digest.hexdigest()}, noted was {file.checksum}", count
    return "", count


async def _begins(source: Source, path: str) -> bool:
    """Whether a file that should be empty has a byte; that there is no such range says no."""
    try:
        return bool(await source.read(path, 0, 1))
    except (SiteUnreachable, PolicyError):
        raise
    except (ConfigError, StorageError, SiteError, UnreadableDataset):
        return False
