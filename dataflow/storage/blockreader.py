"""A remote object as a seekable file, read in whole blocks."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from dataflow.storage.open import Options, local_path, object_store, split

if TYPE_CHECKING:
    from typing_extensions import Buffer


#: Measured with a compressed HDF5 file of 88 MB and 62 arrays: smaller ones move fewer bytes and ask
#: more often.
BLOCK_NBYTES = 512 * 2**10


class BlockReader(io.RawIOBase):
    """One object of a store as a file that h5py, pyarrow and pandas accept.

    Bytes come in blocks of ``block_nbytes``, of which the process keeps those that it used last, for
    whoever opens the same file next. HDF5 reads many small pieces that lie close together: asking
    for each costs a round trip every time, and reading ahead moves tens of times the bytes that are
    wanted. What spans more than ``keep`` blocks is read straight through, in one request. Pickles
    by its address; the copy starts at the beginning.
    """

    def __init__(
        self,
        url: str,
        *,
        credentials: Mapping[str, str] | None = None,
        options: Options = (),
        headers: Mapping[str, str] | None = None,
        block_nbytes: int = BLOCK_NBYTES,
        keep: int = 64,
    ) -> None:
        self._arguments = (url, credentials, tuple(options), headers, block_nbytes, keep)
        parent, self._name = split(url)
        self._store = object_store(
            parent, credentials=credentials, options=options, headers=headers, mkdir=False
        )
        facts = self._store.head(self._name)
        self._size = int(facts["size"])
        self._block_nbytes, self._keep = block_nbytes, keep
        # Another file under the same name is another file.
        self._file = (url, block_nbytes, self._size, facts["e_tag"], facts["last_modified"])
        self._position = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, self._arguments

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError("cannot seek before the beginning")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Buffer) -> int:
        target = memoryview(buffer).cast("B")
        wanted = max(min(len(target), self._size - self._position), 0)
        if not wanted:
            return 0
        start, end = self._position, self._position + wanted
        first, last = start // self._block_nbytes, -(-end // self._block_nbytes)
        if last - first > self._keep:
            # More than the blocks kept could hold: straight through, in one request.
            target[:wanted] = memoryview(self._store.get_range(self._name, start=start, end=end))
        else:
            for number, block in self._read(first, last).items():
                base = number * self._block_nbytes
                low, high = max(start, base), min(end, base + len(block))
                target[low - start : high - start] = block[low - base : high - base]
        self._position = end
        return wanted

    def _read(self, first: int, last: int) -> dict[int, memoryview]:
        """Blocks ``first`` to ``last`` (exclusive); neighbours that are missing in one request."""
        found = {number: _KEPT.get((*self._file, number)) for number in range(first, last)}
        missing = [number for number, block in found.items() if block is None]
        for run in _runs(missing):
            start = run[0] * self._block_nbytes
            end = min((run[-1] + 1) * self._block_nbytes, self._size)
            body = memoryview(self._store.get_range(self._name, start=start, end=end))
            for number in run:
                at = number * self._block_nbytes - start
                # A copy: a slice would keep the whole run in memory.
                block = memoryview(bytes(body[at : at + self._block_nbytes]))
                found[number] = block
                _KEPT.put((*self._file, number), block)
        return {number: block for number, block in found.items() if block is not None}


def _runs(numbers: list[int]) -> list[list[int]]:
    """Numbers in order as runs of neighbours."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs


class _Kept:
    """The blocks that this process used last, of all files together."""

    def __init__(self, most: int) -> None:
        self._most, self._nbytes = most, 0
        self._blocks: OrderedDict[tuple[Any, ...], memoryview] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[Any, ...]) -> memoryview | None:
        with self._lock:
            block = self._blocks.get(key)
            if block is not None:
                self._blocks.move_to_end(key)
            return block

    def put(self, key: tuple[Any, ...], block: memoryview) -> None:
        with self._lock:
            before = self._blocks.pop(key, None)
            self._nbytes += len(block) - (len(before) if before is not None else 0)
            self._blocks[key] = block
            while self._nbytes > self._most:
                self._nbytes -= len(self._blocks.popitem(last=False)[1])


#: Bytes of blocks that a process keeps. A task opens its file itself, and would ask again and again
#: for what stands at the head of it.
KEPT_NBYTES = 64 * 2**20
_KEPT = _Kept(KEPT_NBYTES)


def _again(
    url: str,
    credentials: Mapping[str, str] | None,
    options: Options,
    headers: Mapping[str, str] | None,
    block_nbytes: int,
    keep: int,
) -> BlockReader:
    return BlockReader(
        url,
        credentials=credentials,
        options=options,
        headers=headers,
        block_nbytes=block_nbytes,
        keep=keep,
    )


def open_file(
    url: str,
    *,
    credentials: Mapping[str, str] | None = None,
    options: Options = (),
    headers: Mapping[str, str] | None = None,
) -> BinaryIO:
    """``url`` as a binary file for reading, wherever it lies; the caller closes it."""
    path = local_path(url)
    if path is not None:
        return path.open("rb")
    reader = BlockReader(url, credentials=credentials, options=options, headers=headers)
    return io.BufferedReader(reader, buffer_size=2**16)
