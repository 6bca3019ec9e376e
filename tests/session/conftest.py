"""One session over this machine alone, with a worker of its own, for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import dataflow as flow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def session(folder: Path) -> Iterator[flow.Session]:
    with flow.connect(state=folder / "state", user="anna") as session:
        np.save(folder / "run.npy", np.arange(1000))
        session.register(folder / "run.npy", tags={"system": "adk"})
        yield session
