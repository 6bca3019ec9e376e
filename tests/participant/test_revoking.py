"""Revoking: rows that were selected for somebody go when his relation does, and nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np

from dataflow.agreements import Agreement
from dataflow.config import Federation
from dataflow.datasets import Dataset, Extent, Lineage
from dataflow.participant import Participant
from dataflow.sites import Site
from dataflow.storage.manifest import replica_of
from dataflow.storage.publish import find_result
from dataflow.storage.results import write_result
from dataflow.stores import Store
from tests.policy.examples import ANNA, relation, wages


def test_rows_go_with_the_relation_and_results_stay(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    root = (tmp_path / "results").as_uri()
    store = Store(name="results", site="vu", url=root, purpose="results")
    federation = Federation(
        sites=(Site(name="vu", trust="steward"),), me="vu", stores=(store,), state=tmp_path / "s"
    )
    source = wages("vu")

    async def story() -> None:
        participant = Participant(federation)
        records = participant.records
        records.add(participant.site, store, source)

        def keep(key: str, **lineage: Any) -> None:
            manifest = write_result(np.arange(3.0), root=root, key=key, attempt="a", provenance={})
            made = Lineage(
                operation="query", version="1", kind="opaque", inputs=(source.key,), **lineage
            )
            result = Dataset(
                id=key,
                name=key[:4],
                key=key,
                kind="array",
                extent=Extent(nbytes=24),
                site="vu",
                owner=ANNA,
                lineage=made,
            )
            records.add(result, replica_of(manifest, "vu", "results"))

        rows, mean, temporary = "aa" * 16, "bb" * 16, "cc" * 16
        keep(rows, origins=(source.key,), rows={source.key: 0})
        keep(mean, origins=(source.key,))
        keep(temporary, origins=(source.key,), temporary=True, job="j")

        def there() -> set[str]:
            listed = {replica.key for replica in records.replicas()}
            stored = {key for key in (rows, mean, temporary) if find_result(root, key) is not None}
            assert listed == stored
            return listed

        try:
            participant.agree(
                Agreement(name="wages", site="vu", relations=(relation(),)), by="root"
            )
            await participant._revoking.look()
            assert there() == {rows, mean, temporary}
            participant.withdraw("wages", by="root")
            participant._revoking._next_look = 0.0  # the last look has just been
            await participant._revoking.look()
            assert there() == {mean}
            removed = [e for e in participant.audit.entries() if e["what"] == "removed"]
            assert {entry["object"] for entry in removed} == {rows, temporary}
            assert all("nothing grants" in entry["clause"] for entry in removed)
        finally:
            await participant.close()

    asyncio.run(story())
