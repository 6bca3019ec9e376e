"""Warming: what the first plan will want is imported beside the user's first thoughts."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

#: From below, so that one can stop in between.
WANTED = (
    "numpy",
    "pandas",
    "dask.array",
    "xarray",
    "dataflow.execution.trial",
    "dataflow.placement.make",
    "dataflow.storage.read",
)


def warm(over: Callable[[], bool]) -> None:
    """Import what plans want, until ``over`` says that nobody will want it any more."""
    for name in WANTED:
        if over():
            return
        import_module(name)
