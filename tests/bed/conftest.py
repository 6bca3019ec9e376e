"""The bed's own tests: all of them need it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("network", Path(__file__).with_name("network.py"))
assert _spec is not None
assert _spec.loader is not None
network = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("bed_network", network)
_spec.loader.exec_module(network)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.bed)
