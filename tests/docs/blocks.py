"""Blocks of code in the manual, each with a word on how it is run.

Above every block stands a comment that readers do not see, ``<!-- run: HOW -->``. HOW is one of

- ``session``: Python, in one namespace with the page's other blocks, against a real federation;
- ``file NAME``: a file of that name, which must be right, and is there for what follows;
- ``part of KEY``: a section of a site file, completed to one that must be right;
- ``shell``, or ``shell until TEXT``: console lines, run one after the other in one directory; what
  serves is ended once it has said TEXT;
- ``bed HOST …``: the same on a host of the test bed (``tests/bed/test_manual.py``);
- ``make``: targets of the Makefile, which ``.ci/run`` runs;
- ``elsewhere PATH``: what cannot run as it stands here; PATH is the test that runs the same;
- ``shown``: what nobody runs: an admonition, a line of another program's file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

PAGES = (
    "README.md",
    "docs/using.md",
    "docs/notebook.md",
    "docs/coming-from.md",
    "docs/notebooks.md",
    "docs/backends-ssh.md",
    "docs/backends-sge.md",
    "docs/backends-kubernetes.md",
    "hpc/ssh/README.md",
    "hpc/sge/README.md",
    "hpc/kubernetes/README.md",
    "hpc/testbed/README.md",
)

_MARK = re.compile(r"\s*<!-- run: (?P<how>.+?) -->\s*$")
_FENCE = re.compile(r"^(?P<indent>\s*)```(?P<language>\S*)")


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    how: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def kind(self) -> str:
        return self.how.partition(" ")[0]

    @property
    def rest(self) -> str:
        return self.how.partition(" ")[2]

    @property
    def commands(self) -> list[str]:
        lines = self.text.splitlines()
        return [line[2:].partition("  #")[0].rstrip() for line in lines if line.startswith("$ ")]


def blocks_of(page: str) -> list[Block]:
    """All blocks of a page; ``how`` is empty where nothing is said."""
    found: list[Block] = []
    begun: tuple[int, str, str] | None = None
    inside: list[str] = []
    above = ""
    for number, line in enumerate((ROOT / page).read_text().splitlines(), start=1):
        fence = _FENCE.match(line)
        if fence and begun is None:
            mark = _MARK.match(above)
            begun, inside = (number, fence["language"], mark["how"] if mark else ""), []
        elif fence and begun is not None:
            found.append(Block(page, *begun, "\n".join(inside) + "\n"))
            begun = None
        elif begun is not None:
            inside.append(line)
        if line.strip():
            above = line
    return found
