"""Picture: a plan as SVG, drawn without any library.

Sites are bands, steps and datasets boxes in them, time runs to the right. What crosses a link is
drawn as wide as its bytes (by their logarithm). Colours are translucent over ``currentColor``, so
the picture is readable on a light and on a dark page; every part has a text alternative.
"""

from __future__ import annotations

import math

from dataflow._html import escape
from dataflow._quantities import format_bytes, format_seconds
from dataflow._ring import Road, Spot, ring, style, svg, tag
from dataflow.placement.layout import HEIGHT, MARGIN, Arrow, Box, Scene, arrange
from dataflow.placement.plan import Plan

#: Boxes up to which every step is drawn; beyond, sites and what they exchange.
MOST_BOXES = 60

_STYLE = "\n".join(
    [
        style("flow-plan"),
        ".flow-plan .box {stroke-width: 1.2}",
        ".flow-plan .wanted .box {stroke-width: 2.6}",
        ".flow-plan .step .box {fill: #4c8df6; fill-opacity: .2; stroke: #4c8df6}",
        ".flow-plan .dataset .box {fill: #3fa56b; fill-opacity: .2; stroke: #3fa56b}",
        ".flow-plan .stored .box, .flow-plan .copy .box "
        "{fill: #8a8f98; fill-opacity: .18; stroke: #8a8f98}",
        ".flow-plan .stored .box {stroke-dasharray: 5 3}",
        ".flow-plan .local {fill: none; stroke: currentColor; stroke-opacity: .45; stroke-width: 1.2}",
        ".flow-plan .tip {fill: currentColor; fill-opacity: .55}",
        ".flow-plan .again {stroke-dasharray: 4 4}",
    ]
)


def draw(plan: Plan) -> str:
    """A plan as an ``<svg>`` element, for a page or (with ``xmlns``) a file of its own."""
    boxes = len(plan.assignments) + len(plan.replicas)
    if boxes > MOST_BOXES:
        return _summary(plan)
    scene = arrange(plan)
    parts = [_band(site, y, height, scene.width) for site, y, height in scene.bands]
    order = sorted(scene.arrows, key=lambda arrow: (arrow.crosses, -arrow.nbytes))
    parts += [_arrow(arrow) for arrow in order]
    parts += [_box(box) for box in scene.boxes.values()]
    parts += [_label(arrow) for arrow in order if arrow.label]
    parts.append(_unused(plan, scene))
    idle = _idle(plan)
    return _svg(plan, scene.width, scene.height + (18 if idle else 0), parts)


def describe(plan: Plan) -> str:
    """The picture in words, for those who do not see it."""
    words = [repr(plan).strip("<>") + "."]
    shown = [a for a in plan.assignments if a.reused is None]
    words += [f"{plan.label(a.key)} at {a.site}." for a in shown[:40]]
    words += [f"{len(shown) - 40} more."] if len(shown) > 40 else []
    words += [
        f"{plan.label(t.key)} moves from {t.source} to {t.target}, {format_bytes(t.nbytes)}."
        for t in plan.transfers[:40]
    ]
    return " ".join(words)


def _svg(plan: Plan, width: float, height: float, parts: list[str]) -> str:
    title = repr(plan).strip("<>")
    return svg("flow-plan", (width, height), title, describe(plan), _STYLE, "".join(parts))


def _band(site: str, y: float, height: float, width: float) -> str:
    return (
        f'<g><rect class="site" x="{MARGIN / 2:.0f}" y="{y:.1f}" rx="8" '
        f'width="{width - MARGIN:.0f}" height="{height:.1f}"/>'
        f'<text class="name" x="{MARGIN + 4:.0f}" y="{y + 17:.1f}">{escape(site)}</text></g>'
    )


def _box(box: Box) -> str:
    middle = box.x + box.width / 2
    round_ = HEIGHT / 2 if box.kind == "dataset" else 6
    wanted = " wanted" if box.wanted else ""
    return (
        f'<g class="{box.kind}{wanted}"><title>{escape(box.title)}</title>'
        f'<rect class="paper" x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" '
        f'height="{HEIGHT:.0f}" rx="{round_:.0f}"/>'
        f'<rect class="box" x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" '
        f'height="{HEIGHT:.0f}" rx="{round_:.0f}"/>'
        f'<text x="{middle:.1f}" y="{box.y + 16:.1f}" text-anchor="middle">{escape(box.label)}</text>'
        f'<text class="small" x="{middle:.1f}" y="{box.y + 30:.1f}" text-anchor="middle">'
        f"{escape(box.detail)}</text></g>"
    )


def thickness(nbytes: float) -> float:
    """Width of an arrow in pixels: 1.6 for a few bytes, one more for every tenfold, at most 12."""
    return min(12.0, 1.6 + max(0.0, math.log10(max(1.0, nbytes)) - 2))


def _arrow(arrow: Arrow) -> str:
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = arrow.path
    line = f"M{ax:.1f} {ay:.1f}C{bx:.1f} {by:.1f} {cx:.1f} {cy:.1f} {dx:.1f} {dy:.1f}"
    if not arrow.crosses:
        return f'<path class="local" d="{line}"/>{_tip(dx, dy, "tip", 4)}'
    wide = thickness(arrow.nbytes)
    again = "" if arrow.label else " again"
    return (
        f"<g><title>{escape(arrow.title)}</title>"
        f'<path class="moved{again}" stroke-width="{wide:.1f}" d="{line}"/>'
        f"{_tip(dx, dy, 'moved-tip', 3 + wide / 1.7)}</g>"
    )


def _tip(x: float, y: float, css: str, half: float) -> str:
    return f'<path class="{css}" d="M{x + 7:.1f} {y:.1f}l-8 {-half:.1f}v{2 * half:.1f}z"/>'


def _label(arrow: Arrow) -> str:
    return tag(arrow.label, *arrow.label_at)


def _idle(plan: Plan) -> list[str]:
    """Sites that the plan does not touch."""
    used = {a.site for a in plan.assignments} | {t.source for t in plan.transfers}
    used |= {t.target for t in plan.transfers} | {r.site for r in plan.replicas.values()}
    return [site.name for site in plan.topology.sites if site.name not in used]


def _unused(plan: Plan, scene: Scene) -> str:
    idle = _idle(plan)
    if not idle:
        return ""
    shown = ", ".join(idle[:8]) + (f" and {len(idle) - 8} more" if len(idle) > 8 else "")
    return (
        f'<text class="small" x="{MARGIN:.0f}" y="{scene.height + 6:.0f}">'
        f"not used: {escape(shown)}</text>"
    )


# --- large plans ----------------------------------------------------------------------------------


def _summary(plan: Plan) -> str:
    """Sites in a ring, with how much runs at each and how much they exchange."""
    steps: dict[str, list[float]] = {}
    for assignment in plan.assignments:
        if assignment.reused is None:
            steps.setdefault(assignment.site, []).append(assignment.seconds)
    moved: dict[tuple[str, str], list[int]] = {}
    for transfer in plan.transfers:
        moved.setdefault((transfer.source, transfer.target), []).append(transfer.nbytes)
    sites = sorted({*steps, *(site for pair in moved for site in pair)})
    roads = [_road(*pair, sizes) for pair, sizes in sorted(moved.items(), key=lambda i: -sum(i[1]))]
    inside, (width, height) = ring([_spot(site, steps.get(site, [])) for site in sites], roads)
    return _svg(plan, width, height, [inside])


def _road(source: str, target: str, sizes: list[int]) -> Road:
    total = sum(sizes)
    copies = f"{len(sizes)} " + ("copy" if len(sizes) == 1 else "copies")
    return Road(
        source=source,
        target=target,
        width=thickness(total),
        label=f"{format_bytes(total)}, {copies}",
        title=f"{len(sizes)} transfers, {format_bytes(total)} from {source} to {target}",
    )


def _spot(site: str, work: list[float]) -> Spot:
    number = f"{len(work)} operation" + ("" if len(work) == 1 else "s")
    took = format_seconds(sum(work))
    return Spot(site, f"{number}, {took}", f"{site}: {number}, {took} of work")
