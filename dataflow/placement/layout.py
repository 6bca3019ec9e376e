"""Layout: where the boxes and arrows of a plan's picture go; numbers only, no drawing.

Time runs from left to right in columns; each site is a band across all columns. Sites are stacked
so that those which exchange most lie next to one another, boxes of a column so that arrows cross
little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Literal

from dataflow._quantities import format_bytes, format_seconds
from dataflow.placement.plan import Plan, Transfer

BoxKind = Literal["dataset", "step", "stored", "copy"]
Point = tuple[float, float]

LETTER = 6.6
HEIGHT = 38.0
GAP = 14.0
HEAD = 24.0
MARGIN = 12.0
COLUMN_GAP = 104.0
WIDEST = 156.0
#: Sites up to which every order of the bands is tried.
ORDERED_SITES = 6


@dataclass(slots=True)
class Box:
    """A dataset, a step, a stored result that is reused, or a copy that is delivered."""

    id: str
    kind: BoxKind
    site: str
    label: str
    detail: str
    title: str
    wanted: bool = False
    column: int = 0
    row: float = 0.0
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0


@dataclass(slots=True)
class Arrow:
    """Data from one box to another; ``label`` only where it crosses a link."""

    source: str
    target: str
    crosses: bool
    nbytes: int = 0
    label: str = ""
    title: str = ""
    path: tuple[Point, Point, Point, Point] = ((0, 0), (0, 0), (0, 0), (0, 0))
    label_at: Point = (0, 0)


@dataclass(slots=True)
class Scene:
    """Boxes and arrows with their places; ``bands`` are (site, y, height)."""

    boxes: dict[str, Box] = field(default_factory=dict)
    arrows: list[Arrow] = field(default_factory=list)
    bands: list[tuple[str, float, float]] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0


def arrange(plan: Plan) -> Scene:
    """The picture of a plan, every box and arrow in its place."""
    scene = Scene()
    _boxes_and_arrows(plan, scene)
    _columns(scene)
    sites = _bands(scene)
    _rows(scene, sites)
    _places(scene, sites)
    _paths(scene)
    return scene


def shorten(text: str, letters: int = 20) -> str:
    """At most so many letters, the middle left out."""
    if len(text) <= letters:
        return text
    return f"{text[: letters - 7]}…{text[-6:]}"


def _boxes_and_arrows(plan: Plan, scene: Scene) -> None:
    moved = {(t.key, t.target): t for t in plan.transfers}
    drawn: set[tuple[str, str]] = set()
    copies = {(key, s.site): r for s in plan.segments for key, r in s.replicas.items()}
    copies |= {(t.key, t.source): t.replica for t in plan.transfers if t.replica is not None}
    for key in plan.outputs:
        if key in plan.replicas and not any(held == key for held, _ in copies):
            copies[key, plan.replicas[key].site] = plan.replicas[key]
    for (key, site), replica in copies.items():
        stored = key not in plan.sources
        size = format_bytes(replica.nbytes)
        word = "stored result" if stored else "dataset"
        scene.boxes[f"{key} {site}"] = Box(
            id=f"{key} {site}",
            kind="stored" if stored else "dataset",
            site=site,
            label=shorten(plan.label(key)),
            detail=f"stored, {size}" if stored else size,
            title=f"{word} {plan.label(key)} at {site}, {size}",
            wanted=key in plan.outputs,
        )
    for assignment in plan.assignments:
        if assignment.reused is not None:
            continue
        key, site = assignment.key, assignment.site
        label = plan.label(key)
        box = f"{key} {site}"
        scene.boxes[box] = Box(
            id=box,
            kind="step",
            site=site,
            label=shorten(label),
            detail=format_seconds(assignment.seconds),
            title=f"{label} at {site}, {format_seconds(assignment.seconds)}: {assignment.because}",
            wanted=key in plan.outputs,
        )
        for wanted in dict.fromkeys(plan.step_by_key[key].inputs):
            _arrow(plan, scene, moved, drawn, wanted, site, box)
    for key in plan.outputs:
        if (key, plan.result_at) in moved:
            box = f"{key} {plan.result_at} delivered"
            label = plan.label(key)
            scene.boxes[box] = Box(
                id=box,
                kind="copy",
                site=plan.result_at,
                label=shorten(label),
                detail="result",
                title=f"result {label}, delivered to {plan.result_at}",
                wanted=True,
            )
            _arrow(plan, scene, moved, drawn, key, plan.result_at, box)


def _arrow(
    plan: Plan,
    scene: Scene,
    moved: dict[tuple[str, str], Transfer],
    drawn: set[tuple[str, str]],
    key: str,
    site: str,
    target: str,
) -> None:
    transfer = moved.get((key, site))
    if transfer is None:
        scene.arrows.append(Arrow(source=f"{key} {site}", target=target, crosses=False))
        return
    first = (key, site) not in drawn
    drawn.add((key, site))
    size, time = format_bytes(transfer.nbytes), format_seconds(transfer.seconds)
    words = f"{plan.label(key)}, {size} from {transfer.source} to {site} in {time}"
    scene.arrows.append(
        Arrow(
            source=f"{key} {transfer.source}",
            target=target,
            crosses=True,
            nbytes=transfer.nbytes if first else 0,
            label=f"{size}, {time}" if first else "",
            title=words if first else f"{words}; the same copy",
        )
    )


def _columns(scene: Scene) -> None:
    """Each box right of what it reads; datasets just left of their first reader."""
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    for arrow in scene.arrows:
        before.setdefault(arrow.target, []).append(arrow.source)
        after.setdefault(arrow.source, []).append(arrow.target)
    for box in scene.boxes.values():  # made before what reads them
        box.column = max((scene.boxes[b].column + 1 for b in before.get(box.id, ())), default=0)
    for box in scene.boxes.values():
        if box.id not in before and box.id in after:
            box.column = min(scene.boxes[reader].column for reader in after[box.id]) - 1


def _bands(scene: Scene) -> list[str]:
    """Sites from top to bottom: much traffic, short way."""
    sites = sorted({box.site for box in scene.boxes.values()})
    traffic: dict[tuple[str, str], int] = {}
    for arrow in scene.arrows:
        pair = (scene.boxes[arrow.source].site, scene.boxes[arrow.target].site)
        if pair[0] != pair[1]:
            traffic[pair] = traffic.get(pair, 0) + 1

    def length(order: Sequence[str]) -> int:
        place = {site: number for number, site in enumerate(order)}
        return sum(count * abs(place[a] - place[b]) for (a, b), count in traffic.items())

    if len(sites) > ORDERED_SITES:
        return sites
    best: Sequence[str] = min(permutations(sites), key=lambda order: length(order))
    return list(best)


def _rows(scene: Scene, sites: Sequence[str]) -> None:
    """Order within a site's column by the middle of what is read, then of what reads it."""
    near: dict[str, list[str]] = {}
    for arrow in scene.arrows:
        near.setdefault(arrow.target, []).append(arrow.source)
        near.setdefault(arrow.source, []).append(arrow.target)
    cells: dict[tuple[str, int], list[Box]] = {}
    for box in scene.boxes.values():
        cells.setdefault((box.site, box.column), []).append(box)
    place = {site: number for number, site in enumerate(sites)}
    columns = max((box.column for box in scene.boxes.values()), default=0)
    tallest = max((len(cell) for cell in cells.values()), default=1)

    def height(box: Box) -> float:
        return place[box.site] * (tallest + 1) + box.row

    for cell in cells.values():
        _settle(cell)
    for sweep in range(6):
        way = range(columns + 1) if sweep % 2 == 0 else range(columns, -1, -1)
        for column in way:
            for site in sites:
                cell = cells.get((site, column), [])
                wish = {
                    box.id: sum(height(scene.boxes[n]) for n in near[box.id]) / len(near[box.id])
                    if box.id in near
                    else height(box)
                    for box in cell
                }
                cell.sort(key=lambda box: (wish[box.id], box.row, box.id))
                _settle(cell)


def _settle(cell: Sequence[Box]) -> None:
    """Rows of a column's boxes, around 0."""
    for number, box in enumerate(cell):
        box.row = number - (len(cell) - 1) / 2


def _places(scene: Scene, sites: Sequence[str]) -> None:
    columns = max((box.column for box in scene.boxes.values()), default=0)
    widths = [64.0] * (columns + 1)
    for box in scene.boxes.values():
        letters = max(len(box.label), len(box.detail) * 0.9)
        wide = min(WIDEST, letters * LETTER + 22)
        widths[box.column] = max(widths[box.column], wide)
    left = [MARGIN * 2]
    for width in widths:
        left.append(left[-1] + width + COLUMN_GAP)
    y = MARGIN
    for site in sites:
        here = [box for box in scene.boxes.values() if box.site == site]
        stack = max(box.row for box in here) * 2 + 1
        tall = HEAD + stack * (HEIGHT + GAP) + GAP / 2
        middle = y + HEAD + (tall - HEAD - GAP / 2) / 2
        for box in here:
            box.x, box.width = left[box.column], widths[box.column]
            box.y = middle + box.row * (HEIGHT + GAP) - HEIGHT / 2
        scene.bands.append((site, y, tall))
        y += tall + MARGIN
    scene.width = left[-1] - COLUMN_GAP + MARGIN * 2
    scene.height = y


def _paths(scene: Scene) -> None:
    """Curves that keep clear of boxes, and labels that keep clear of everything."""
    boxes = list(scene.boxes.values())
    taken: list[tuple[float, float, float, float]] = [
        (box.x - 2, box.y - 2, box.x + box.width + 2, box.y + HEIGHT + 2) for box in boxes
    ]
    taken += [(MARGIN, y, MARGIN * 2 + len(site) * 8.5, y + HEAD - 4) for site, y, _ in scene.bands]
    for arrow in scene.arrows:
        source, target = scene.boxes[arrow.source], scene.boxes[arrow.target]
        start = (source.x + source.width, source.y + HEIGHT / 2)
        end = (target.x - 7, target.y + HEIGHT / 2)
        bend = max(30.0, (end[0] - start[0]) * 0.45)
        blocking = [box for box in boxes if box is not source and box is not target]
        fewest = len(blocking) * 24
        for lift in (0.0, -44.0, 44.0, -70.0, 70.0, -100.0, 100.0):
            curve = (start, (start[0] + bend, start[1] + lift), (end[0] - bend, end[1] + lift), end)
            hits = _hits(curve, blocking)
            if hits < fewest or lift == 0.0:
                arrow.path, fewest = curve, hits
            if not hits:
                break
    for arrow in sorted((a for a in scene.arrows if a.label), key=lambda a: -a.nbytes):
        wide = len(arrow.label) * 5.9 + 8
        spots = [_along(arrow.path, t / 100) for t in (50, 42, 58, 34, 66, 26, 74, 20, 80)]
        spots += [(x, y + d) for x, y in spots[:5] for d in (-14, 14)]
        around = [(x - wide / 2, y - 8, x + wide / 2, y + 8) for x, y in spots]
        left, top, right, bottom = (
            pick(corner)
            for pick, corner in zip((min, min, max, max), zip(*around, strict=True), strict=True)
        )
        near = [
            one
            for one in taken
            if one[0] < right and one[2] > left and one[1] < bottom and one[3] > top
        ]
        overlaps = [sum(_overlap(area, other) for other in near) for area in around]
        best = min(range(len(spots)), key=lambda n: (overlaps[n], n))
        arrow.label_at = spots[best]
        taken.append(around[best])


def _along(path: tuple[Point, Point, Point, Point], t: float) -> Point:
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = path
    u = 1 - t
    k = (u**3, 3 * u * u * t, 3 * u * t * t, t**3)
    return (
        k[0] * ax + k[1] * bx + k[2] * cx + k[3] * dx,
        k[0] * ay + k[1] * by + k[2] * cy + k[3] * dy,
    )


def _hits(path: tuple[Point, Point, Point, Point], boxes: Sequence[Box]) -> int:
    left, right = min(x for x, _ in path), max(x for x, _ in path)  # the curve is within these
    top, bottom = min(y for _, y in path), max(y for _, y in path)
    near = [
        box
        for box in boxes
        if left <= box.x + box.width + 3
        and box.x - 3 <= right
        and top <= box.y + HEIGHT + 3
        and box.y - 3 <= bottom
    ]
    points = [_along(path, step / 24) for step in range(1, 24)] if near else []
    return sum(
        box.x - 3 <= x <= box.x + box.width + 3 and box.y - 3 <= y <= box.y + HEIGHT + 3
        for x, y in points
        for box in near
    )


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    tall = min(a[3], b[3]) - max(a[1], b[1])
    return wide * tall if wide > 0 and tall > 0 else 0.0
