"""Picture: a graph as SVG and as a table, before anybody knows where it will run."""

from __future__ import annotations

from dataflow import _html
from dataflow._html import Markup, escape
from dataflow._quantities import format_bytes
from dataflow._ring import style, svg
from dataflow.graph.graph import Graph

#: Boxes up to which a picture is drawn; of more there is the table alone.
MOST_BOXES = 60
#: Rows of the table beyond these are counted, not shown.
MOST_ROWS = 200
_WIDE, _TALL, _ACROSS, _DOWN, _EDGE = 140.0, 36.0, 196.0, 48.0, 12.0

_STYLE = "\n".join(
    [
        style("flow-graph"),
        ".flow-graph .box {stroke-width: 1.2}",
        ".flow-graph .wanted .box {stroke-width: 2.6}",
        ".flow-graph .step .box {fill: #4c8df6; fill-opacity: .2; stroke: #4c8df6}",
        ".flow-graph .dataset .box {fill: #3fa56b; fill-opacity: .2; stroke: #3fa56b}",
        ".flow-graph .edge {fill: none; stroke: currentColor; stroke-opacity: .45; stroke-width: 1.2}",
    ]
)


def html(graph: Graph) -> str:
    """A graph for a notebook: the picture, and a table to unfold."""
    head = Markup(f"<p>{escape(repr(graph).strip('<>'))}</p>")
    picture = []
    if graph.steps and len(graph.steps) + len(graph.sources) <= MOST_BOXES:
        picture = [Markup(draw(graph))]
    rows = []
    for key, step in list(graph.steps.items())[:MOST_ROWS]:
        extent = graph.extents[key]
        given = ", ".join(f"{name}={value!r}" for name, value in step.parameters.items())
        reads = ", ".join(graph.label(wanted) for wanted in dict.fromkeys(step.inputs))
        size = ("about " if extent.guessed else "") + format_bytes(extent.nbytes)
        rows.append((step.label, step.operation.kind, reads, given, size, key[:12]))
    if not rows:
        datasets = [escape(Markup(one._repr_html_())) for one in graph.sources.values()]
        return _html.block(head, *map(Markup, datasets)).text
    header = ("operation", "kind", "reads", "parameters", "result", "key")
    more = len(graph.steps) - len(rows)
    table = _html.table(header, rows, numbers=(4,))
    rest = f"… and {more} more" if more > 0 else ""
    count = f"{len(graph.steps)} operation{'' if len(graph.steps) == 1 else 's'}"
    return _html.block(head, *picture, _html.disclosure(count, table, rest)).text


def draw(graph: Graph) -> str:
    """A graph as an ``<svg>`` element: datasets left, each step right of all that it reads."""
    column: dict[str, int] = dict.fromkeys(graph.sources, 0)
    for key, step in graph.steps.items():
        column[key] = 1 + max((column[wanted] for wanted in step.inputs), default=-1)
    rows: dict[int, int] = {}
    place: dict[str, tuple[float, float]] = {}
    for key, number in column.items():
        row = rows[number] = rows.get(number, -1) + 1
        place[key] = (_EDGE + number * _ACROSS, _EDGE + row * _DOWN)
    parts = []
    for key, step in graph.steps.items():
        x, y = place[key]
        for wanted in dict.fromkeys(step.inputs):
            ax, ay = place[wanted][0] + _WIDE, place[wanted][1] + _TALL / 2
            by = y + _TALL / 2
            bend = max(24.0, (x - ax) * 0.45)
            line = f"M{ax:.1f} {ay:.1f}C{ax + bend:.1f} {ay:.1f} {x - bend:.1f} {by:.1f} {x:.1f} {by:.1f}"
            parts.append(f'<path class="edge" d="{line}"/>')
    parts += [_box(graph, key, *place[key]) for key in column]
    width = _EDGE * 2 + max(column.values(), default=0) * _ACROSS + _WIDE
    height = _EDGE * 2 + max(rows.values(), default=0) * _DOWN + _TALL
    return svg(
        "flow-graph",
        (width, height),
        repr(graph).strip("<>"),
        describe(graph),
        _STYLE,
        "".join(parts),
    )


def describe(graph: Graph) -> str:
    """The picture in words, for those who do not see it."""
    words = [repr(graph).strip("<>") + "."]
    for step in list(graph.steps.values())[:40]:
        reads = ", ".join(graph.label(wanted) for wanted in dict.fromkeys(step.inputs))
        words.append(f"{step.label} reads {reads or 'nothing'}.")
    return " ".join(words)


def _box(graph: Graph, key: str, x: float, y: float) -> str:
    step = graph.steps.get(key)
    label = graph.label(key)
    shown = label if len(label) <= 19 else f"{label[:12]}…{label[-6:]}"
    detail = format_bytes(graph.extents[key].nbytes) if step is None else step.operation.kind
    kind = ("dataset" if step is None else "step") + (" wanted" if key in graph.outputs else "")
    box = f'x="{x:.1f}" y="{y:.1f}" width="{_WIDE:.0f}" height="{_TALL:.0f}"'
    middle, corner = x + _WIDE / 2, 18 if step is None else 6
    return (
        f'<g class="{kind}"><title>{escape(label)}</title>'
        f'<rect class="paper" {box} rx="{corner}"/><rect class="box" {box} rx="{corner}"/>'
        f'<text x="{middle:.1f}" y="{y + 15:.1f}" text-anchor="middle">{escape(shown)}</text>'
        f'<text class="small" x="{middle:.1f}" y="{y + 29:.1f}" text-anchor="middle">'
        f"{escape(detail)}</text></g>"
    )
