"""Matrix: cells one after the other, and what came of them, kept in a file as soon as it is known."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dataflow.testing.bed import Bed
from dataflow.testing.bed.commands import BedError
from dataflow.testing.faults import judge
from dataflow.testing.faults.cells import Cell
from dataflow.testing.faults.scene import Scene
from dataflow.testing.faults.table import line_of
from dataflow.testing.faults.trial import Seen, trial


def tried(bed: Bed, cells: Sequence[Cell], folder: Path) -> Iterator[Seen]:
    """What comes of each cell, one after the other; twice of one, if it was wrong by what it left.

    Cells of one keeper of jobs share a federation for as long as each leaves it as it found it,
    which a cell has shown when it holds: the reader, the queue and the processes of all hosts were
    looked at. After one that does not, everything is ended and begun anew, so that no cell suffers
    from what another left.
    """
    sensible = [cell for cell in cells if not cell.senseless]
    for kept_by, warm in ((None, False), (None, True), ("third", True)):
        mine = [
            cell
            for cell in reversed(sensible)
            if cell.warm == warm and (cell.part == "coordinator") == bool(kept_by)
        ]
        made = 0
        while mine:
            made += 1
            home = folder / f"{kept_by or 'notebook'}-{warm}-{made}"
            scene, seen = Scene(bed, home, kept_by=kept_by, warm=warm), None
            try:
                with scene:
                    while mine:
                        seen = trial(scene, mine.pop())
                        yield seen
                        if not seen.holds:
                            break
                if seen is not None and seen.holds and (wrong := judge.left(scene)):
                    seen.wrong += wrong
                    yield seen
            except Exception as error:  # of a federation that was to be made, or taken down
                text = f"{type(error).__name__}: {error}"[:400]
                if seen is None:
                    yield Seen(mine.pop(), wrong=[f"no whole federation to begin with: {text}"])
                elif seen.holds:
                    seen.wrong.append(f"the federation did not end: {text}")
                    yield seen
            if mine:
                _afresh(bed)


def _afresh(bed: Bed) -> None:
    """A bed on which nothing runs that a cell began."""
    with suppress(BedError, TimeoutError):
        bed.restore()
    bed.repair()
    bed.clear()


class Results:
    """A file of cells that were tried: a line for each, added when it ends.

    A run that is broken off is gone on with, and of a cell that was tried twice the last line
    counts.

    Parameters
    ----------
    path
        Made with its folder when the first line is added.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, seen: Seen) -> None:
        """Keep what came of a cell."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(line_of(seen)) + "\n")

    def read(self) -> dict[Cell, Seen]:
        """What is known of cells; a line that was not written to its end says nothing."""
        found: dict[Cell, Seen] = {}
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                with suppress(ValueError, KeyError, TypeError):
                    seen = _of_line(json.loads(line))
                    found[seen.cell] = seen
        return found


def _of_line(line: dict[str, Any]) -> Seen:
    return Seen(
        cell=Cell(*line["figure"].split(":")),
        end=line["end"],
        seconds=line["value"],
        text=line["text"],
        wrong=line["wrong"],
        looks=line["looks"],
        took=line["took"],
        tried_at=line["tried_at"],
    )
