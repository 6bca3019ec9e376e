"""``dataflow demo``: the demonstration of the examples, out of a checkout or an installed package."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from dataflow.errors import ConfigError

PACKAGE = Path(__file__).parents[1]
#: Where the demonstration may lie: beside the package, in a checkout and in a wheel.
PLACES = (PACKAGE.parent / "examples", PACKAGE.parent / "dataflow_examples")
#: What it needs besides the package: module → extra.
NEEDS = {
    "MDAnalysisTests": "demo",
    "matplotlib": "demo",
    "h5py": "hdf",
    "h5netcdf": "hdf",
    "fastapi": "service",
    "uvicorn": "service",
}


def program(places: Sequence[Path] = PLACES) -> Path:
    """The file of the demonstration.

    Raises
    ------
    ConfigError
        If this installation has none.
    """
    for place in places:
        found = place / "demo.py"
        if found.is_file() and (place / "three_sites.py").is_file():
            return found
    raise ConfigError(
        "this installation came without the demonstration. What you can do: install the wheel, "
        "or run `make demo` in a checkout"
    )


def missing() -> dict[str, str]:
    """Modules that the demonstration needs and that are not installed, each with its extra."""
    return {module: extra for module, extra in NEEDS.items() if find_spec(module) is None}


def run(out: Path, megabits: float) -> int:
    """Run it in a process of its own; its exit code.

    Raises
    ------
    ConfigError
        If something is not installed that it needs: before anything runs.
    """
    file, lacks = program(), missing()
    if lacks:
        extras = ",".join(sorted({"all", *lacks.values()} - {"hdf", "service"}))
        raise ConfigError(
            f"the demonstration needs {', '.join(sorted(lacks))}. "
            f"What you can do: pip install 'jupyter-dataflow[{extras}]'"
        )
    command = [sys.executable, str(file), "--out", str(out), "--megabits", str(megabits)]
    environment = {
        name: value for name, value in os.environ.items() if name != "DATAFLOW_SITE_FILE"
    }
    return subprocess.run(command, env=environment, check=False).returncode
