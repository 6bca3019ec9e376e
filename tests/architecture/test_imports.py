"""Who imports whom: the contracts, and what the contracts cannot see."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dataflow

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "dataflow"


def contract(name: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    return parser[f"importlinter:contract:{name}"]


#: Libraries that a deciding part may not load: the contract and the test share one list.
HEAVY = contract("pure-libraries")["forbidden_modules"].split()

#: The deciding parts. The start of a process is their proof: see `test_pure_loads_no_io`.
PURE = (
    "dataflow.agreements",
    "dataflow.catalog.exchange",
    "dataflow.catalog.snapshot",
    "dataflow.datasets",
    "dataflow.execution.crate",
    "dataflow.execution.events",
    "dataflow.execution.orders",
    "dataflow.execution.pace",
    "dataflow.execution.programs",
    "dataflow.execution.replies",
    "dataflow.execution.series",
    "dataflow.execution.state",
    "dataflow.execution.tally",
    "dataflow.execution.units",
    "dataflow.graph",
    "dataflow.placement",
    "dataflow.policy",
    "dataflow.sites",
    "dataflow.stores",
)


def lint(directory: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(cache_dir=None, no_cache=True, no_logo=True))"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=directory, capture_output=True, text=True
    )


def in_fresh_interpreter(program: str) -> list[str]:
    """Lines that ``program`` prints when nothing else has been imported."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def modules_below(name: str) -> list[str]:
    """``name`` and every module inside it, read from the files."""
    path = ROOT.joinpath(*name.split("."))
    if path.is_dir():
        files = sorted(path.rglob("*.py"))
        dotted = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
        return [module.removesuffix(".__init__") for module in dotted]
    assert path.with_suffix(".py").exists(), f"{name} is listed as pure, but does not exist"
    return [name]


def is_there(name: str) -> bool:
    return (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()


def test_contracts_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("path", "line", "broken"),
    [
        ("placement/__init__.py", "import obstore", "no I/O library"),
        ("policy/__init__.py", "from dataflow.catalog import __name__", "point down only"),
        ("sites.py", "from dataflow.agent import __name__", "point down only"),
        ("graph/__init__.py", "from dataflow.storage import __name__", "do not see those who act"),
        ("stores.py", "import dataflow", "point down only"),
        ("stores.py", "def lazily() -> None:\n    import fsspec", "no I/O library"),
        ("helpers.py", "", "point down only"),
    ],
)
def test_contracts_catch_sabotage(tmp_path: Path, path: str, line: str, broken: str) -> None:
    shutil.copytree(PACKAGE, tmp_path / "dataflow", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", tmp_path)
    with (tmp_path / "dataflow" / path).open("a") as file:
        file.write(f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert broken in done.stdout.partition("Broken contracts")[2], done.stdout


def test_contracts_keep_up() -> None:
    """What the contracts leave open because it was not there is closed when it is."""
    layers = contract("layers")["layers"]
    optional = [name for name in re.findall(r"\((\w+)\)", layers) if is_there(name)]
    assert not optional, f"there now: take the parentheses off in .importlinter: {optional}"
    neighbours = contract("pure-neighbours")["forbidden_modules"].split()
    missing = [
        name
        for name in ("backends", "client", "config", "storage")
        if is_there(name) and f"dataflow.{name}" not in neighbours
    ]
    assert not missing, f"there now: name them in the contract pure-neighbours: {missing}"


@pytest.mark.parametrize("name", PURE)
def test_pure_loads_no_io(name: str) -> None:
    """Importing a module also runs its package root, which the contracts overlook."""
    imports = "\n".join(f"import {module}" for module in modules_below(name))
    loaded = in_fresh_interpreter(f"import sys\n{imports}\nprint(*sys.modules)")
    assert not set(HEAVY) & set(loaded)


def test_import_dataflow_loads_next_to_nothing() -> None:
    before = set(in_fresh_interpreter("import sys; print(*sys.modules)"))
    after = set(in_fresh_interpreter("import sys, dataflow; print(*sys.modules)"))
    ours = {name for name in after - before if name.partition(".")[0] == "dataflow"}
    foreign = {
        name
        for name in after - before
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "dataflow"}
    }
    assert ours == {"dataflow", "dataflow._lazy"}
    assert not foreign


def test_command_line_is_not_needed_for_the_library() -> None:
    loaded = in_fresh_interpreter("import sys, dataflow; dir(dataflow); print(*sys.modules)")
    assert not {"typer", "rich", "importlib.metadata"} & set(loaded)


@pytest.mark.parametrize("name", dataflow.__all__)
def test_public_names_exist(name: str) -> None:
    assert getattr(dataflow, name) is not None
    assert name in dir(dataflow)


def test_public_names_are_listed_once() -> None:
    assert sorted(dataflow.__all__) == list(dataflow.__all__)


def test_unknown_public_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        dataflow.nonsense
