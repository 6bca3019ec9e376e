"""Publishing in one step: everything about commits, and nothing about formats.

An attempt writes below a prefix of its own. When all of it is proven to be there, one put with the
condition "only if absent" makes it visible. Whoever comes second deletes his own prefix and takes
the winner's manifest. Readers start at ``COMMIT.json`` and nowhere else, so a killed writer leaves
bytes, never a result.

What this rests on is tried by :func:`dataflow.storage.upkeep.check_store` when a store is configured: a server that ignores
the condition (there are such) would let every racer win.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import xxhash
from obstore.exceptions import AlreadyExistsError, BaseError

from dataflow import tracing
from dataflow.errors import CorruptResult, StorageError
from dataflow.storage.layout import COMMIT, Area, attempt_prefix, key_prefix
from dataflow.storage.manifest import FileEntry, Manifest, from_bytes, to_bytes
from dataflow.storage.multipart import abort_below
from dataflow.storage.open import Options, local_path, object_store, quick

if TYPE_CHECKING:
    from dataflow.storage.open import AnyStore

#: Written last in an attempt, if it is there: without it no Zarr reader sees a group.
ROOT_METADATA = "zarr.json"


@contextmanager
def plain_errors(url: str) -> Iterator[None]:
    """A store's own errors as :class:`StorageError` with the first line of their text.

    All but "already exists", which is an answer.
    """
    try:
        yield
    except AlreadyExistsError:
        raise
    except (FileNotFoundError, BaseError) as error:
        raise StorageError(f"{url}: {first_line(error)}") from error


#: How obstore says that it has given up.
_GIVEN_UP = re.compile(
    r"Generic \w+ error: Error performing (?P<method>\w+) \S+ in (?P<time>[\d.]+)(?P<unit>\w+)"
    r"(?:, after (?P<retries>\d+) retries, .*?)? +- (?:HTTP error: )?(?P<reason>.*)"
)
_UNITS = {"s": 1.0, "ms": 1e-3}


def first_line(error: BaseException) -> str:
    """The first line of an error's text, in plain words: obstore adds pages of detail."""
    line = str(error).strip().partition("\n")[0]
    found = _GIVEN_UP.fullmatch(line)
    if found is None:
        return line
    tries, seconds = int(found["retries"] or 0) + 1, float(found["time"])
    seconds *= _UNITS.get(found["unit"], 1e-6)
    often = f"{tries} times in {seconds:.2g} s" if tries > 1 else f"after {seconds:.2g} s"
    return f"{found['method']} failed {often}: {found['reason']}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at writing a result: a prefix in a store that nobody else writes to.

    Pickles to workers with its credentials; its text does not show them.
    """

    root: str
    key: str
    attempt: str
    area: Area = "results"
    credentials: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    options: tuple[tuple[str, str], ...] = ()

    @property
    def store(self) -> AnyStore:
        """The store at the root; one per process."""
        return object_store(self.root, credentials=dict(self.credentials), options=self.options)

    @property
    def quick_store(self) -> AnyStore:
        """The same for requests that carry next to nothing."""
        return object_store(
            self.root, credentials=dict(self.credentials), options=quick(self.options)
        )

    @property
    def prefix(self) -> str:
        """Path of the attempt below the root."""
        return attempt_prefix(self.area, self.key, self.attempt)

    @property
    def url(self) -> str:
        """URL of the attempt."""
        return f"{self.root.rstrip('/')}/{self.prefix}"

    def put(self, path: str, parts: Sequence[Any]) -> FileEntry:
        """Write one file from consecutive buffers, in one request and without joining them."""
        digest = xxhash.xxh3_128()
        size = 0
        for part in parts:
            digest.update(part)
            size += memoryview(part).nbytes
        with plain_errors(self.url):
            put = self.store.put(f"{self.prefix}/{path}", list(parts), use_multipart=False)
        return FileEntry(path, size, put["e_tag"], digest.hexdigest())

    def listing(self) -> dict[str, FileEntry]:
        """What the store says is there, by path below the attempt; no checksums."""
        with plain_errors(self.url):
            return {entry.path: entry for entry in listed(self.quick_store, self.prefix)}


def listed(store: AnyStore, prefix: str) -> Iterator[FileEntry]:
    """All objects below a prefix, with paths relative to it."""
    for batch in store.list(prefix):
        for meta in batch:
            path = str(meta["path"])[len(prefix) :].lstrip("/")
            yield FileEntry(path, int(meta["size"]), meta["e_tag"])


def attempt_at(
    root: str,
    key: str,
    attempt: str,
    *,
    area: Area = "results",
    credentials: Mapping[str, str] | None = None,
    options: Options = (),
) -> Attempt:
    """An :class:`Attempt` from loose values."""
    attempt_prefix(area, key, attempt)  # refuses names that could leave the prefix
    return Attempt(
        root=root,
        key=key,
        attempt=attempt,
        area=area,
        credentials=tuple(sorted((credentials or {}).items())),
        options=tuple(options),
    )


def publish(
    attempt: Attempt, manifest: Manifest, *, root_metadata: bytes | None = None
) -> Manifest:
    """Make an attempt visible, all of it or nothing.

    Parameters
    ----------
    manifest
        Lists every file that was written, except ``zarr.json`` at the root.
    root_metadata
        Content of that last file, for Zarr.

    Returns
    -------
    Manifest
        Of the one attempt that is committed: this one, or the one that was faster. In that case
        what this one wrote is gone.

    Raises
    ------
    CorruptResult
        If the store does not list what was written; nothing is visible then.
    """
    with tracing.committing(manifest.key):
        return _publish(attempt, manifest, root_metadata)


def _publish(attempt: Attempt, manifest: Manifest, root_metadata: bytes | None) -> Manifest:
    prove(attempt, manifest.files)
    if root_metadata is not None:
        last = attempt.put(ROOT_METADATA, [root_metadata])
        files = tuple(sorted((*manifest.files, last), key=lambda file: file.path))
        manifest = replace(manifest, files=files, nbytes=manifest.nbytes + last.size)
    commit = f"{key_prefix(attempt.area, attempt.key)}/{COMMIT}"
    try:
        with plain_errors(attempt.url):
            attempt.quick_store.put(commit, to_bytes(manifest), mode="create", use_multipart=False)
    except AlreadyExistsError:
        winner = find_result(
            attempt.root,
            attempt.key,
            area=attempt.area,
            credentials=dict(attempt.credentials),
            options=attempt.options,
        )
        if winner is None:
            raise StorageError(f"{commit} was removed while {attempt.url} was committed") from None
        # Our own put, whose answer was lost and which the client sent again, is no defeat.
        if winner.attempt != attempt.attempt:
            discard(attempt)
        return winner
    return manifest


def prove(attempt: Attempt, files: Iterable[FileEntry]) -> None:
    """Compare what was written with what the store lists; delete what nobody claims.

    Raises
    ------
    CorruptResult
        Naming up to three files that are missing or of another size.
    """
    there = attempt.listing()
    wrong = []
    for file in files:
        found = there.pop(file.path, None)
        if found is None:
            wrong.append(f"{file.path} is missing")
        elif found.size != file.size:
            wrong.append(f"{file.path} has {found.size} bytes, not {file.size}")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CorruptResult(attempt.url, "; ".join(wrong[:3]) + more)
    if there:
        with plain_errors(attempt.url):
            attempt.store.delete([f"{attempt.prefix}/{path}" for path in there])


def discard(attempt: Attempt) -> None:
    """Delete everything that an attempt wrote; nothing if it wrote nothing."""
    with plain_errors(attempt.url):
        delete_below(attempt.root, attempt.store, attempt.prefix)
    abort_below(attempt.root, f"{attempt.prefix}/", attempt.credentials, attempt.options)


def delete_below(root: str, store: AnyStore, prefix: str) -> None:
    """Delete all objects below a prefix of the store at ``root``."""
    paths = [f"{prefix}/{file.path}" for file in listed(store, prefix)]
    if paths:
        store.delete(paths)
    directory = local_path(root)
    if directory is not None:
        # Empty directories, and half-written files that a killed process left unlisted.
        shutil.rmtree(directory / prefix, ignore_errors=True)


def find_result(
    root: str,
    key: str,
    *,
    area: Area = "results",
    credentials: Mapping[str, str] | None = None,
    options: Options = (),
) -> Manifest | None:
    """The committed result of ``key``; ``None`` if there is none (yet).

    Raises
    ------
    StorageError
        If the store cannot be asked.
    CorruptResult
        If the commit itself cannot be read.
    """
    path = local_path(root)
    if path is not None and not path.is_dir():
        return None
    prefix = key_prefix(area, key)
    url = f"{root.rstrip('/')}/{prefix}"
    with plain_errors(url):
        store = object_store(root, credentials=credentials, options=quick(options))
        try:
            body = bytes(store.get(f"{prefix}/{COMMIT}").bytes())
        except FileNotFoundError:
            return None
    return from_bytes(body, url)


def verify_result(
    manifest: Manifest,
    *,
    deep: bool = False,
    credentials: Mapping[str, str] | None = None,
    options: Options = (),
) -> None:
    """Compare a committed result with what lies in the store.

    Parameters
    ----------
    deep
        Read every byte and compare checksums too; otherwise names, sizes and, on S3, ETags.

    Raises
    ------
    CorruptResult
        Naming the first file, in the order of the manifest, that is missing or different.
    """
    path = local_path(manifest.prefix)
    if path is not None and not path.is_dir():
        raise CorruptResult(manifest.prefix, "its directory is gone")
    with plain_errors(manifest.prefix):
        store = object_store(manifest.prefix, credentials=credentials, options=options, mkdir=False)
        there = {file.path: file for file in listed(store, "")}
        for file in manifest.files:
            found = there.get(file.path)
            if found is None:
                raise CorruptResult(manifest.prefix, f"{file.path} is missing")
            if found.size != file.size:
                raise CorruptResult(
                    manifest.prefix, f"{file.path} has {found.size} bytes, not {file.size}"
                )
            # A local ETag holds the inode and the time, which a restored backup changes.
            if path is None and file.etag and found.etag and file.etag != found.etag:
                raise CorruptResult(manifest.prefix, f"{file.path} was written again")
        if deep:
            _verify_bytes(manifest, store)


def _verify_bytes(manifest: Manifest, store: AnyStore) -> None:
    checked = [file for file in manifest.files if file.checksum is not None]
    with ThreadPoolExecutor(4) as pool:
        digests = pool.map(lambda file: checksum_of(store, file.path), checked)
        for file, digest in zip(checked, digests, strict=True):
            if digest != file.checksum:
                raise CorruptResult(manifest.prefix, f"the bytes of {file.path} have changed")


def checksum_of(store: AnyStore, path: str) -> str:
    """XXH3-128 of one object, read in pieces."""
    digest = xxhash.xxh3_128()
    for piece in store.get(path).stream(min_chunk_size=2**20):
        digest.update(memoryview(piece))
    return digest.hexdigest()


def remove_result(
    root: str,
    key: str,
    *,
    area: Area = "results",
    credentials: Mapping[str, str] | None = None,
    options: Options = (),
) -> None:
    """Delete a result and all attempts at it; nothing if there are none.

    The commit goes first: whoever looks meanwhile finds no result, never half of one. Somebody who
    is reading it at that moment gets an error.
    """
    prefix = key_prefix(area, key)
    with plain_errors(root):
        store = object_store(root, credentials=credentials, options=options)
        # Local stores complain about a file that is not there, S3 does not.
        if any(file.path == COMMIT for file in listed(store, prefix)):
            store.delete(f"{prefix}/{COMMIT}")
        delete_below(root, store, prefix)
    abort_below(root, f"{prefix}/", tuple(sorted((credentials or {}).items())), options)
