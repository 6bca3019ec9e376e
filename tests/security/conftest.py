"""A steward's agent as it is, with real data and agreements, to be attacked; no workers are started."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pandas as pd
import pytest

from dataflow.agent.app import create_app
from dataflow.agent.auth import TokenFile
from dataflow.agreements import Agreement, Relation, Request
from dataflow.catalog.entries import replica_id
from dataflow.config import Federation
from dataflow.datasets import Dataset, Extent, Lineage, Replica
from dataflow.documents import to_document
from dataflow.execution.events import SegmentOrder
from dataflow.graph.graph import Graph, of_dataset
from dataflow.participant import Participant, agreeing
from dataflow.participant.audit import verify
from dataflow.sites import Site
from dataflow.stores import Store

sys.path.insert(0, str(Path(__file__).parents[1] / "scenarios" / "services"))


#: What nobody who is refused may see, in any form.
SECRET = "Mevrouw-De-Wit-4711"
#: Who is in the agreements, and no business of the others.
OTHERS = "the-director"
BODY_LIMIT = 2**16

PEOPLE = {
    "anna": "user",
    "eve": "user",
    "reader": "reader",
    "surf": "site",
    "desk": "site",
    "root": "admin",
}
TOKENS = {name: f"token-of-{name}-0123456789abcdef" for name in PEOPLE}
GRANTED = Request(type="sqlDataRequest", archetypes={"vu": "computeToData"})
THROUGH = Request(type="sqlDataRequest", archetypes={"vu": "dataThroughTtp"})


def relation(id: str, *datasets: str, **fields: Any) -> Relation:
    shipped: dict[str, Any] = {
        "users": ("anna", OTHERS),
        "request_types": ("sqlDataRequest",),
        "archetypes": ("computeToData", "dataThroughTtp"),
        "compute_providers": ("surf",),
        "purposes": ("study",),
    }
    return Relation(id=id, datasets=datasets, **{**shipped, **fields})


class Target:
    """One steward, ``vu``, behind its agent."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.loop = folder, asyncio.Runner()
        self.data = folder / "data"
        self.data.mkdir()
        (folder / "results").mkdir()
        stores = [
            Store(name="data", site="vu", url=self.data.as_uri(), purpose="data"),
            Store(name="results", site="vu", url=(folder / "results").as_uri(), purpose="results"),
        ]
        federation = Federation(
            sites=(Site(name="vu", trust="steward"),),
            me="vu",
            stores=tuple(stores),
            state=folder / "state",
            operations=tuple(
                f"wages:{name}" for name in ("query", "anonymize", "average", "average_of_all")
            ),
        )
        self.participant = Participant(federation, address="http://vu.test")
        self.records, self.audit = self.participant.records, self.participant.audit
        self.records.add(self.participant.site, *stores)
        agreeing.offer(self.records, self.participant._installed)
        self.datasets: dict[str, Dataset] = {}
        for name in ("wageGap", "forced", "floor", "hidden", "alike", "expired", "other"):
            self.register(name)
        # A tree with a way out of it.
        tree = self.data / "tree"
        tree.mkdir()
        (tree / "inside.txt").write_text(SECRET)
        (tree / "out.txt").symlink_to(folder / "state" / "catalog.db")
        self.tree = self._replica("tree", tree.as_uri(), "files", "k-tree")
        self.records.add(
            Dataset(
                id="d-tree",
                name="tree",
                key="k-tree",
                kind="files",
                extent=Extent(nbytes=1),
                site="vu",
            ),
            self.tree,
            self._elsewhere(),
        )
        self.participant.agree(
            Agreement(
                name="wages",
                site="vu",
                relations=(
                    relation("study", "wageGap"),
                    relation("forced", "forced", forced={"*": ("sql-anonymize",)}),
                    relation("floor", "floor", row_floor=100),
                    relation(
                        "hidden",
                        "hidden",
                        hidden=("Naam",),
                        archetypes=("fetch", "computeToData", "dataThroughTtp"),
                    ),
                    relation(
                        "alike",
                        "alike",
                        anonymity=2,
                        among=("Geslacht", "Gebdat"),
                        archetypes=("fetch", "computeToData"),
                    ),
                    relation("expired", "expired", valid_until=1.0),
                    relation("tree", "tree", archetypes=("fetch",)),
                ),
            ),
            "root",
        )
        self.result = self._result()
        self.tokens = folder / "tokens"
        self.tokens.touch(mode=0o600)
        self.tokens.write_text(
            "".join(f"{TOKENS[name]} {name} {role}\n" for name, role in PEOPLE.items())
        )
        self.app = create_app(self.participant, TokenFile(self.tokens, "vu"), body_limit=BODY_LIMIT)

    def register(self, name: str) -> None:
        path = self.data / f"{name}.parquet"
        pd.DataFrame(
            {"Naam": [SECRET, name], "Geslacht": ["V", "M"], "Salschal": [11, 12], "Gebdat": 1960}
        ).to_parquet(path)
        self.datasets[name] = self.loop.run(
            self.participant.register(path.as_uri(), name=name, owner="")
        )

    def _replica(self, name: str, url: str, format: Any, key: str, site: str = "vu") -> Replica:
        return Replica(key=key, site=site, store="data", url=url, format=format, nbytes=1)

    def _elsewhere(self) -> Replica:
        """A copy at another site, of which we only know."""
        self.foreign = self._replica("far", "file:///far.parquet", "parquet", "k-far", "uva")
        return self.foreign

    def _result(self) -> Replica:
        """A mean that anna asked for, as the site keeps it."""
        path = self.data / "result.parquet"
        pd.DataFrame({"mean": [11.5]}).to_parquet(path)
        origin = self.datasets["wageGap"].key
        lineage = Lineage(
            operation="mean", version="1", kind="opaque", inputs=(origin,), origins=(origin,)
        )
        result = Dataset(
            id="d-result",
            name="mean",
            key="k-result",
            kind="table",
            extent=Extent(nbytes=1),
            site="vu",
            owner="anna",
            lineage=lineage,
        )
        replica = self._replica("result", path.as_uri(), "parquet", "k-result")
        self.records.add(result, replica)
        return replica

    def source(self, name: str) -> Graph:
        return of_dataset(self.datasets[name])

    def copy(self, name: str) -> Replica:
        (found,) = self.records.replicas(self.datasets[name].key)
        return found

    def id(self, name: str) -> str:
        return replica_id(self.copy(name))

    def order(self, graph: Graph, request: Request = GRANTED, **changes: Any) -> SegmentOrder:
        """An order for one graph over registered data, as a driver would send it."""
        request = request if request.purpose else replace(request, purpose="study")
        known = {dataset.key: dataset for dataset in graph.sources.values()}
        order = SegmentOrder(
            id="attack",
            job="j1",
            plan="p1",
            site="vu",
            steps=tuple(graph.steps.values()),
            inputs={key: self.copy(dataset.name) for key, dataset in known.items()},
            datasets=known,
            extents={},
            outputs=graph.outputs,
            user="anna",
            request=request,
        )
        return replace(order, **changes)

    def send(
        self, method: str, path: str, who: str | None, raw: bool = False, **options: Any
    ) -> httpx2.Response:
        headers = dict(options.pop("headers", {}))
        if who is not None:
            headers.setdefault("authorization", f"Bearer {TOKENS[who]}")

        async def ask() -> httpx2.Response:
            transport = httpx2.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx2.AsyncClient(transport=transport, base_url="http://vu.test") as http:
                return await http.request(method, path, headers=headers, **options)

        return self.loop.run(ask())

    def give(self, order: Any, who: str = "anna") -> httpx2.Response:
        return self.send("POST", "/v1/orders", who, json={"order": to_document(order)})

    def refusals(self) -> list[dict[str, Any]]:
        return [entry for entry in self.audit.entries() if entry.get("allowed") is False]

    def close(self) -> None:
        assert not verify(self.audit.path).broken
        self.loop.run(self.participant.close())
        self.loop.close()


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    site = Target(tmp_path_factory.mktemp("steward"))
    yield site
    site.close()
