"""``python -m dataflow.testing.faults``: the matrix, or a part of it, as a table."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from dataflow.testing.bed import Bed
from dataflow.testing.bed.commands import BedError
from dataflow.testing.bed.state import lock
from dataflow.testing.faults.cells import QUICK, Cell, chosen
from dataflow.testing.faults.scene import Scene
from dataflow.testing.faults.table import counted, line_of, table
from dataflow.testing.faults.trial import Seen, trial


def tried(bed: Bed, cells: Sequence[Cell], folder: Path) -> Iterator[Seen]:
    """What comes of each cell, one after the other, over one federation for each keeper of jobs."""
    sensible = [cell for cell in cells if not cell.senseless]
    for kept_by in (None, "third"):
        mine = [cell for cell in sensible if (cell.part == "coordinator") == bool(kept_by)]
        if mine:
            with Scene(bed, folder / (kept_by or "notebook"), kept_by=kept_by) as scene:
                for cell in mine:
                    yield trial(scene, cell)


def main() -> int:
    """0 if every cell that was tried holds, 1 if one does not, 2 if nothing can be tried here."""
    parser = argparse.ArgumentParser(prog="faults", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--only", action="append", default=[], metavar="WORDS",
                        help="cells with these words: agent, hang:running, s3:kill:writing")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="a dozen telling cells")
    parser.add_argument("--json", action="store_true", help="one JSON object per cell")
    words = parser.parse_args()
    try:
        cells = list(QUICK) if words.quick else chosen(words.only)
    except ValueError as error:
        parser.error(str(error))
    begun, found = time.monotonic(), []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was set up is taken down
    with ExitStack() as stack:
        try:
            stack.enter_context(lock("use", seconds=240))
            bed = Bed.of_this_python()
            bed.restore()
            if not bed.healthy:
                bed.repair()
        except BedError as error:
            print(f"cannot run: {error}", file=sys.stderr)
            return 2
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
        for seen in tried(bed, cells, folder):
            found.append(seen)
            line = line_of(seen)
            print(json.dumps(line) if words.json else _spoken(seen), flush=True)
    if not words.json:
        print("\n" + table(cells, found))
    print(counted(cells, found, time.monotonic() - begun), file=sys.stderr)
    return 0 if all(seen.holds for seen in found) else 1


def _spoken(seen: Seen) -> str:
    verdict = "holds" if seen.holds else "WRONG"
    text = "; ".join(seen.wrong) if seen.wrong else seen.text.partition("\n")[0]
    return f"{seen.cell.name:32} {verdict:6} {seen.end} {seen.seconds:.1f} s  {text}"


if __name__ == "__main__":
    sys.exit(main())
