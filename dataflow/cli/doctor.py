"""``dataflow doctor``: a line for each check, and what to do below those that failed."""

from __future__ import annotations

import json as json_library
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from dataflow.cli.tables import busy, console

if TYPE_CHECKING:
    from dataflow.session.doctor.checks import Check

_WORDS = {"ok": ("ok", "green"), "warning": ("warn", "yellow"), "failed": ("FAIL", "bold red")}

#: Signs in texts of ours that not every terminal or mail can show.
_PLAIN = str.maketrans({"→": "->", "…": "...", "×": "x", "–": "-", "’": "'"})

_INDENT = " " * 10


def run(path: Path | None, *, json: bool) -> None:
    """Examine, print, and leave with 1 if something has failed."""
    from dataflow.session.doctor.checks import document
    from dataflow.session.doctor.examine import examine

    with busy("examining"):
        checks = examine(path)
    said = document(checks)
    if json:
        print(json_library.dumps(said, indent=2))
    else:
        terminal = console()
        for line in lines(checks):
            terminal.print(line, soft_wrap=True, highlight=False)
    if not said["ok"]:
        raise typer.Exit(1)


def lines(checks: Sequence[Check]) -> Iterator[Text]:
    """What people read: grouped by area, plain ASCII, colours apart."""
    width = max((len(check.what) for check in checks), default=0)
    for area, group in groupby(checks, key=lambda check: check.area):
        yield Text(_ascii(area), style="bold")
        for check in group:
            word, style = _WORDS[check.status]
            first, *more = _ascii(check.said).splitlines() or [""]
            yield Text.assemble(
                "  ", (f"{word:<4}", style), "  ", f"{_ascii(check.what):<{width}}  {first}"
            )
            for text in more:
                yield Text(_INDENT + text)
            for text in _ascii(check.advice).splitlines():
                yield Text(f"{_INDENT}{text}", style="italic")
    failed = sum(check.status == "failed" for check in checks)
    warned = sum(check.status == "warning" for check in checks)
    yield Text(
        f"{len(checks)} check{'' if len(checks) == 1 else 's'}, {failed} failed, {warned} to look at"
    )


def _ascii(text: str) -> str:
    return text.translate(_PLAIN).encode("ascii", "backslashreplace").decode()
