"""Real site agents for whole stories, and witnesses that are no part of the toolkit.

The federation lives as long as the test run. What a test breaks (cut wires, dead agents) is
mended after it. Evidence comes from wires (bytes), processes (who lives, how much memory), files
in the sites' folders, and from operations that leave a mark where they run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from dataflow.testing.federation import Federation, SiteSettings

#: Federations that all stories share.
_running: list[Federation] = []

SITES = ("p0", "p1", "p2", "p3", "p4", "p5")


@pytest.fixture(scope="session")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Six sites, one worker each; all know all, and the roads between them."""
    folder = tmp_path_factory.mktemp("federation")
    sites = {name: SiteSettings(memory="1 GB") for name in SITES}
    users = {"anna": "user", "bob": "user"}
    with Federation(folder, sites, users=users, ready_within=60) as federation:
        with flow.connect(federation.sites_file, state=folder / "first") as session:
            federation.wait_measured(session)
        _running.append(federation)
        yield federation


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Six idle agents would take half of a processor until the last test of all."""
    folder = Path(__file__).parent
    for running in _running if nextitem is None or folder not in nextitem.path.parents else []:
        running.stop()


@pytest.fixture(autouse=True)
def mended(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test the federation is whole again."""
    yield
    if "federation" in request.fixturenames:
        request.getfixturevalue("federation").mend()


@dataclass(frozen=True)
class Trace:
    """One run of an operation: what, where, in which process, when it began."""

    word: str
    site: str
    pid: int
    time: float


class Witness:
    """A folder in which operations leave a file each time they run.

    An operation gets the folder as a parameter (which also makes its key this test's own) and
    calls the few lines of ``trace`` in its module: the site's name is taken from the environment
    that the federation gave to its processes, not from the toolkit.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def __str__(self) -> str:
        return str(self.folder)

    def runs(self, word: str) -> list[Trace]:
        found = []
        for path in self.folder.glob(f"{word}@*"):
            name, _, rest = path.name.partition("@")
            site, pid, nanoseconds = rest.split("+")
            found.append(Trace(name, site, int(pid), int(nanoseconds) / 1e9))
        return sorted(found, key=lambda trace: trace.time)

    def wait(self, word: str, *, count: int = 1, seconds: float = 30.0) -> list[Trace]:
        limit = time.monotonic() + seconds
        while len(found := self.runs(word)) < count:
            assert time.monotonic() < limit, f"{word} began {len(found)} of {count} times"
            time.sleep(0.02)
        return found


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return Witness(tmp_path / "witness")


@pytest.fixture
def at(federation: Federation, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """``at("p2")``: a session of somebody who has been told of p2 only; ``at()``: of all."""
    with ExitStack() as stack:
        number = 0

        def connect(*sites: str, user: str = "") -> Any:
            nonlocal number
            number += 1
            file = federation.sites_file_of(user, knows=sites or None)
            return stack.enter_context(flow.connect(file, state=tmp_path / f"me{number}"))

        yield connect


@pytest.fixture
def put(federation: Federation, request: pytest.FixtureRequest) -> Callable[..., str]:
    """``put(session, "p1", array)``: store an array at a site, register it, give its name."""

    def store(
        session: Any,
        site: str,
        array: np.ndarray,
        name: str = "",
        *,
        format: str = "npy",
        chunk: int | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        name = f"{request.node.name}-{name or site}".replace("[", "-").replace("]", "")
        path = write_array(federation.data(site) / f"{name}.{format}", array, chunk)
        session.register(path.as_uri(), name=name, site=site, tags=dict(tags or {}))
        return name

    return store


def write_array(path: Path, array: np.ndarray, chunk: int | None = None) -> Path:
    if path.suffix == ".npy":
        np.save(path, array)
        return path
    import zarr

    chunks = (chunk or min(len(array), 1 << 20), *array.shape[1:])
    names = ["row", "column", "layer"][: array.ndim]
    group = zarr.create_group(path)
    target = group.create_array(
        "values", shape=array.shape, dtype=array.dtype, chunks=chunks, dimension_names=names
    )
    target[...] = array
    return path


def committed(federation: Federation, key: str) -> list[str]:
    """Sites in whose store a finished result of this key lies, by looking at the files."""
    from dataflow.storage.results import find_result

    return [
        site
        for site in federation.sites
        if find_result(federation.results(site).as_uri(), key) is not None
    ]


def pid_lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
