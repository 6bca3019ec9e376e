"""A notebook as one operation: what travels with it, and the command that runs it at a site.

Equal notebooks with equal parameters over equal data are the same operation with the same result:
outputs, numbers of executions, identities of cells and notes of earlier runs are left behind.
"""

from __future__ import annotations

import base64
import copy
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from dataflow.backends.programs import OURS
from dataflow.errors import ConfigError
from dataflow.execution.invitation import NOTEBOOK, PYTHON_FILE
from dataflow.graph.graph import Graph
from dataflow.graph.operation import shell

#: The file that a notebook becomes.
EXECUTED = "executed.ipynb"
#: Longest notebook (bytes, packed) that travels with an order.
MOST_NBYTES = 16 * 2**20

_WIDTH = 120
_END = "DATAFLOW_NOTEBOOK_END"


def bare(notebook: Mapping[str, Any]) -> dict[str, Any]:
    """A notebook without all that running it leaves in it; as nbformat 4 has it, with sorted keys."""
    found = copy.deepcopy(dict(notebook))
    metadata = dict(found.get("metadata", {}))
    metadata.pop("papermill", None)
    metadata.pop("widgets", None)
    found["metadata"] = metadata
    cells = []
    for number, cell in enumerate(found.get("cells", ())):
        kept = dict(cell)
        notes = dict(kept.get("metadata", {}))
        for name in ("papermill", "execution", "execution_status"):
            notes.pop(name, None)
        kept["metadata"] = notes
        if "id" in kept:
            kept["id"] = f"cell-{number}"
        if kept.get("cell_type") == "code":
            kept["outputs"], kept["execution_count"] = [], None
        cells.append(kept)
    found["cells"] = cells
    return found


def packed(notebook: Mapping[str, Any]) -> list[str]:
    """A notebook as lines of letters that no shell minds.

    Raises
    ------
    ConfigError
        If it is too long to travel with an order.
    """
    text = json.dumps(bare(notebook), sort_keys=True).encode()
    body = base64.b64encode(zlib.compress(text, 9)).decode()
    if len(body) > MOST_NBYTES:
        raise ConfigError(
            f"this notebook takes {len(body):,} bytes without its outputs, {MOST_NBYTES:,} may "
            "travel\nWhat you can do: take attachments and long texts out of its cells"
        )
    return [body[at : at + _WIDTH] for at in range(0, len(body), _WIDTH)]


def unpacked(text: str) -> dict[str, Any]:
    """What :func:`packed` made lines of.

    Raises
    ------
    ValueError
        If it is not that.
    """
    try:
        found = json.loads(zlib.decompress(base64.b64decode("".join(text.split()), validate=True)))
    except zlib.error as error:
        raise ValueError(f"this is no packed notebook: {error}") from None
    if not isinstance(found, dict):
        raise ValueError("this is no packed notebook")
    return found


def notebook_graph(
    notebook: Mapping[str, Any],
    datasets: Sequence[Graph],
    *,
    again: str = "",
    cores: int = 1,
    memory: str | int = 0,
    walltime: str | float = 0,
) -> Graph:
    """A graph of one step: the notebook, over the datasets that it is about.

    Parameters
    ----------
    notebook
        As nbformat 4 has it, with its parameters in it.
    datasets
        What decides where it runs.
    again
        A word of its own makes a run of its own, also if the same was run before.
    cores, memory, walltime
        As for :func:`dataflow.shell`.
    """
    slots = [f"dataset_{number}" for number in range(len(datasets))]
    words = [
        f"sh {OURS}/{PYTHON_FILE} -m dataflow.integrations.run_notebook {{output:{EXECUTED}}}",
        *(f"{{{slot}}}" for slot in slots),
        f"<<'{_END}'",
    ]
    lines = [" ".join(words), *packed(notebook), _END]
    if again:
        lines.append(f"# {json.dumps(again)}".replace("{", "{{").replace("}", "}}"))
    operation = shell(
        "\n".join(lines),
        name=NOTEBOOK,
        role=NOTEBOOK,
        cores=cores,
        memory=memory,
        walltime=walltime,
    )
    return operation(**dict(zip(slots, datasets, strict=True)))
