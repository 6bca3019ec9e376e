"""Small results at once: the counterpart of :mod:`dataflow.storage.arrays`, without an event loop.

zarr reads through an event loop in a thread of its own, and a small array takes a handful of turns
there, each of them a millisecond in a busy process. What this package wrote it can also read plainly:
the metadata of all arrays lie in one document, and every chunk is there, with its checksum.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
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
    except ValueError:
        return None
    attributes = root.get("attributes") or {}
    documents = ((root.get("consolidated_metadata") or {}).get("metadata")) or {}
    if root.get("zarr_format") != 3 or not has_mark(attributes) or not documents:
        return None
    known = [(name, document, _dtype(document)) for name, document in documents.items()]
    if not all(dtype is not None and _is_ours(document) for _, document, dtype in known):
        return None
    if sum(prod(d["shape"]) * t.itemsize for _, d, t in known if t is not None) > SMALL_NBYTES:
        return None
    variables = {
        name: _variable(name, document, dtype, read, url)
        for name, document, dtype in known
        if dtype is not None
    }
    return restored(xr.decode_cf(xr.Dataset(variables, attrs=attributes)).load())


def _dtype(document: Mapping[str, Any]) -> np.dtype[Any] | None:
    data_type = document.get("data_type")
    if isinstance(data_type, Mapping):
        if data_type.get("name") != "fixed_length_utf32":
            return None
        return np.dtype(f"<U{int(data_type['configuration']['length_bytes']) // 4}")
    try:
        return np.dtype(data_type).newbyteorder("<")
    except TypeError:
        return None


def _is_ours(document: Mapping[str, Any]) -> bool:
    names = [codec["name"] for codec in document["codecs"]]
    return (
        document["node_type"] == "array"
        and document["chunk_grid"]["name"] == "regular"
        and document["chunk_key_encoding"]["name"] == "default"
        and names[0] == "bytes"
        and names[-1] == "crc32c"
        and _ORDER.issuperset(names)
    )


def _variable(
    name: str,
    document: Mapping[str, Any],
    dtype: np.dtype[Any],
    read: Callable[[str], bytes | None],
    url: str,
) -> xr.Variable:
    shape = tuple(document["shape"])
    chunk = tuple(document["chunk_grid"]["configuration"]["chunk_shape"])
    codecs = [codec["name"] for codec in document["codecs"][1:-1]]
    values = np.empty(shape, dtype)
    for index in product(*(range(ceil(n / c)) for n, c in zip(shape, chunk, strict=True))):
        path = "/".join((name, "c", *map(str, index)))
        body = read(path)
        if body is None:
            raise CorruptResult(url, f"chunk {path} is missing")
        piece = _decoded(body, codecs, dtype, chunk)
        if piece is None:
            raise CorruptResult(url, f"the bytes of chunk {path} have changed")
        window = tuple(
            slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(index, chunk, shape, strict=True)
        )
        values[window] = piece[tuple(slice(0, w.stop - w.start) for w in window)]
    attributes = dict(document["attributes"])
    if "_FillValue" in attributes:
        attributes["_FillValue"] = FillValueCoder.decode(attributes["_FillValue"], dtype)
    return xr.Variable(tuple(document.get("dimension_names") or ()), values, attributes)


def _decoded(
    body: bytes, codecs: list[str], dtype: np.dtype[Any], chunk: tuple[int, ...]
) -> np.ndarray[Any, Any] | None:
    """One chunk; ``None`` if it is not what its checksum says, or not as long as it should be."""
    stored, checksum = body[:-4], body[-4:]
    if len(body) < 4 or struct.unpack("<I", checksum)[0] != google_crc32c.value(stored):
        return None
    plain: Any = stored
    if codecs:
        plain = (Blosc() if codecs[0] == "blosc" else Zstd()).decode(stored)
    flat = np.frombuffer(plain, np.uint8)
    if flat.nbytes != prod(chunk) * dtype.itemsize:
        return None
    return flat.view(dtype).reshape(chunk)
