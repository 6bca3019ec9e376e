"""Places in a ring and the roads between them, as SVG; knows no domain and needs no library.

Colours are translucent over ``currentColor``, so that the picture is readable on a light and on a
dark page; every part has a text alternative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dataflow._html import escape, themed

MARGIN = 12.0
#: Half of a spot's width and height, and how far a road bends aside.
_WIDE, _TALL, _ASIDE = 80.0, 28.0, 34.0
LETTER = 5.9

STYLE = "\n".join(
    [
        "NAME text {font: 12px system-ui, sans-serif; fill: currentColor}",
        "NAME .small {font-size: 10.5px; opacity: .8}",
        "NAME .site {fill: currentColor; fill-opacity: .045; stroke: currentColor; "
        "stroke-opacity: .28}",
        "NAME .faint {opacity: .62}",
        "NAME .faint .site {stroke-dasharray: 4 3}",
        "NAME .name {font-weight: 600; font-size: 12.5px}",
        "NAME .moved {fill: none; stroke: #e8862e; stroke-opacity: .75}",
        "NAME .moved-tip {fill: #e8862e}",
    ]
)


@dataclass(frozen=True, slots=True)
class Spot:
    """One place: its name, a line below it, what it says when pointed at; faint if it is not there."""

    name: str
    detail: str
    title: str
    faint: bool = False


@dataclass(frozen=True, slots=True)
class Road:
    """From one place to another; ``width`` in pixels."""

    source: str
    target: str
    width: float
    label: str
    title: str


def style(name: str) -> str:
    """The style of a picture whose ``<svg>`` has the class ``name``."""
    paper = themed(f".{name} .paper", "fill: #fff", "fill: #1b1b1b")
    return f"{STYLE.replace('NAME', f'.{name}')}\n{paper}"


def svg(name: str, size: tuple[float, float], title: str, words: str, css: str, inside: str) -> str:
    """An ``<svg>`` element for a page or (with ``xmlns``) a file of its own."""
    width, height = size
    css = css.replace("&", "&amp;").replace("<", "&lt;")  # harmless both as HTML and as XML
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{name}" role="img" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'style="max-width: 100%; height: auto" aria-label="{escape(words)}">'
        f"<title>{escape(title)}</title><style>{css}</style>{inside}</svg>"
    )


def ring(spots: Sequence[Spot], roads: Sequence[Road]) -> tuple[str, tuple[float, float]]:
    """The inside of a picture, and its width and height."""
    radius = 0.0 if len(spots) < 2 else max(120.0, len(spots) * 34.0)
    places: dict[str, tuple[float, float]] = {}
    for number, spot in enumerate(spots):
        turn = 2 * math.pi * number / max(1, len(spots)) - math.pi / 2
        x = MARGIN + 90 + radius * 1.6 * (1 + math.cos(turn))
        y = MARGIN + 40 + radius * (1 + math.sin(turn))
        places[spot.name] = (x, y)
    left = min((x for x, _ in places.values()), default=0.0) - MARGIN - 90
    top = min((y for _, y in places.values()), default=0.0) - MARGIN - 40
    places = {name: (x - left, y - top) for name, (x, y) in places.items()}
    lines, labels = [], []
    for road in roads:
        line, label = _road(road, places[road.source], places[road.target])
        lines.append(line)
        labels.append(label)
    boxes = [_spot(spot, *places[spot.name]) for spot in spots]
    width = max((x for x, _ in places.values()), default=0.0) + 100
    height = max((y for _, y in places.values()), default=0.0) + 60
    return "".join([*lines, *boxes, *labels]), (width, height)


def tag(label: str, x: float, y: float) -> str:
    """A few words on a piece of paper, in the middle of a road."""
    wide = len(label) * LETTER + 8
    return (
        f'<g><rect class="paper" fill-opacity=".88" x="{x - wide / 2:.1f}" y="{y - 8:.1f}" '
        f'width="{wide:.1f}" height="16" rx="4"/><text class="small" style="opacity: 1" '
        f'x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{escape(label)}</text></g>'
    )


def _road(road: Road, a: tuple[float, float], b: tuple[float, float]) -> tuple[str, str]:
    """A curve bent to its right, so that the way there and the way back lie apart."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    length = math.hypot(dx, dy) or 1.0
    sx, sy = -dy / length * _ASIDE, dx / length * _ASIDE
    ax, ay = _edge(a, b[0] + sx, b[1] + sy)
    ex, ey = _edge(b, a[0] + sx, a[1] + sy)
    bx, by = ax + (ex - ax) * 0.3 + sx, ay + (ey - ay) * 0.3 + sy
    cx, cy = ax + (ex - ax) * 0.7 + sx, ay + (ey - ay) * 0.7 + sy
    turn = math.degrees(math.atan2(ey - cy, ex - cx))
    half = 3 + road.width / 1.7
    line = (
        f'<g><title>{escape(road.title)}</title><path class="moved" '
        f'stroke-width="{road.width:.1f}" '
        f'd="M{ax:.1f} {ay:.1f}C{bx:.1f} {by:.1f} {cx:.1f} {cy:.1f} {ex:.1f} {ey:.1f}"/>'
        f'<path class="moved-tip" transform="translate({ex:.1f} {ey:.1f}) rotate({turn:.1f})" '
        f'd="M3 0l-9 {-half:.1f}v{2 * half:.1f}z"/></g>'
    )
    return line, tag(road.label, (ax + ex) / 2 + sx * 0.75, (ay + ey) / 2 + sy * 0.75)


def _edge(spot: tuple[float, float], x: float, y: float) -> tuple[float, float]:
    """Where the line from a spot's middle to a point leaves its box."""
    dx, dy = x - spot[0], y - spot[1]
    wide = (_WIDE + 6) / abs(dx) if dx else math.inf
    tall = (_TALL + 5) / abs(dy) if dy else math.inf
    scale = min(wide, tall, 1.0)
    return spot[0] + dx * scale, spot[1] + dy * scale


def _spot(spot: Spot, x: float, y: float) -> str:
    box = (
        f'x="{x - _WIDE:.1f}" y="{y - _TALL:.1f}" width="{2 * _WIDE:.0f}" '
        f'height="{2 * _TALL:.0f}" rx="8"'
    )
    faint = ' class="faint"' if spot.faint else ""
    return (
        f"<g{faint}><title>{escape(spot.title)}</title>"
        f'<rect class="paper" {box}/><rect class="site" {box}/>'
        f'<text class="name" x="{x:.1f}" y="{y - 7:.1f}" text-anchor="middle">'
        f"{escape(spot.name)}</text>"
        f'<text class="small" x="{x:.1f}" y="{y + 13:.1f}" text-anchor="middle">'
        f"{escape(spot.detail)}</text></g>"
    )
