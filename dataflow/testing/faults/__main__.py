"""``python -m dataflow.testing.faults``: the matrix, or a part of it, as a table."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from dataflow.testing.bed import Bed
from dataflow.testing.bed.commands import BedError
from dataflow.testing.bed.state import lock
from dataflow.testing.faults.cells import QUICK, Cell, chosen
from dataflow.testing.faults.matrix import Results, tried
from dataflow.testing.faults.table import counted, line_of, markdown, table
from dataflow.testing.faults.trial import Seen

#: Where cells are kept that were tried.
RESULTS = Path("build/faults.jsonl")


def main() -> int:
    """0 if every cell holds, 1 if one does not or was not tried, 2 if nothing can be tried here."""
    parser = _parser()
    words = parser.parse_args()
    try:
        cells = list(QUICK) if words.quick else chosen(words.only)
    except ValueError as error:
        parser.error(str(error))
    results = Results(words.results)
    known = results.read() if words.resume or words.show else {}
    wanted = [cell for cell in cells if cell not in known or not known[cell].holds]
    status = 0
    if not words.show:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was set up is taken down
        begun = time.monotonic()
        try:
            for seen in _run(wanted):
                known[seen.cell] = seen
                results.add(seen)
                print(json.dumps(line_of(seen)) if words.json else _spoken(seen), flush=True)
        except BedError as error:
            print(f"cannot run: {error}", file=sys.stderr)
            status = 2
        except KeyboardInterrupt:
            print("broken off; --resume goes on", file=sys.stderr)
        print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr)
    found = [known[cell] for cell in cells if cell in known]
    if not words.json:
        print("\n" + table(cells, found))
    if words.markdown:
        words.markdown.write_text(markdown(cells, found))
    print(counted(cells, found), file=sys.stderr)
    sensible = [cell for cell in cells if not cell.senseless]
    whole = all(cell in known and known[cell].holds for cell in sensible)
    return status or (0 if whole else 1)


def _run(cells: list[Cell]) -> Iterator[Seen]:
    with ExitStack() as stack:
        stack.enter_context(lock("use", seconds=240))
        bed = Bed.of_this_python()
        bed.restore()
        if not bed.healthy:
            bed.repair()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
        yield from tried(bed, cells, folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="faults", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--only", action="append", default=[], metavar="WORDS",
                        help="cells with these words: agent, hang:running, s3:kill:writing")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="a few telling cells")
    parser.add_argument("--json", action="store_true", help="one JSON object per cell")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE",
                        help="where a line is added for every cell that ended (%(default)s)")  # fmt: skip
    parser.add_argument("--resume", action="store_true",
                        help="what holds by that file is not tried again")  # fmt: skip
    parser.add_argument("--show", action="store_true", help="try nothing, show what the file has")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there, too")
    return parser


def _spoken(seen: Seen) -> str:
    verdict = "holds" if seen.holds else "WRONG"
    text = "; ".join(seen.wrong) if seen.wrong else seen.text.partition("\n")[0]
    return (
        f"{seen.cell.name:32} {verdict:6} {seen.end} {seen.seconds:.1f} s  "
        f"(in all {seen.took:.0f} s)  {text}"
    )


if __name__ == "__main__":
    sys.exit(main())
