"""A test that failed is tried again in a world of its own (``pytest --reruns``, as in CI)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

STORIES = """
import pytest

worlds = []

@pytest.fixture(scope="session")
def earth():
    worlds.append("earth")
    yield
    worlds.append("earth is gone")

@pytest.fixture(scope="module")
def world(earth):
    worlds.append("world")
    yield worlds.count("world")
    worlds.append("world is gone")

def test_before(world):
    assert world == 1

def test_unsteady(world):
    assert world == 2

def test_after(world):
    assert world == 2
    assert worlds == ["earth", "world", "world is gone", "earth is gone", "earth", "world"]
"""


def test_shared_fixtures_are_made_anew(tmp_path: Path) -> None:
    stories = tmp_path / "test_stories.py"
    stories.write_text(STORIES)
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider"]
    command += ["-c", os.devnull, "--rootdir", str(tmp_path), "--reruns", "1", str(stories)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    ended = subprocess.run(
        command,
        env=environment | {"PYTHONPATH": str(Path(__file__).parent)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "3 passed, 1 rerun" in ended.stdout, ended.stdout + ended.stderr
