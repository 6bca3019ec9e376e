"""The bed's own tests: all of them need it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest


def _load(name: str) -> None:
    """Tests are imported without a package: what they share is known as ``bed_<name>``."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if sys.modules.setdefault(f"bed_{name}", module) is module:
        spec.loader.exec_module(module)


for shared in ("network", "sites", "agents"):
    _load(shared)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.bed)
