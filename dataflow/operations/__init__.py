"""The operations that are shipped; loaded on first use, since each brings its libraries.

``from dataflow.operations import query`` gives an operation like any other; sites name it
``dataflow.operations:query``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataflow._lazy import lazy

if TYPE_CHECKING:
    from dataflow.operations.charts import chart
    from dataflow.operations.privacy import anonymise
    from dataflow.operations.sql import query
    from dataflow.operations.statistics import aggregate, algorithm

__all__ = ["aggregate", "algorithm", "anonymise", "chart", "query"]

#: Public name → module that defines it.
__getattr__, __dir__ = lazy(
    __name__,
    {
        "aggregate": "statistics",
        "algorithm": "statistics",
        "anonymise": "privacy",
        "chart": "charts",
        "query": "sql",
    },
)
