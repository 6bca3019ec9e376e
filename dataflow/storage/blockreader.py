"""A remote object as a seekable file, read in whole blocks."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from dataflow.storage.open import Options, local_path, object_store, split

if TYPE_CHECKING:
    from typing_extensions import Buffer


class BlockReader(io.RawIOBase):
    """One object of a store as a file that h5py, pyarrow and pandas accept.

    Bytes come in blocks of ``block_nbytes``, of which the last ``keep`` used stay in memory. HDF5
    reads many small pieces that lie close together: asking for each costs a round trip every
    time, and reading ahead moves tens of times the bytes that are wanted. Pickles by its address;
    the copy starts at the beginning with nothing in memory.
    """

    def __init__(
        self,
        url: str,
        *,
        credentials: Mapping[str, str] | None = None,
        options: Options = (),
        headers: Mapping[str, str] | None = None,
        block_nbytes: int = 2**20,
        keep: int = 32,
    ) -> None:
        self._arguments = (url, credentials, tuple(options), headers, block_nbytes, keep)
        parent, self._name = split(url)
        self._store = object_store(
            parent, credentials=credentials, options=options, headers=headers, mkdir=False
        )
        self._size = int(self._store.head(self._name)["size"])
        self._block_nbytes, self._keep = block_nbytes, keep
        self._blocks: OrderedDict[int, memoryview] = OrderedDict()
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
            for number in range(first, last):
                base = number * self._block_nbytes
                block = self._block(number)
                low, high = max(start, base), min(end, base + len(block))
                target[low - start : high - start] = block[low - base : high - base]
        self._position = end
        return wanted

    def _block(self, number: int) -> memoryview:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        start = number * self._block_nbytes
        end = min(start + self._block_nbytes, self._size)
        block = memoryview(self._store.get_range(self._name, start=start, end=end))
        self._blocks[number] = block
        if len(self._blocks) > self._keep:
            self._blocks.popitem(last=False)
        return block


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
