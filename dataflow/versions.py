"""Versions of what must agree between two processes that exchange functions and arrays."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

#: Distributions whose versions are compared; the first is our own.
COMPARED = (
    "jupyter-dataflow",
    "cloudpickle",
    "dask",
    "distributed",
    "numpy",
    "pandas",
    "xarray",
    "zarr",
)


def versions() -> Mapping[str, str]:
    """Name → version of this process's Python and of the packages in :data:`COMPARED`."""
    found = {"python": platform.python_version()}
    for name in COMPARED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Rows ``(name, here, there)`` of what is not the same."""
    names = [*here, *(name for name in there if name not in here)]
    rows = [(name, here.get(name, "missing"), there.get(name, "missing")) for name in names]
    return [row for row in rows if row[1] != row[2]]


def incompatible(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """Names whose versions keep two processes from working together.

    A function travels as byte code, which only the same minor version of Python understands; and
    what agents say to each other may change with our own.
    """
    found = []
    if minor(here.get("python", "")) != minor(there.get("python", "")):
        found.append("python")
    if here.get("jupyter-dataflow") != there.get("jupyter-dataflow"):
        found.append("jupyter-dataflow")
    return found


def minor(text: str) -> tuple[str, ...]:
    """The first two parts of a version."""
    return tuple(text.split(".")[:2])


def as_table(rows: list[tuple[str, str, str]], here: str, there: str) -> str:
    """Differences as lines of text in three columns."""
    lines = [("", here, there), *rows]
    width = [max(len(line[i]) for line in lines) for i in range(3)]
    return "\n".join(
        "  " + "  ".join(word.ljust(width[i]) for i, word in enumerate(line)).rstrip()
        for line in lines
    )
