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

from dataflow._lazy import lazy

if TYPE_CHECKING:
    from dataflow.errors import DataflowError
    from dataflow.graph.graph import Graph
    from dataflow.graph.operation import operation, shell
    from dataflow.session import Session, connect, job
    from dataflow.widgets.view import view

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
    "view",
]

_named, __dir__ = lazy(
    __name__,
    {
        "DataflowError": "errors",
        "Graph": "graph.graph",
        "Session": "session",
        "connect": "session",
        "job": "session",
        "operation": "graph.operation",
        "shell": "graph.operation",
        "view": "widgets.view",
    },
)


def __getattr__(name: str) -> object:
    if name != "__version__":
        return _named(name)
    from importlib.metadata import version

    globals()[name] = value = version("jupyter-dataflow")
    return value


def load_ipython_extension(shell: object) -> None:
    """``%load_ext dataflow``: adds ``%flow``."""
    from dataflow.session.magics import load

    load(shell)
