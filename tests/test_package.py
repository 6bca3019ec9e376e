"""The package as a user meets it: names on first use, a version, a command line."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import dataflow

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", sorted(set(dataflow.__all__) - {"__version__"}))
def test_public_names(name: str) -> None:
    value = getattr(dataflow, name)
    assert value.__name__ == name
    assert vars(dataflow)[name] is value, "found directly the next time"


def test_names_are_loaded_on_first_use() -> None:
    program = """
import sys, dataflow
assert set(dataflow.__all__) <= set(dir(dataflow))
loaded = {name for name in sys.modules if name.startswith("dataflow.")}
assert loaded == {"dataflow._lazy"}, loaded
dataflow.DataflowError
loaded = {name for name in sys.modules if name.startswith("dataflow.")}
assert loaded == {"dataflow._lazy", "dataflow.errors"}, loaded
dataflow.operation, dataflow.Graph, dataflow.shell
heavy = {"numpy", "xarray", "dask", "pydantic", "distributed"} & set(sys.modules)
assert not heavy, heavy
"""
    done = python("-c", program)
    assert done.returncode == 0, done.stderr


def test_star_import() -> None:
    names: dict[str, object] = {}
    exec("from dataflow import *", names)
    assert set(dataflow.__all__) <= set(names)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'dataflow' has no attribute 'conect'"):
        dataflow.conect  # type: ignore[attr-defined]
    with pytest.raises(ImportError):
        exec("from dataflow import conect")


def test_version() -> None:
    declared = tomllib.loads(PROJECT.read_text())["project"]
    assert dataflow.__version__ == version(declared["name"]) == declared["version"]


def test_command_line() -> None:
    done = python("-m", "dataflow", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"dataflow {dataflow.__version__}\n",
        "",
    )
    assert "Usage: " in python("-m", "dataflow").stdout + python("-m", "dataflow").stderr


def test_importing_the_command_line_runs_nothing() -> None:
    done = python("-c", "import dataflow.__main__")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


#: What takes long to load; nobody needs it before a connection stands.
HEAVY = "{'numpy', 'zarr', 'xarray', 'pandas', 'dask', 'distributed', 'pyarrow', 'h5py', 'fsspec'}"


@pytest.mark.parametrize(
    ("imports", "unwanted"),
    [
        ("dataflow.session.session, asyncssh", HEAVY),
        ("dataflow.cli.app, dataflow.cli.agent, dataflow.agent.detached", HEAVY + " | {'fastapi'}"),
        (
            "dataflow.cli.detach, dataflow.cli.agent, dataflow.agent.detached",
            HEAVY + " | {'typer', 'fastapi'}",
        ),
        (
            "dataflow.agent.lean as l\n"
            "with l.without(*l.UNUSED): import dataflow.agent.serve, dataflow.participant\n"
            "assert not set(l.UNUSED) & set(sys.modules)",
            HEAVY + " | {'rich', 'pydantic.v1'}",
        ),
    ],
    ids=["session", "command line", "detach", "agent"],
)
def test_nobody_waits_for_what_computes(imports: str, unwanted: str) -> None:
    code = (
        f"import sys, {imports}\n"
        f"heavy = ({unwanted}) & set(sys.modules)\n"
        "sys.exit(f'loaded: {sorted(heavy)}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
