"""What the manual tells people to type on a login host is typed there."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

from dataflow.testing.bed import Bed

_FILE = Path(__file__).parents[1] / "docs" / "blocks.py"
_SPEC = importlib.util.spec_from_file_location("manual_blocks", _FILE)
assert _SPEC is not None
assert _SPEC.loader is not None
manual: Any = importlib.util.module_from_spec(_SPEC)
sys.modules.setdefault("manual_blocks", manual)
_SPEC.loader.exec_module(manual)


def test_looking_at_a_job(bed: Bed) -> None:
    """A job that waits, and then has ended: the number in the manual is its own here."""
    blocks = [b for page in manual.PAGES for b in manual.blocks_of(page) if b.kind == "bed"]
    assert blocks
    for block in blocks:
        host = bed.host(block.rest)
        number = host.run("qsub -terse -h -b y -o /dev/null -e /dev/null true").stdout.strip()
        for command in block.commands:
            command = command.replace("4711", number)
            if command.startswith("qacct"):
                host.run(f"qrls {number}")
                limit = time.monotonic() + 60  # until the batch system has written it down
                while host.run(command, check=False).returncode:
                    assert time.monotonic() < limit
                    time.sleep(0.5)
            assert host.run(command).stdout.strip(), command
