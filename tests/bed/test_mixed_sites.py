"""One notebook with SSH keys: Grid Engine at one site, plain processes at another, results in S3."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import botocore.session
import numpy as np
import pytest
import yaml
from bed_network import until
from bed_sites import Sites

import dataflow as flow
from dataflow.execution.view import LedgerEntry
from dataflow.testing.bed import Bed

GRID_ENGINE = {
    "queue": "flow.q",
    "interface": "eth0",
    "scheduler_interface": "lan0",
    "walltime": "10 min",
    "idle": "2 s",
    "look": "1 s",
    "worth": "10 s",
    "orphaned": "15 s",
}


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
    client = botocore.session.Session().create_client(
        "s3",
        region_name=bed.s3.region,
        endpoint_url=bed.s3.endpoint,
        aws_access_key_id=bed.s3.access_key,
        aws_secret_access_key=bed.s3.secret_key,
    )
    name = f"results-{uuid.uuid4().hex[:8]}"
    client.create_bucket(Bucket=name)
    return client, name


@pytest.fixture
def sites(bed: Bed, bucket: Any, tmp_path: Path) -> Iterator[Sites]:
    backend = {"workers": 2, "memory": "500 MB", "sge": GRID_ENGINE}
    s3 = {
        "name": "results",
        "url": f"s3://{bucket[1]}/flow",
        "credentials": "bucket",
        "options": {"endpoint": bed.s3.endpoint, "region": bed.s3.region, "path_style": "true"},
    }
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


class Roads:
    """What TCP carried over each link and way since the last look, and what it carries when idle."""

    def __init__(self, bed: Bed, seconds: float) -> None:
        self.bed = bed
        self.again()
        time.sleep(seconds)
        self.idle = {way: nbytes / seconds for way, nbytes in self._since().items()}

    def again(self) -> None:
        self.begun, self.before = time.monotonic(), self._now()

    def carried(self) -> dict[tuple[str, str], float]:
        """By site, and ``to`` it or ``from`` it; without what idle sites say to one another."""
        seconds = time.monotonic() - self.begun
        return {way: n - self.idle[way] * seconds for way, n in self._since().items()}

    def _since(self) -> dict[tuple[str, str], int]:
        return {way: nbytes - self.before[way] for way, nbytes in self._now().items()}

    def _now(self) -> dict[tuple[str, str], int]:
        found = {}
        for link in self.bed.links:
            payload = link.payload
            found |= {(link.site, "to"): payload.to, (link.site, "from"): payload.from_}
        return found


def of_ledger(entries: Iterable[LedgerEntry], sites: Iterable[str]) -> Counter[tuple[str, str]]:
    """What the ledger says that each link carried, each way."""
    found: Counter[tuple[str, str]] = Counter()
    for entry in entries:
        found[entry.source, "from"] += entry.nbytes
        found[entry.target, "to"] += entry.nbytes
    return Counter({way: nbytes for way, nbytes in found.items() if way[0] in sites})


def test_a_mixed_graph_over_three_kinds_of_sites(sites: Sites, bucket: Any) -> None:
    hpc, edge = sites.values["hpc"], sites.values["edge"]
    client, name = bucket
    with sites.session() as session:
        where = session.submit(host_of(session["hpc"])).result(120)
        assert str(where.values) in ("hpc-n1", "hpc-n2"), "a batch job computed it"
        graph = sorted_rows(doubled(session["hpc"]) - session["edge"])
        # Links are measured once, and sites that have met talk less after a while.
        until(lambda: len([x for x in session.topology().links if x.origin == "measured"]) >= 3)
        time.sleep(6)
        roads = Roads(sites.bed, 6)
        plan = session.plan(graph, scope={"doubled": "hpc"}, result_at="third")
        assert {part.site for part in plan.segments} >= {"hpc"}
        roads.again()
        job = session.submit(plan)
        assert job.wait(180) == "done"
        carried = roads.carried()
        # The store of site "third" is no site: what it is given crosses two links all the same.
        contents = client.list_objects_v2(Bucket=name)["Contents"]
        stored = sum(int(item["Size"]) for item in contents)
        expected = of_ledger(job.ledger(), sites.names)
        expected.update({("third", "from"): stored, ("cloud", "to"): stored})
        table = {way: (round(carried[way]), expected[way]) for way in sorted(carried)}
        for found, counted in table.values():
            assert abs(found - counted) <= 0.02 * counted + 10_000, table
        np.testing.assert_allclose(job.result(60), np.sort(2 * hpc - edge, axis=0))
        crossed = {(entry.source, entry.target) for entry in job.ledger()}
        assert ("visitor", "third") in crossed
    keys = [item["Key"] for item in contents]
    assert any(key.endswith("COMMIT.json") for key in keys), "the result lies in S3"
    assert sites.bed.host("third").run(f"du -s {sites.home}/results", check=False).returncode
