"""The matrix as a table, as JSON, and as one line. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dataflow.testing.faults.cells import DUE, KINDS, PARTS, PHASES, TITLES, Cell
from dataflow.testing.faults.trial import Seen

_WIDTH = 22


def table(cells: Sequence[Cell], found: Sequence[Seen]) -> str:
    """A line for each part and kind, a column for each phase; then why some cells are empty."""
    by_cell = {seen.cell: seen for seen in found}
    head = f"{'':26}" + "".join(f"{phase:{_WIDTH}}" for phase in PHASES)
    lines = [head, "-" * len(head)]
    for part, kind, row in _rows(cells):
        texts = [_entry(cell, by_cell.get(cell)) if cell in cells else "" for cell in row]
        lines.append(f"{TITLES[part]:20}{kind:6}" + "".join(f"{text:{_WIDTH}}" for text in texts))
    lines += [f"- {'; '.join(places)}: {why}" for why, places in _reasons(cells).items()]
    lines += [f"! {seen.cell.name}: {'; '.join(seen.wrong)}" for seen in found if not seen.holds]
    return "\n".join(lines)


def _entry(cell: Cell, seen: Seen | None) -> str:
    if cell.senseless:
        return "-"
    if seen is None:
        return "not tried"
    end = seen.end.partition("\n")[0].partition(":")[0]
    text = f"{end} {seen.seconds:.0f} s" if end else "no end"
    return text if seen.holds else f"! {text}"


def markdown(cells: Sequence[Cell], found: Sequence[Seen]) -> str:
    """The same for a page: the table, then what does not hold and why, and why some are empty."""
    by_cell = {seen.cell: seen for seen in found}
    lines = ["| part | fault | " + " | ".join(PHASES) + " |", "|---" * (2 + len(PHASES)) + "|"]
    for part, kind, row in _rows(cells):
        texts = [_entry(cell, by_cell.get(cell)) if cell in cells else "" for cell in row]
        lines.append(f"| {TITLES[part]} | {kind} | " + " | ".join(texts) + " |")
    wrong = [f"- `{s.cell.name}`: {_first_lines(s.wrong)}" for s in found if not s.holds]
    empty = [f"- {'; '.join(places)}: {why}." for why, places in _reasons(cells).items()]
    blocks = ["\n".join(lines), counted(cells, found) + "."]
    if wrong:
        blocks.append("Not as they should be:\n\n" + "\n".join(wrong))
    if empty:
        blocks.append("`-` makes no sense:\n\n" + "\n".join(empty))
    return "\n\n".join(blocks) + "\n"


def _first_lines(texts: Sequence[str]) -> str:
    return "; ".join(text.partition("\n")[0] for text in texts)


def _rows(cells: Sequence[Cell]) -> Iterator[tuple[str, str, list[Cell]]]:
    for part in PARTS:
        for kind in KINDS:
            row = [Cell(part, kind, phase) for phase in PHASES]
            if set(row) & set(cells):
                yield part, kind, row


def _reasons(cells: Sequence[Cell]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for cell in cells:
        if cell.senseless:
            place = f"{TITLES[cell.part]}, {cell.phase}"
            if place not in reasons.setdefault(cell.senseless, []):
                reasons[cell.senseless].append(place)
    return reasons


def line_of(seen: Seen) -> dict[str, Any]:
    """One cell for programs."""
    return {
        "figure": seen.cell.name,
        "value": round(seen.seconds, 1),
        "unit": "s",
        "end": seen.end,
        "knowable": seen.cell.knowable,
        "goal": f"right, or a typed error < {DUE:g} s after it is knowable",
        "holds": seen.holds,
        "wrong": seen.wrong,
        "text": seen.text.partition("\n")[0],
        "looks": seen.looks,
        "took": round(seen.took, 1),
        "tried_at": round(seen.tried_at),
    }


def counted(cells: Sequence[Cell], found: Sequence[Seen]) -> str:
    """The whole of it in one line."""
    wrong = [text for seen in found for text in seen.wrong]
    words = {
        word: sum(text.startswith(word) for text in wrong)
        for word in ("lost", "doubled", "half visible")
    }
    right = sum(seen.end == "right" for seen in found)
    empty = sum(bool(cell.senseless) for cell in cells)
    return (
        f"{sum(seen.holds for seen in found)} of {len(found)} cells hold ({right} ended right), "
        f"{empty} make no sense; {words['lost']} lost, {words['doubled']} doubled, "
        f"{words['half visible']} half visible; {sum(seen.looks for seen in found)} looks by the "
        "reader"
    )
