"""Wheels of what runs here: an installer takes them, and gets the same files."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution, version
from pathlib import Path
from zipfile import ZipFile

from dataflow.client.wheels import OURS, closure, make_wheel


def test_all_that_is_needed() -> None:
    names = closure(OURS, ["service"])
    assert {OURS, "fastapi", "pydantic-core", "numpy", "uvicorn", "click"} <= set(names)
    assert "pytest" not in names
    assert "asyncssh" not in names
    assert "asyncssh" in closure(OURS, ["service", "ssh"])


def test_our_own_as_it_runs(tmp_path: Path) -> None:
    path = make_wheel(OURS, tmp_path)
    assert path.name == f"jupyter_dataflow-{version(OURS)}-py3-none-any.whl"
    with ZipFile(path) as packed:
        names = packed.namelist()
        assert "dataflow/client/wheels.py" in names
        assert "dataflow/py.typed" in names
        assert not [name for name in names if "__pycache__" in name or name.endswith(".pth")]
    assert make_wheel(OURS, tmp_path) == path


def test_an_installer_takes_what_was_made(tmp_path: Path) -> None:
    wheels = [make_wheel(name, tmp_path) for name in ("PyYAML", "psutil", "click")]
    there = tmp_path / "there"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", str(there), *map(str, wheels)], check=True, timeout=120)
    for name in ("PyYAML", "psutil", "click"):
        for entry in distribution(name).files or ():
            if entry.suffix in (".py", ".so"):
                assert (there / entry).read_bytes() == Path(str(entry.locate())).read_bytes()
