"""Whether two results are the same up to rounding, whatever they are made of."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

#: The difference of results that do not even have the same shape; JSON has no infinity.
APART = sys.float_info.max

#: Precision of a float type, in bytes of its real part → relative difference that is rounding.
_ROUNDING = {2: 1e-2, 4: 1e-4}
_EXACT_ENOUGH = 1e-9

Leaf = tuple[tuple[Any, ...], "np.ndarray[Any, Any]"]


class NotComparable(Exception):
    """Two results are of a type that cannot be compared; the text says which."""


def difference(left: Any, right: Any, *, through: Any = None, noise: float = 0.0) -> float:
    """Largest difference between two results that is more than rounding; 0 if there is none.

    Parameters
    ----------
    left, right
        xarray, pandas or NumPy objects, numbers, text; or tuples, lists, mappings and dataclasses
        of them. NaN equals NaN.
    through
        Coarsest type that the numbers have gone through; only the results' own if not given.
    noise
        Absolute difference that would be rounding in a type that is precise to 1.

    Raises
    ------
    NotComparable
        If parts of the results are neither equal nor of a known type.
    """
    lefts, rights = list(leaves(left)), list(leaves(right))
    if [path for path, _ in lefts] != [path for path, _ in rights]:
        return APART
    pairs = zip(lefts, rights, strict=True)
    return max((_apart(a, b, through, noise) for (_, a), (_, b) in pairs), default=0.0)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[Leaf]:
    """The arrays that a result is made of, each with the way to it and its dimensions."""
    match value:
        case xr.Dataset():
            for name in sorted(value.data_vars, key=str):
                yield from leaves(value[name], (*path, name))
        case xr.DataArray():
            yield (*path, *value.dims), np.asarray(value.data)
        case pd.DataFrame():
            yield (*path, *value.columns), np.asarray(value.index)
            for place, name in enumerate(value.columns):
                yield (*path, name), np.asarray(value.iloc[:, place])
        case pd.Series():
            yield (*path, "index"), np.asarray(value.index)
            yield (*path, "values"), np.asarray(value)
        case Mapping():
            for key in sorted(value, key=repr):
                yield from leaves(value[key], (*path, key))
        case tuple() | list():
            yield (*path, len(value)), np.zeros(0)
            for place, item in enumerate(value):
                yield from leaves(item, (*path, place))
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            for field in dataclasses.fields(value):
                yield from leaves(getattr(value, field.name), (*path, field.name))
        case _:
            yield path, np.asarray(value)


def rounding(dtype: Any) -> float:
    """Relative difference that is rounding for numbers of this type; 0 for integers."""
    dtype = np.dtype(dtype)
    if dtype.kind not in "fc":
        return 0.0
    return _ROUNDING.get(dtype.itemsize // (2 if dtype.kind == "c" else 1), _EXACT_ENOUGH)


def _apart(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], through: Any, noise: float) -> float:
    if a.shape != b.shape:
        return APART
    if a.dtype.kind not in "biufc" or b.dtype.kind not in "biufc":
        return _unlike(a, b)
    floats = [dtype for dtype in (a.dtype, b.dtype) if dtype.kind in "fc"]
    if floats and through is not None:
        floats.append(np.dtype(through))
    undefined = np.isnan(a), np.isnan(b)
    if not np.array_equal(*undefined):
        return APART
    unequal = (a != b) & ~undefined[0]
    if not unequal.any():
        return 0.0
    wide: Any = complex if "c" in a.dtype.kind + b.dtype.kind else float
    with np.errstate(all="ignore"):
        far = np.abs(a.astype(wide) - b.astype(wide))[unequal]
        size = max(float(np.abs(x[np.isfinite(x)]).max(initial=0)) for x in (a, b))
    if not np.isfinite(far).all():
        return APART
    # Integers beyond 2**53 may differ and yet not as floats.
    most = float(far.max()) or 1.0
    allowed = max((rounding(dtype) * size + noise * _epsilon(dtype) for dtype in floats), default=0)
    return most if most > allowed else 0.0


def _epsilon(dtype: np.dtype[Any]) -> float:
    return float(np.finfo(dtype).eps) if dtype.kind in "fc" else 0.0


def _unlike(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    try:
        same = bool(np.all((a == b) | ((a != a) & (b != b))))
    except Exception:
        same = False
    if same:
        return 0.0
    if a.dtype.kind == "O" or b.dtype.kind == "O":
        kinds = {type(item).__name__ for x in (a, b) for item in x.flat}
        raise NotComparable(f"results of type {', '.join(sorted(kinds))} cannot be compared")
    return APART
