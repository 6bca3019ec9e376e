"""Small results at once: the counterpart of :mod:`dataflow.storage.arrays`, without an event loop.

zarr reads through an event loop in a thread of its own, and a small array takes a handful of turns
there, each of them a millisecond in a busy process. What this package wrote it can also read plainly:
the metadata of all arrays lie in one document, and every chunk is there, with its checksum.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from math import ceil, prod
from typing import Any

import google_crc32c
import numpy as np
import xarray as xr
from numcodecs.blosc import Blosc  # type: ignore[import-untyped]
from numcodecs.zstd import Zstd  # type: ignore[import-untyped]
from xarray.backends.zarr import FillValueCoder

from dataflow.errors import CorruptResult
from dataflow.storage.arrays import has_mark, restored
from dataflow.storage.publish import ROOT_METADATA

#: Bytes in memory up to which results are read this way.
SMALL_NBYTES = 16 * 2**20

_ORDER = {"bytes", "blosc", "zstd", "crc32c"}


def small_result(url: str, read: Callable[[str], bytes | None]) -> xr.Dataset | xr.DataArray | None:
    """A committed array or dataset, loaded; ``None`` if it is not small or not as we write them.

    Parameters
    ----------
    url
        Of the result, for errors.
    read
        A path below the result → the bytes of that file; ``None`` if there is none.

    Raises
    ------
    CorruptResult
        If a chunk is missing or its bytes are not those that were written.
    """
    try:
        root = json.loads(read(ROOT_METADATA) or b"{}")
        attributes = root.get("attributes") or {}
        documents = ((root.get("consolidated_metadata") or {}).get("metadata")) or {}
        if root.get("zarr_format") != 3 or not has_mark(attributes) or not documents:
            return None
        known = {name: _checked(document) for name, document in documents.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None  # others may write what they like
    found = {name: array for name, array in known.items() if array is not None}
    if len(found) < len(known) or sum(array.nbytes for array in found.values()) > SMALL_NBYTES:
        return None
    variables = {name: _variable(name, array, read, url) for name, array in found.items()}
    return restored(xr.decode_cf(xr.Dataset(variables, attrs=attributes)).load())


def _dtype(document: Mapping[str, Any]) -> np.dtype[Any] | None:
    data_type = document.get("data_type")
    if isinstance(data_type, Mapping):
        if data_type.get("name") != "fixed_length_utf32":
            return None
        return np.dtype(f"<U{int(data_type['configuration']['length_bytes']) // 4}")
    try:
        dtype = np.dtype(data_type).newbyteorder("<")
    except TypeError:
        return None
    return None if dtype.hasobject else dtype


@dataclass(frozen=True, slots=True)
class _Array:
    """What the metadata say of one array, found to be possible and small."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    codecs: tuple[str, ...]
    dims: tuple[str, ...]
    attributes: Mapping[str, Any]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def _checked(document: Mapping[str, Any]) -> _Array | None:
    dtype = _dtype(document)
    codecs = tuple(str(codec["name"]) for codec in document["codecs"])
    if (
        dtype is None
        or document["node_type"] != "array"
        or document["chunk_grid"]["name"] != "regular"
        or document["chunk_key_encoding"]["name"] != "default"
        or codecs[0] != "bytes"
        or codecs[-1] != "crc32c"
        or not _ORDER.issuperset(codecs)
        or len(codecs) > 3
    ):
        return None
    shape = tuple(int(n) for n in document["shape"])
    chunk = tuple(int(n) for n in document["chunk_grid"]["configuration"]["chunk_shape"])
    # Lengths that are negative, or huge beside a length of nothing, would get around any limit.
    if len(shape) != len(chunk) or not all(0 <= n <= SMALL_NBYTES for n in shape):
        return None
    if min(chunk, default=1) < 1 or prod(chunk) * dtype.itemsize > SMALL_NBYTES:
        return None
    dims = tuple(str(dim) for dim in document.get("dimension_names") or ())
    return _Array(dtype, shape, chunk, codecs[1:-1], dims, dict(document["attributes"]))


def _variable(
    name: str, array: _Array, read: Callable[[str], bytes | None], url: str
) -> xr.Variable:
    shape, chunk = array.shape, array.chunk
    values = np.empty(shape, array.dtype)
    counts = [ceil(n / c) for n, c in zip(shape, chunk, strict=True)] if values.size else [0]
    for index in product(*map(range, counts)):
        path = "/".join((name, "c", *map(str, index)))
        body = read(path)
        if body is None:
            raise CorruptResult(url, f"chunk {path} is missing")
        piece = _decoded(body, array)
        if piece is None:
            raise CorruptResult(url, f"the bytes of chunk {path} have changed")
        window = tuple(
            slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(index, chunk, shape, strict=True)
        )
        values[window] = piece[tuple(slice(0, w.stop - w.start) for w in window)]
    attributes = dict(array.attributes)
    if "_FillValue" in attributes:
        attributes["_FillValue"] = FillValueCoder.decode(attributes["_FillValue"], array.dtype)
    return xr.Variable(array.dims, values, attributes)


def _decoded(body: bytes, array: _Array) -> np.ndarray[Any, Any] | None:
    """One chunk; ``None`` if it is not what its checksum says, or not as long as it should be."""
    stored, checksum = body[:-4], body[-4:]
    if len(body) < 4 or struct.unpack("<I", checksum)[0] != google_crc32c.value(stored):
        return None
    expected = prod(array.chunk) * array.dtype.itemsize
    if array.codecs:
        codec = Blosc() if array.codecs[0] == "blosc" else Zstd()
        plain = np.zeros(expected, np.uint8)
        try:
            codec.decode(stored, out=plain)  # what unpacks to more than that is refused
        except (ValueError, RuntimeError):
            return None
    else:
        plain = np.frombuffer(stored, np.uint8)
        if plain.nbytes != expected:
            return None
    return plain.view(array.dtype).reshape(array.chunk)
