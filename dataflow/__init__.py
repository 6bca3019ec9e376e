"""Move the computation to the data.

The names below are loaded on first use, so that ``import dataflow`` costs next to nothing::

    import dataflow as flow

    session = flow.connect("sites.yaml")

    @flow.operation(kind="elementwise")
    def parity(x):
        return x.astype("int64") % 2

    plan = session.plan(parity(session["run1"]))
    job = session.submit(plan)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataflow.errors import DataflowError
    from dataflow.graph.graph import Graph
    from dataflow.graph.operation import operation, shell
    from dataflow.session import Session, connect, job

    __version__: str

__all__ = [
    "DataflowError",
    "Graph",
    "Session",
    "__version__",
    "connect",
    "job",
    "operation",
    "shell",
]

#: Public name → module that defines it.
_LAZY = {
    "DataflowError": "dataflow.errors",
    "Graph": "dataflow.graph.graph",
    "Session": "dataflow.session",
    "connect": "dataflow.session",
    "job": "dataflow.session",
    "operation": "dataflow.graph.operation",
    "shell": "dataflow.graph.operation",
}


def __getattr__(name: str) -> object:
    value: object
    if name in _LAZY:
        from importlib import import_module

        value = getattr(import_module(_LAZY[name]), name)
    elif name == "__version__":
        from importlib.metadata import version

        value = version("jupyter-dataflow")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
