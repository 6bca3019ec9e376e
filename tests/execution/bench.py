"""A site for tests: real stores in a directory, real data, and a SiteRunner on real workers."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dataflow.backends.base import Backend
from dataflow.datasets import Dataset, Replica
from dataflow.documents import from_json, to_json
from dataflow.errors import DataflowError, from_document
from dataflow.execution.code import CodeStore, pack
from dataflow.execution.events import (
    Broke,
    Ended,
    Errand,
    Report,
    SegmentOrder,
    Stored,
    TransferOrder,
)
from dataflow.execution.runner import SiteRunner
from dataflow.graph.graph import Graph, merge, of_dataset
from dataflow.graph.keys import source_key
from dataflow.sites import Site
from dataflow.storage.probe import probe
from dataflow.storage.read import open_data
from dataflow.storage.transfer import Source
from dataflow.stores import Store


class NoBackend:
    """A backend that must not be asked for anything."""

    dashboard = None
    programs = None

    async def start(self) -> None:
        raise AssertionError("no workers are needed here")

    client = start

    async def request(self, demand: object) -> None:
        raise AssertionError("no workers are needed here")

    release = request

    def leases(self) -> tuple[()]:
        return ()

    def trouble(self) -> str:
        return ""

    async def stop_worker(self, address: str) -> None:
        raise AssertionError("no workers are needed here")

    async def close(self) -> None:
        pass


class Bench:
    """One site `ams` with a store for data and one for results."""

    def __init__(
        self,
        directory: Path,
        backend: Backend,
        *,
        source_of: Callable[[Replica, Errand], Source] | None = None,
        results: Store | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory, self.backend = directory, backend
        self.data = directory / "data"
        self.data.mkdir(parents=True, exist_ok=True)
        self.stores = [
            Store(name="data", site="ams", url=f"file://{self.data}", purpose="data"),
            results or Store(name="results", site="ams", url=f"file://{directory}/results"),
        ]
        self.published: list[Any] = []
        self.replicas: dict[str, Replica] = {}
        self.datasets: dict[str, Dataset] = {}
        self._ids = itertools.count()
        self._attempts = itertools.count()
        self.code = CodeStore(directory / "code")

        def no_source(replica: Replica, errand: Errand) -> Source:
            raise AssertionError("nothing is copied here")

        self.runner = SiteRunner(
            site=Site(name="ams"),
            stores=lambda: self.stores,
            backend=backend,
            code=self.code,
            source_of=source_of or no_source,
            publish=self.published.extend,
            clock=clock,
            new_attempt=lambda: f"try{next(self._attempts)}",
        )

    # --- data ---------------------------------------------------------------------------------

    def register(self, path: Path, name: str = "") -> Graph:
        """Data in the data store as a graph."""
        url = f"file://{path}"
        found = probe(url)
        key = source_key(found.fingerprint)
        self.replicas[key] = Replica(
            key=key,
            site="ams",
            store="data",
            url=url,
            format=found.format,
            nbytes=found.nbytes,
            fingerprint=found.fingerprint,
        )
        self.datasets[key] = Dataset(
            id=key[:8],
            name=name or path.stem,
            key=key,
            kind=found.kind,
            extent=found.extent,
            site="ams",
        )
        return of_dataset(self.datasets[key])

    def array(self, values: Any, name: str = "a") -> Graph:
        """An array as a .npy file, registered."""
        path = self.data / f"{name}.npy"
        np.save(path, np.asarray(values))
        return self.register(path)

    def lines(self, name: str) -> Path:
        """A file that functions append to, to be counted."""
        path = self.directory / name
        path.touch()
        return path

    # --- orders -------------------------------------------------------------------------------

    def order(self, *graphs: Graph, outputs: Sequence[str] = (), **fields: Any) -> SegmentOrder:
        """All steps of these graphs as one segment."""
        graph = merge(graphs)
        for code, functions in graph.functions.items():
            self.code.put(code, pack(functions))
        order = SegmentOrder(
            **{
                "id": f"order{next(self._ids)}",
                "job": "job1",
                "plan": "plan1",
                "site": "ams",
                "steps": tuple(graph.steps.values()),
                "inputs": {key: self.replicas[key] for key in graph.sources},
                "datasets": {key: self.datasets[key] for key in graph.sources},
                "extents": {},
                "outputs": tuple(outputs) or graph.outputs,
                "results": graph.outputs,
                "tags": {"paper": "fig3"},
                "user": "ada",
                **fields,
            }
        )
        return from_json(SegmentOrder, to_json(order))  # as it comes over HTTP

    async def reports(self, order: SegmentOrder | TransferOrder, wait: float = 120) -> list[Report]:
        """All reports of an order, to the last."""
        await self.runner.start(order)
        found: list[Report] = []
        async with asyncio.timeout(wait):
            while not found or not isinstance(found[-1], Ended | Broke):
                found.extend(await self.runner.follow(order.id, len(found), 10))
        assert await self.runner.follow(order.id, len(found), 5) == ()
        return found

    async def stored(self, *graphs: Graph, **fields: Any) -> list[Stored]:
        """Run graphs that must end well."""
        reports = await self.reports(self.order(*graphs, **fields))
        assert isinstance(reports[-1], Ended), reports[-1]
        return [report for report in reports if isinstance(report, Stored)]

    async def value(self, graph: Graph) -> Any:
        """The result of a graph of one output."""
        (stored,) = await self.stored(graph)
        return value_of(stored)

    async def broke(self, *graphs: Graph, **fields: Any) -> tuple[DataflowError, str]:
        """Run graphs that must fail; the error and whose fault it is."""
        return failure_of(await self.reports(self.order(*graphs, **fields)))


def failure_of(reports: Sequence[Report]) -> tuple[DataflowError, str]:
    """The one failure among reports."""
    last = reports[-1]
    assert isinstance(last, Broke), last
    assert sum(isinstance(report, Broke) for report in reports) == 1
    return from_document(last.error), last.fault


def value_of(stored: Stored) -> Any:
    """What was stored."""
    return open_data(stored.replica, kind=stored.dataset.kind, lazy=False)


def moved(replica: Replica, **fields: Any) -> Replica:
    """The same replica at another site."""
    return replace(replica, **{"site": "delft", "store": "far", **fields})
