"""Keys: the identity of a result, and parameters as documents.

``key(step) = sha256(operation name, operation version, parameters, input names and keys)``

Equal keys mean equal results, in every process and at every site; resume, deduplication and
lineage all rest on this. Parameters are encoded to tagged JSON first, so that ``1``, ``1.0``,
``True`` and ``"1"`` differ, as do a list and a tuple, and so that a site gets back what was given.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import PurePath
from typing import Any

from dataflow.documents import canonical_json
from dataflow.errors import GraphError

_TAG = "!"


def encode(value: Any, what: str = "parameter") -> Any:
    """A tagged, JSON-ready form of a parameter value that :func:`decode` turns back.

    Raises
    ------
    GraphError
        If the value's type has no agreed form; its text would not identify it.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        text = repr(float(value))
        return {_TAG: "float", "v": text} if not math.isfinite(value) else float(value)
    if isinstance(value, list):
        return [encode(item, what) for item in value]
    if isinstance(value, Mapping):
        pairs = [[encode(k, what), encode(v, what)] for k, v in value.items()]
        return {_TAG: "dict", "v": sorted(pairs, key=lambda pair: canonical_json(pair[0]))}
    simple = _encode_builtin(value, what)
    if simple is not None:
        return simple
    if hasattr(value, "tobytes") and hasattr(value, "dtype") and hasattr(value, "shape"):
        if value.dtype.hasobject:
            raise GraphError(f"{what}: an array of Python objects cannot be part of a key")
        if value.dtype.names or hasattr(value, "mask"):
            raise GraphError(f"{what}: an array with fields or a mask cannot be part of a key")
        data = base64.b64encode(value.tobytes()).decode()
        return {_TAG: "ndarray", "dtype": value.dtype.str, "shape": list(value.shape), "v": data}
    raise GraphError(
        f"{what}: a {type(value).__module__}.{type(value).__name__} cannot be part of a key; "
        "pass numbers, text, lists, dates or NumPy arrays, or register large data as a dataset"
    )


def _encode_builtin(value: Any, what: str) -> dict[str, Any] | None:
    match value:
        case tuple():
            return {_TAG: "tuple", "v": [encode(item, what) for item in value]}
        case set() | frozenset():
            items = sorted((encode(item, what) for item in value), key=canonical_json)
            return {_TAG: "set" if isinstance(value, set) else "frozenset", "v": items}
        case slice():
            parts = [encode(part, what) for part in (value.start, value.stop, value.step)]
            return {_TAG: "slice", "v": parts}
        case bytes():
            return {_TAG: "bytes", "v": value.hex()}
        case complex():
            return {_TAG: "complex", "v": [repr(value.real), repr(value.imag)]}
        case datetime() | timedelta() if _has_nanoseconds(value):
            return None
        case datetime():
            return {_TAG: "datetime", "v": value.isoformat()}
        case date():
            return {_TAG: "date", "v": value.isoformat()}
        case timedelta():
            parts = [value.days, value.seconds, value.microseconds]
            return {_TAG: "timedelta", "v": parts}
        case PurePath():
            return {_TAG: "path", "v": str(value)}
    return None


def _has_nanoseconds(value: Any) -> bool:
    """Whether this is one of pandas' times that those of Python cannot hold, or its NaT."""
    return bool(getattr(value, "nanosecond", 0) or getattr(value, "nanoseconds", 0))


def decode(document: Any) -> Any:
    """The value that :func:`encode` described."""
    if isinstance(document, list):
        return [decode(item) for item in document]
    if not isinstance(document, dict):
        return document
    body = document.get("v")
    match document.get(_TAG):
        case "float":
            return float(body)  # type: ignore[arg-type]
        case "dict":
            return {decode(k): decode(v) for k, v in body or ()}
        case "tuple":
            return tuple(decode(item) for item in body or ())
        case "set":
            return {decode(item) for item in body or ()}
        case "frozenset":
            return frozenset(decode(item) for item in body or ())
        case "slice":
            return slice(*[decode(part) for part in body or ()])
        case "bytes":
            return bytes.fromhex(body or "")
        case "complex":
            real, imag = body or (0, 0)
            return complex(float(real), float(imag))
        case "datetime":
            return datetime.fromisoformat(str(body))
        case "date":
            return date.fromisoformat(str(body))
        case "timedelta":
            return timedelta(*(body or ()))
        case "path":
            from pathlib import Path

            return Path(str(body))
        case "ndarray":
            import numpy as np

            raw = np.frombuffer(base64.b64decode(body or ""), dtype=document["dtype"])
            return raw.reshape(document["shape"]).copy()
    raise GraphError(f"unknown parameter form {document.get(_TAG)!r}")


def digest(document: Any) -> str:
    """SHA-256 (hex) of a JSON-ready document in its canonical form."""
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()


def source_key(fingerprint: str, variable: str | None = None) -> str:
    """Key of registered data: a digest of its fingerprint (and of the variable chosen in it)."""
    return digest(["source", fingerprint, variable])


def step_key(
    name: str,
    version: str,
    parameters: Any,
    slots: Sequence[str],
    inputs: Sequence[str],
    *,
    pieces: bool = False,
) -> str:
    """Key of one application of an operation.

    ``parameters`` is the encoded document, ``slots`` names the argument each input key goes to.
    """
    return digest(["step", name, version, parameters, list(slots), list(inputs), pieces])
