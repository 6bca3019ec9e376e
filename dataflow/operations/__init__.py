"""The operations that are shipped; loaded on first use, since each brings its libraries.

``from dataflow.operations import query`` gives an operation like any other; sites name it
``dataflow.operations:query``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataflow.operations.charts import chart
    from dataflow.operations.privacy import anonymise
    from dataflow.operations.sql import query
    from dataflow.operations.statistics import aggregate, algorithm

__all__ = ["aggregate", "algorithm", "anonymise", "chart", "query"]

#: Public name → module that defines it.
_LAZY = {
    "aggregate": "statistics",
    "algorithm": "statistics",
    "anonymise": "privacy",
    "chart": "charts",
    "query": "sql",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
