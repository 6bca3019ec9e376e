"""Bed: real sites on this machine, with links, faults and counters, for tests that need the truth.

Sites are made of network namespaces (:mod:`~dataflow.testing.bed.layout` says which); their sshd,
Grid Engine and S3 server are the real ones. ``hpc/testbed/bed-up`` makes them, and

    from dataflow.testing.bed import Bed

    bed = Bed.current()

is what a test holds. Only the standard library is used, so that Debian's Python can make the bed
before anything is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataflow._lazy import lazy

if TYPE_CHECKING:
    from dataflow.testing.bed.bed import S3, Bed, Link
    from dataflow.testing.bed.commands import BedError
    from dataflow.testing.bed.gate import Rule
    from dataflow.testing.bed.host import Daemon, Disk, Host
    from dataflow.testing.bed.layout import GRID_ENGINE, PRESETS, Both, Shape
    from dataflow.testing.bed.links import Crossed
    from dataflow.testing.bed.processes import Process

__all__ = [
    "GRID_ENGINE",
    "PRESETS",
    "S3",
    "Bed",
    "BedError",
    "Both",
    "Crossed",
    "Daemon",
    "Disk",
    "Host",
    "Link",
    "Process",
    "Rule",
    "Shape",
]

#: Public name → module that defines it; the bed's small programs start quicker without the others.
__getattr__, __dir__ = lazy(
    __name__,
    {
        "GRID_ENGINE": "layout",
        "PRESETS": "layout",
        "S3": "bed",
        "Bed": "bed",
        "BedError": "commands",
        "Both": "layout",
        "Crossed": "links",
        "Daemon": "host",
        "Disk": "host",
        "Host": "host",
        "Link": "bed",
        "Process": "processes",
        "Rule": "gate",
        "Shape": "layout",
    },
)
