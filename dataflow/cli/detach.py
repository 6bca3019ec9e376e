"""``dataflow agent --detach`` as a connection by SSH asks for it, without the rest of the command line.

Somebody waits, so nothing is imported that is not used, and no garbage is looked for meanwhile:
what imports make stays.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

_BEGINS = ("agent", "--detach")
_KNOWN = ("--config", "--state")


def detach(arguments: Sequence[str]) -> bool:
    """Do it, if it is exactly that: an agent runs, and where it answers was printed.

    Anything else is left to the command line proper.
    """
    if tuple(arguments[:2]) != _BEGINS:
        return False
    said = dict(_pair(word) for word in arguments[2:])
    if not set(said) <= set(_KNOWN) or not said.get("--config") or "" in said.values():
        return False
    gc.disable()  # until it serves
    from dataflow.errors import DataflowError

    try:
        from dataflow.cli.agent import run

        run(
            Path(said["--config"]),
            host=None,
            port=None,
            socket=None,
            state=Path(said["--state"]) if "--state" in said else None,
            tokens=None,
            debug=False,
            detach=True,
        )
    except DataflowError as error:
        from dataflow.cli.app import leave

        leave(error)
    return True


def _pair(word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    return name, value
