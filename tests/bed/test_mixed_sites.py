"""One notebook with SSH keys: Grid Engine at one site, plain processes at another, results in S3."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bed_network import until
from bed_sites import Sites

import dataflow as flow
from dataflow.execution.view import LedgerEntry
from dataflow.testing.bed import GRID_ENGINE, Bed


@flow.operation(kind="linear", output="same")
def doubled(x: Any) -> Any:
    return 2 * x


@flow.operation(kind="opaque", lazy=False)
def host_of(x: Any) -> Any:
    import platform

    import xarray as xr

    return xr.DataArray(platform.node())


@flow.operation(kind="opaque", lazy=False)
def sorted_rows(x: Any) -> Any:
    import numpy as np

    return x.copy(data=np.sort(np.asarray(x), axis=0))


@pytest.fixture
def bucket(bed: Bed) -> Any:
    client = bed.s3.client()
    name = f"results-{uuid.uuid4().hex[:8]}"
    client.create_bucket(Bucket=name)
    return client, name


@pytest.fixture
def sites(bed: Bed, bucket: Any, tmp_path: Path) -> Iterator[Sites]:
    backend = {"workers": 2, "memory": "500 MB", "sge": GRID_ENGINE}
    s3 = bed.s3.declared(bucket[1], name="results")
    data = {"name": "data", "url": "./data", "purpose": "data"}
    found = Sites(
        bed,
        tmp_path,
        ["hpc", "edge", "third"],
        more={
            "hpc": {"site": {"name": "hpc"}, "backend": backend},
            "third": {"stores": [data, s3]},
        },
        secrets={"third": yaml.safe_dump({"bucket": bed.s3.credentials})},
    )
    yield found
    found.end()
    until(lambda: not bed.host("hpc").run("qstat").stdout.strip())


def carried(bed: Bed) -> Counter[str]:
    """What TCP has carried over each link, both ways together."""
    found: Counter[str] = Counter()
    for link in bed.links:
        found[link.site] = link.payload.to + link.payload.from_
    return found


def until_quiet(bed: Bed) -> None:
    """Links are measured once, and sites that have met talk less after a while."""
    least = 5_000  # bytes a second

    def quiet() -> bool:
        before = carried(bed)
        time.sleep(2)
        return all(n < 2 * least for n in (carried(bed) - before).values())

    until(quiet, seconds=60)


def of_ledger(entries: Iterable[LedgerEntry], sites: Iterable[str]) -> Counter[str]:
    """What the ledger says that each link carried."""
    found: Counter[str] = Counter()
    for entry in entries:
        found.update({entry.source: entry.nbytes, entry.target: entry.nbytes})
    return Counter({site: found[site] for site in sites})


def test_a_mixed_graph_over_three_kinds_of_sites(sites: Sites, bucket: Any) -> None:
    hpc, edge = sites.values["hpc"], sites.values["edge"]
    client, name = bucket
    with sites.session() as session:
        where = session.submit(host_of(session["hpc"])).result(120)
        assert str(where.values) in ("hpc-n1", "hpc-n2"), "a batch job computed it"
        graph = sorted_rows(doubled(session["hpc"]) - session["edge"])
        until_quiet(sites.bed)
        plan = session.plan(graph, scope={"doubled": "hpc"}, result_at="third")
        assert {part.site for part in plan.segments} >= {"hpc"}
        before = carried(sites.bed)
        job = session.submit(plan)
        assert job.wait(180) == "done"
        found = carried(sites.bed) - before
        # The store of site "third" is no site, and talks to nobody else: what it is given and asked
        # for crosses its own link, and that of "third" as well.
        contents = client.list_objects_v2(Bucket=name)["Contents"]
        stored = sum(int(item["Size"]) for item in contents)
        assert stored <= found["cloud"] <= 2.2 * stored, "written once, and read at most once"
        expected = of_ledger(job.ledger(), sites.names)
        expected["third"] += found.pop("cloud")
        print(
            "carried, and by the ledger:", {name: (found[name], expected[name]) for name in found}
        )
        for site in sites.names:
            assert abs(found[site] - expected[site]) <= 0.02 * expected[site] + 10_000, site
        np.testing.assert_allclose(job.result(60), np.sort(2 * hpc - edge, axis=0))
        crossed = {(entry.source, entry.target) for entry in job.ledger()}
        assert ("visitor", "third") in crossed
    keys = [item["Key"] for item in contents]
    assert any(key.endswith("COMMIT.json") for key in keys), "the result lies in S3"
    assert sites.bed.host("third").run(f"du -s {sites.home}/results", check=False).returncode
