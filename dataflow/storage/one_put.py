"""Zarr's object store, with the promises that our results need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from obstore.exceptions import BaseError
from zarr.storage import ObjectStore

from dataflow.errors import CorruptResult, StorageError
from dataflow.storage.publish import first_line

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


class OnePut(ObjectStore[Any]):
    """Zarr's object store, with one request for every object that it writes.

    With ``complete`` set, a chunk that is missing is an error rather than the fill value. A store that
    does not answer when it is read is a :class:`~dataflow.errors.StorageError`.
    """

    complete = False

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        try:
            found = await super().get(key, prototype, byte_range)
        except BaseError as error:
            raise StorageError(f"{key}: {first_line(error)}") from error
        if found is None and self.complete and "c" in key.split("/")[1:]:
            raise CorruptResult(str(self), f"chunk {key} is missing")
        return found

    async def set(self, key: str, value: Buffer) -> None:
        self._check_writable()
        await self.store.put_async(key, value.as_buffer_like(), use_multipart=False)
