"""Picture: a plan as SVG, drawn without any library.

Sites are bands, steps and datasets boxes in them, time runs to the right. What crosses a link is
drawn as wide as its bytes (by their logarithm). Colours are translucent over ``currentColor``, so
the picture is readable on a light and on a dark page; every part has a text alternative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dataflow._html import escape, themed
from dataflow._quantities import format_bytes, format_seconds
from dataflow.placement.layout import HEIGHT, MARGIN, Arrow, Box, Scene, arrange
from dataflow.placement.plan import Plan

#: Boxes up to which every step is drawn; beyond, sites and what they exchange.
MOST_BOXES = 60

_STYLE = "\n".join(
    [
        ".flow-plan text {font: 12px system-ui, sans-serif; fill: currentColor}",
        ".flow-plan .small {font-size: 10.5px; opacity: .75}",
        ".flow-plan .site {fill: currentColor; fill-opacity: .045; stroke: currentColor; "
        "stroke-opacity: .28}",
        ".flow-plan .name {font-weight: 600; font-size: 12.5px}",
        ".flow-plan .box {stroke-width: 1.2}",
        ".flow-plan .wanted .box {stroke-width: 2.6}",
        ".flow-plan .step .box {fill: #4c8df6; fill-opacity: .2; stroke: #4c8df6}",
        ".flow-plan .dataset .box {fill: #3fa56b; fill-opacity: .2; stroke: #3fa56b}",
        ".flow-plan .stored .box, .flow-plan .copy .box "
        "{fill: #8a8f98; fill-opacity: .18; stroke: #8a8f98}",
        ".flow-plan .stored .box {stroke-dasharray: 5 3}",
        ".flow-plan .local {fill: none; stroke: currentColor; stroke-opacity: .45; stroke-width: 1.2}",
        ".flow-plan .tip {fill: currentColor; fill-opacity: .55}",
        ".flow-plan .moved {fill: none; stroke: #e8862e; stroke-opacity: .75}",
        ".flow-plan .again {stroke-dasharray: 4 4}",
        ".flow-plan .moved-tip {fill: #e8862e}",
        themed(".flow-plan .paper", "fill: #fff", "fill: #1b1b1b"),
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
    inside = "".join(parts)
    words = escape(describe(plan))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="flow-plan" role="img" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'style="max-width: 100%; height: auto" aria-label="{words}">'
        f"<title>{escape(repr(plan).strip('<>'))}</title><style>{escape_style(_STYLE)}</style>"
        f"{inside}</svg>"
    )


def escape_style(css: str) -> str:
    """CSS inside SVG, harmless both as HTML and as XML."""
    return css.replace("&", "&amp;").replace("<", "&lt;")


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
    x, y = arrow.label_at
    wide = len(arrow.label) * 5.9 + 8
    return (
        f'<g><rect class="paper" fill-opacity=".88" x="{x - wide / 2:.1f}" y="{y - 8:.1f}" width="{wide:.1f}" '
        f'height="16" rx="4"/><text class="small" style="opacity: 1" x="{x:.1f}" '
        f'y="{y + 4:.1f}" text-anchor="middle">{escape(arrow.label)}</text></g>'
    )


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


@dataclass(slots=True)
class _Spot:
    site: str
    steps: int
    seconds: float
    x: float
    y: float


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
    radius = 0.0 if len(sites) == 1 else max(120.0, len(sites) * 34.0)
    spots = {}
    for number, site in enumerate(sites):
        turn = 2 * math.pi * number / max(1, len(sites)) - math.pi / 2
        x = MARGIN + 90 + radius * 1.6 * (1 + math.cos(turn))
        y = MARGIN + 40 + radius * (1 + math.sin(turn))
        work = steps.get(site, [])
        spots[site] = _Spot(site, len(work), sum(work), x, y)
    parts, labels = [], []
    for (source, target), sizes in sorted(moved.items(), key=lambda item: -sum(item[1])):
        arrow = _between(spots[source], spots[target], sizes)
        parts.append(_arrow_between(arrow))
        labels.append(_label(arrow))
    parts += [_spot(spot) for spot in spots.values()] + labels
    width = max((spot.x for spot in spots.values()), default=0.0) + 100
    height = max((spot.y for spot in spots.values()), default=0.0) + 60
    return _svg(plan, width, height, parts)


def _between(a: _Spot, b: _Spot, sizes: list[int]) -> Arrow:
    """A curve bent to its right, so that the way there and the way back lie apart."""
    dx, dy = b.x - a.x, b.y - a.y
    length = math.hypot(dx, dy) or 1.0
    side = (-dy / length * 34, dx / length * 34)
    ends = [_edge(a, b.x + side[0], b.y + side[1]), _edge(b, a.x + side[0], a.y + side[1])]
    (ax, ay), (bx, by) = ends
    inner = [
        (ax + (bx - ax) * share + side[0], ay + (by - ay) * share + side[1]) for share in (0.3, 0.7)
    ]
    total = sum(sizes)
    middle = ((ends[0][0] + ends[1][0]) / 2, (ends[0][1] + ends[1][1]) / 2)
    at = (middle[0] + side[0] * 0.75, middle[1] + side[1] * 0.75)
    words = f"{len(sizes)} transfers, {format_bytes(total)} from {a.site} to {b.site}"
    return Arrow(
        source=a.site,
        target=b.site,
        crosses=True,
        nbytes=total,
        label=f"{format_bytes(total)}, {len(sizes)} " + ("copy" if len(sizes) == 1 else "copies"),
        title=words,
        path=(ends[0], inner[0], inner[1], ends[1]),
        label_at=at,
    )


def _edge(spot: _Spot, x: float, y: float) -> tuple[float, float]:
    """Where the line from a spot's middle to a point leaves its box."""
    dx, dy = x - spot.x, y - spot.y
    scale = min(86 / abs(dx) if dx else math.inf, 33 / abs(dy) if dy else math.inf, 1.0)
    return spot.x + dx * scale, spot.y + dy * scale


def _arrow_between(arrow: Arrow) -> str:
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = arrow.path
    wide = thickness(arrow.nbytes)
    turn = math.degrees(math.atan2(dy - cy, dx - cx))
    half = 3 + wide / 1.7
    return (
        f'<g><title>{escape(arrow.title)}</title><path class="moved" stroke-width="{wide:.1f}" '
        f'd="M{ax:.1f} {ay:.1f}C{bx:.1f} {by:.1f} {cx:.1f} {cy:.1f} {dx:.1f} {dy:.1f}"/>'
        f'<path class="moved-tip" transform="translate({dx:.1f} {dy:.1f}) rotate({turn:.1f})" '
        f'd="M3 0l-9 {-half:.1f}v{2 * half:.1f}z"/></g>'
    )


def _spot(spot: _Spot) -> str:
    number = f"{spot.steps} operation" + ("" if spot.steps == 1 else "s")
    return (
        f"<g><title>{escape(spot.site)}: {number}, {format_seconds(spot.seconds)} of work</title>"
        f'<rect class="paper" x="{spot.x - 80:.1f}" y="{spot.y - 28:.1f}" width="160" height="56" rx="8"/>'
        f'<rect class="site" x="{spot.x - 80:.1f}" y="{spot.y - 28:.1f}" width="160" height="56" rx="8"/>'
        f'<text class="name" x="{spot.x:.1f}" y="{spot.y - 7:.1f}" text-anchor="middle">'
        f"{escape(spot.site)}</text>"
        f'<text class="small" x="{spot.x:.1f}" y="{spot.y + 13:.1f}" text-anchor="middle">'
        f"{number}, {format_seconds(spot.seconds)}</text></g>"
    )
