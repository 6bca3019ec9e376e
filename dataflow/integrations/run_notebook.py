"""What runs a notebook at a site: ``python -m dataflow.integrations.run_notebook OUTPUT < NOTEBOOK``.

A program as any other, in the directory of its run. It executes cell by cell, writes down each as
soon as it has ended, and carries what the kernel's session asks to the agent of the site.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dataflow.backends.programs import OURS
from dataflow.client.forward import Forward, inner_tls
from dataflow.execution.invitation import CELLS_FILE, DOOR_FILE, Invitation, read_invitation
from dataflow.integrations.notebook_step import unpacked
from dataflow.session.joined import ADDRESS, CREDENTIALS, DOOR

#: Exit status after a cell that failed, and after anything else.
CELL_FAILED, BROKEN = 1, 3

#: Seconds for a kernel to come up, imports from a cold network file system included.
START_SECONDS = 180


def main(arguments: Sequence[str], text: str) -> int:
    """Run a notebook in the present directory; the exit status.

    Parameters
    ----------
    arguments
        Where the executed notebook goes, then the paths of the datasets that it is about.
    text
        The notebook, packed.
    """
    output, here = Path(arguments[0]), Path.cwd() / OURS
    invitation = read_invitation(here / DOOR_FILE)
    return asyncio.run(_run(unpacked(text), output, here, invitation))


async def _run(document: dict[str, Any], output: Path, here: Path, invitation: Invitation) -> int:
    import nbformat

    notebook = nbformat.from_dict(document)
    door = Forward(lambda: _dial(invitation))
    try:
        port = await door.open()
        _prepare(here, port, invitation)
        return await _execute(notebook, output, here / CELLS_FILE)
    finally:
        await door.close()


async def _dial(invitation: Invitation) -> tuple[Any, Any]:
    context = inner_tls(invitation.certificate, invitation.key, server=False)
    return await asyncio.open_connection(invitation.host, invitation.port, ssl=context)


def _prepare(here: Path, port: int, invitation: Invitation) -> None:
    """What the kernel finds in its environment; and nothing of it in the account's home."""
    for name in ("DATAFLOW_SITE_FILE", "DATAFLOW_STATE_DIR"):
        os.environ.pop(name, None)
    os.environ |= {
        DOOR: str(here / DOOR_FILE),
        ADDRESS: f"http://127.0.0.1:{port}",
        f"DATAFLOW_CREDENTIALS_{CREDENTIALS.upper()}": json.dumps({"token": invitation.token}),
        "JUPYTER_RUNTIME_DIR": str(here / "jupyter"),
        "IPYTHONDIR": str(here / "ipython"),
    }


async def _execute(notebook: Any, output: Path, cells: Path) -> int:
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    last = 0
    with cells.open("w") as log:

        def told(what: str, cell: Any, number: int) -> None:
            log.write(json.dumps({"index": number, "event": what, "cell": cell}) + "\n")
            log.flush()

        def begun(cell: Any, cell_index: int) -> None:
            nonlocal last
            last = cell_index
            log.write(json.dumps({"index": cell_index, "event": "begun"}) + "\n")
            log.flush()

        def executed(cell: Any, cell_index: int, execute_reply: Any) -> None:
            failed = execute_reply["content"]["status"] == "error"
            told("failed" if failed else "executed", cell, cell_index)

        client = NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=None,
            startup_timeout=START_SECONDS,
            coalesce_streams=True,
            record_timing=False,  # equal runs are equal files
            on_cell_execute=begun,
            on_cell_executed=executed,
        )
        try:
            await client.async_execute()
        except CellExecutionError as error:
            # it goes into the journal, which others may read; the rest may show data
            print(f"{error.ename} in cell {last + 1}", file=sys.stderr)
            return CELL_FAILED
        except DeadKernelError as error:
            print(f"the kernel died: {error}", file=sys.stderr)
            return BROKEN
    with suppress(KeyError):
        del notebook["metadata"]["widgets"]
    nbformat.write(notebook, output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdin.read()))
