"""What all commands share: their exit codes, what is said before their names, and the session."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dataflow.session import Session

FAILED, USAGE, UNREACHABLE, REFUSED = 1, 2, 3, 4

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", "-t", metavar="NAME=VALUE", help="May be repeated.")
]


class Globals:
    """What is said before the command's name."""

    sites: Path | None = None
    debug: bool = False


def session() -> Session:
    """A session over the site file that was named."""
    from dataflow.cli import tables

    with tables.busy("connecting"):
        from dataflow.session import connect

        return connect(Globals.sites, prepare=False)


def site_file() -> Path | None:
    """The site file that was named."""
    return Globals.sites


def pairs(texts: Sequence[str] | None) -> dict[str, str]:
    """Names and values out of ``NAME=VALUE``."""
    found = {}
    for text in texts or ():
        name, mark, value = text.partition("=")
        if not mark or not name:
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE")
        found[name] = value
    return found
