"""The bed's own tests: all of them need it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dataflow.testing.bed import Bed

if TYPE_CHECKING:
    from bed_agents import Agents


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


@pytest.fixture
def agents(bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agents]:
    """Agents of four sites over links without limits; ended with all that they began."""
    from bed_agents import Agents

    bed.preset("unshaped")
    found = Agents(bed, tmp_path, ["edge", "cloud", "third", "hpc"])
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    try:
        found.begin()
        yield found
    finally:
        bed.restore()
        found.end()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.bed)
