"""Chart: a picture of a small table, as PNG or SVG; the same table gives the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dataflow.agreements import COMPUTE_PROVIDER
from dataflow.graph.operation import operation
from dataflow.storage.scratch import scratch
from dataflow.storage.tabular import tabular

KINDS = ("bar", "line", "points", "histogram")
FORMATS = ("png", "svg")
#: More rows than this make no picture that a person could read, and a file that gives rows away.
MOST_ROWS = 100_000


@operation(name="chart", version="1", role=COMPUTE_PROVIDER)
def chart(
    table: Any,
    *,
    kind: str = "bar",
    x: str,
    y: Sequence[str] = (),
    title: str = "",
    format: str = "png",
) -> Any:
    """A picture of columns of a table.

    ``chart(algorithm(…), x="Geslacht", y=["mean"])``

    Parameters
    ----------
    table
        One table of at most 100,000 rows: what came of an aggregate or an algorithm.
    kind
        bar, line, points, or histogram (of ``x`` alone).
    x
        Column along the horizontal axis.
    y
        Columns above it; one colour each.
    format
        png or svg.

    Returns
    -------
    pathlib.Path
        The file ``chart.png`` or ``chart.svg``.

    Raises
    ------
    ValueError
        For an unknown kind, format or column, or too many rows.
    """
    names = list(y)
    if kind not in KINDS or format not in FORMATS:
        raise ValueError(
            f"chart: kind is one of {', '.join(KINDS)}, format one of {', '.join(FORMATS)}"
        )
    if not names and kind != "histogram":
        raise ValueError("chart: y= names no column")
    source = tabular(table)
    missing = [name for name in (x, *names) if name not in source.schema.names]
    if missing:
        there = ", ".join(source.schema.names)
        raise ValueError(f"chart: there is no column {missing[0]!r}; there are {there}")
    rows = source.loaded()
    if len(rows) > MOST_ROWS:
        raise ValueError(f"chart: {len(rows)} rows are no picture; aggregate them first")
    columns = {name: rows[name].to_pylist() for name in (x, *names)}
    path = scratch() / f"chart.{format}"
    _draw(columns, kind, x, names, title).savefig(
        path, format=format, metadata={"Date": None} if format == "svg" else {"Software": None}
    )
    return path


chart.function.reads = "tables"  # type: ignore[attr-defined]


def _draw(
    columns: dict[str, list[Any]], kind: str, x: str, names: Sequence[str], title: str
) -> Any:
    import matplotlib
    from matplotlib.figure import Figure  # not pyplot, which is not for threads

    matplotlib.rcParams["svg.hashsalt"] = "dataflow"
    figure = Figure(figsize=(6.4, 4.0), dpi=120, layout="constrained")
    axes = figure.subplots()
    across = columns[x]
    if kind == "histogram":
        axes.hist([value for value in across if value is not None], bins=30)
    for number, name in enumerate(names):
        above = [float("nan") if value is None else value for value in columns[name]]
        if kind == "bar":
            width = 0.8 / len(names)
            places = [i + (number - (len(names) - 1) / 2) * width for i in range(len(across))]
            axes.bar(places, above, width, label=name)
        else:
            axes.plot(across, above, "-" if kind == "line" else ".", label=name)
    if kind == "bar":
        axes.set_xticks(range(len(across)), [str(value) for value in across])
    axes.set_xlabel(x)
    if len(names) == 1:
        axes.set_ylabel(names[0])
    elif names:
        axes.legend()
    axes.set_title(title)
    return figure
