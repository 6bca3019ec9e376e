"""A Zarr hierarchy in a directory that is reached by SFTP, to be read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest

from dataflow.errors import CorruptResult

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

    from dataflow.storage.sftp import SftpStore


class SftpZarr(Store):
    """Zarr's view of an :class:`~dataflow.storage.sftp.SftpStore`; pickles as that does."""

    supports_writes = False
    supports_deletes = False
    supports_listing = True
    #: As of :class:`~dataflow.storage.one_put.OnePut`.
    complete = False

    def __init__(self, store: SftpStore) -> None:
        super().__init__(read_only=True)
        self.store = store

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SftpZarr) and other.store == self.store

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return self.store.url

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        try:
            body = await asyncio.to_thread(self._read, key, byte_range)
        except FileNotFoundError:
            if self.complete and "c" in key.split("/")[1:]:
                raise CorruptResult(str(self), f"chunk {key} is missing") from None
            return None
        return prototype.buffer.from_bytes(body)

    def _read(self, key: str, part: ByteRequest | None) -> bytes:
        if part is None:
            return self.store.get(key).bytes()
        if isinstance(part, RangeByteRequest):
            return self.store.get_range(key, start=part.start, end=part.end)
        size = int(self.store.head(key)["size"])
        if isinstance(part, OffsetByteRequest):
            return self.store.get_range(key, start=part.offset, end=size)
        assert isinstance(part, SuffixByteRequest), part
        return self.store.get_range(key, start=max(size - part.suffix, 0), end=size)

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        return await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges))

    async def exists(self, key: str) -> bool:
        try:
            await self.store.head_async(key)
        except FileNotFoundError:
            return False
        return True

    async def set(self, key: str, value: Buffer) -> None:
        raise NotImplementedError("a store by SFTP is only read")

    async def delete(self, key: str) -> None:
        raise NotImplementedError("a store by SFTP is only read")

    async def list(self) -> AsyncIterator[str]:
        async for name in self.list_prefix(""):
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        folder = prefix.rpartition("/")[0]
        for batch in await asyncio.to_thread(lambda: [*self.store.list(folder)]):
            for entry in batch:
                if str(entry["path"]).startswith(prefix):
                    yield str(entry["path"])

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        for name in await asyncio.to_thread(self.store.names, prefix.rstrip("/")):
            yield name
