"""``python -m dataflow.testing.bed up|down``: what hpc/testbed/bed-up and bed-down call."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dataflow.testing.bed import up
from dataflow.testing.bed.commands import BedError


def main() -> int:
    """Do what was asked; 1 and one message if it cannot be done."""
    parser = argparse.ArgumentParser(prog="bed", description="Real sites on this machine.")
    actions = parser.add_subparsers(dest="action", required=True)
    raising = actions.add_parser("up", help="make the bed, or mend it")
    raising.add_argument("--python", type=Path, help="interpreter of the hosts' environment")
    lowering = actions.add_parser("down", help="take the bed away")
    lowering.add_argument(
        "--purge", action="store_true", help="remove environments and the user account as well"
    )
    words = parser.parse_args()
    try:
        if words.action == "up":
            up.up(words.python)
        else:
            up.down(purge=words.purge)
    except BedError as error:
        print(f"bed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
