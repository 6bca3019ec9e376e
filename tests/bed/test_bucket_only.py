"""A site that is a bucket and nothing else: read and written by those who open it, not by the notebook."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bed_network import until
from bed_sites import SHAPE, Sites

import dataflow as flow
from dataflow.testing.bed import Bed

#: What goes over to the notebook apart from data: SSH, catalogs, reports.
CHATTER = 3_000_000


@flow.operation(kind="opaque", lazy=False, output="same")
def difference(x: Any, y: Any) -> Any:
    return x - y


@flow.operation(kind="opaque", lazy=False, output="same")
def gap(x: Any, y: Any) -> Any:
    return x - y


@flow.operation(kind="opaque", lazy=False, output="scalar")
def largest(x: Any) -> Any:
    return x.max()


@flow.operation(kind="opaque", lazy=False, output="same")
def doubled(x: Any) -> Any:
    return 2 * x


@pytest.fixture
def bucket(bed: Bed) -> Any:
    client = bed.s3.client()
    name = f"cloud-{uuid.uuid4().hex[:8]}"
    client.create_bucket(Bucket=name)
    return client, name


@pytest.fixture
def sites(bed: Bed, bucket: Any, tmp_path: Path) -> Iterator[Sites]:
    store = bed.s3.declared(bucket[1], name="bucket", site="cloud")
    own = [
        {"name": "data", "url": "./data", "purpose": "data"},
        {"name": "results", "url": "./results"},
    ]
    opens = {"sites": [{"name": "cloud", "workers": 0}], "stores": [*own, store]}
    secret = yaml.safe_dump({"bucket": bed.s3.credentials})
    names = ["hpc", "edge"]
    found = Sites(
        bed,
        tmp_path,
        names,
        more=dict.fromkeys(names, opens),
        secrets=dict.fromkeys(names, secret),
    )
    yield found
    found.end()


def notebook_bytes() -> int:
    """What the notebook's end of the bridge has sent and received."""
    counters = Path("/sys/class/net/flowbr0/statistics")
    return sum(int((counters / name).read_text()) for name in ("rx_bytes", "tx_bytes"))


def test_data_and_results_in_a_bucket_that_the_notebook_cannot_open(
    sites: Sites, bucket: Any
) -> None:
    bed, (client, name) = sites.bed, bucket
    far = np.random.default_rng(7).random(SHAPE)
    body = io.BytesIO()
    np.save(body, far)
    client.put_object(Bucket=name, Key="flow/in/far.npy", Body=body.getvalue())
    with sites.session() as session:
        url = f"s3://{name}/flow/in/far.npy"
        until(lambda: "cloud" in {site.name for site in session.sites()})
        session.register(url, name="far", site="cloud")
        assert [dataset.name for dataset in session.datasets(site="cloud")] == ["far"]

        def measured() -> bool:
            link = session.topology().link
            pairs = [("cloud", "hpc"), ("hpc", "cloud"), ("cloud", "edge"), ("edge", "cloud")]
            return all(link(*pair).origin == "measured" for pair in pairs)

        until(measured, seconds=60)
        parts = [difference(session["hpc"], session["far"]), gap(session["edge"], session["far"])]
        both = doubled(largest(parts[0]) - largest(parts[1]))
        scope = {"difference": "hpc", "gap": "edge"}
        plan = session.plan([*parts, both], scope=scope, result_at="cloud")
        heavy = [transfer for transfer in plan.transfers if transfer.nbytes > 1e6]
        assert {(t.source, t.target, t.at, t.via) for t in heavy} == {
            ("cloud", "hpc", "", ""),
            ("cloud", "edge", "", ""),
            ("hpc", "cloud", "hpc", ""),
            ("edge", "cloud", "edge", ""),
        }
        before = {site: bed.link(site).bytes for site in ("hpc", "edge", "cloud")}
        through = notebook_bytes()
        job = session.submit(plan)
        assert job.wait(180) == "done", job
        through = notebook_bytes() - through
        crossed = {site: bed.link(site).bytes - before[site] for site in before}
        told = {(e.source, e.target): e.nbytes for e in job.ledger() if e.nbytes > 1e6}
        assert set(told) == {(t.source, t.target) for t in heavy}
        for seen, counted in (
            (crossed["cloud"].from_, told["cloud", "hpc"] + told["cloud", "edge"]),
            (crossed["cloud"].to, told["hpc", "cloud"] + told["edge", "cloud"]),
            (crossed["hpc"].to, told["cloud", "hpc"]),
            (crossed["edge"].from_, told["edge", "cloud"]),
        ):
            # The kernel counts headers, acknowledgements and questions too.
            assert counted <= seen <= 1.1 * counted + CHATTER, (crossed, told)
        assert through < CHATTER, f"{through} bytes went through the notebook"
        expected = [sites.values[site] - far for site in ("hpc", "edge")]
        results = job.result(120)
        for found, wanted in zip(results[:2], expected, strict=True):
            np.testing.assert_allclose(np.asarray(found), wanted)
        np.testing.assert_allclose(float(results[2]), 2 * (expected[0].max() - expected[1].max()))
    keys = [item["Key"] for item in client.list_objects_v2(Bucket=name)["Contents"]]
    assert sum(key.endswith("COMMIT.json") for key in keys) == 3, keys
    assert not [key for key in keys if "probe" in key]
