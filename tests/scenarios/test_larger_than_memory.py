"""KO-15 and DY-13: more data than memory; peaks are the kernel's own (VmHWM of every process)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import dataflow as flow
from dataflow.testing.federation import Federation, SiteSettings

GB = 10**9
ROWS = 2_000_000


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Workers of 600 MB: with what an interpreter needs itself well below 1 GB a process."""
    names = ("vu", "uva", "surf")
    settings = {name: SiteSettings(workers=1, memory="600 MB") for name in names}
    folder = tmp_path_factory.mktemp("three")
    with Federation(folder, settings, ready_within=60) as federation:
        yield federation


def eight_gigabytes(path: Path) -> list[np.ndarray]:
    """Write 10^9 float64 in 1000 blocks, which repeat the 8 that are returned.

    Blocks that repeat are one file under many names: what reads them reads 8 GB, and no disk has to
    have the room.
    """
    import zarr

    size = 10**6
    array = zarr.create_group(path, overwrite=True).create_array(
        "values",
        shape=(1000 * size,),
        dtype="float64",
        chunks=(size,),
        compressors=None,
        dimension_names=["row"],
    )
    blocks = list(np.random.default_rng(15).standard_normal((8, size)) + np.arange(8)[:, None])
    for number, block in enumerate(blocks):
        array[number * size : (number + 1) * size] = block
    chunks = path / "values" / "c"
    for number in range(8, 1000):
        os.link(chunks / str(number % 8), chunks / str(number))
    return blocks


@pytest.mark.slow
@pytest.mark.timeout(600)  # one worker reads 8 GB, on a machine that has other tests to run
def test_ko15_larger_than_memory(three: Federation, tmp_path: Path) -> None:
    path = three.data("vu") / "values.zarr"
    blocks = eight_gigabytes(path)

    @flow.operation(kind="elementwise")
    def positive_part(x: xr.DataArray) -> xr.DataArray:
        return (x - x.astype("int64")) > 0.25

    @flow.operation(kind="opaque", output="scalar")
    def mean(x: xr.DataArray) -> xr.DataArray:
        return x.mean()

    with flow.connect(three.sites_file, state=tmp_path / "me") as session:
        session.register(path.as_uri(), name="values", site="vu")
        before = {process.pid for process in three.processes("vu")}
        with three.memory() as peaks:
            large = session.submit(positive_part(session["values"]))
            large.wait(400)
            small = session.submit(mean(positive_part(session["values"])))
            small.wait(120)
        assert small.status == large.status == "done"
        assert before <= {process.pid for process in three.processes("vu")}, "a worker was killed"
        assert max(peaks.values()) < GB, peaks
        wanted = [block - block.astype("int64") > 0.25 for block in blocks]
        assert float(small.result()) == pytest.approx(np.mean(wanted), rel=1e-9)
        result = large.result()
        assert result.shape == (10**9,)
        for number in (0, 501, 999):
            read = result[number * 10**6 : (number + 1) * 10**6].values
            np.testing.assert_array_equal(read, wanted[number % 8])


def table(seed: int) -> pd.DataFrame:
    """2 million rows, over 200 MB in memory as in a file."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "person": np.arange(ROWS) + seed * ROWS,
            **{f"v{n}": rng.standard_normal(ROWS) for n in range(12)},
        }
    )


def checksum(frame: pd.DataFrame) -> str:
    hashed = pd.util.hash_pandas_object(frame, index=False).to_numpy()
    return hashlib.sha256(np.sort(hashed).tobytes()).hexdigest()


@pytest.mark.slow
def test_dy13_large_answer_through_a_third_party(three: Federation, tmp_path: Path) -> None:
    @flow.operation(kind="opaque")
    def both(one: Any, two: Any) -> Any:
        import dask.dataframe as dd

        return dd.concat([one, two])

    sums = []
    for seed, site in enumerate(("vu", "uva")):
        frame = table(seed)
        path = three.data(site) / "salaries.parquet"
        frame.to_parquet(path, index=False, row_group_size=100_000)
        assert path.stat().st_size > 200e6
        sums.append(pd.util.hash_pandas_object(frame, index=False).to_numpy())
        del frame
    expected = hashlib.sha256(np.sort(np.concatenate(sums)).tobytes()).hexdigest()

    with flow.connect(three.sites_file, state=tmp_path / "me") as session:
        for site in ("vu", "uva"):
            url = (three.data(site) / "salaries.parquet").as_uri()
            session.register(url, name=f"salaries-{site}", site=site)
        graph = both(session["salaries-vu"], session["salaries-uva"])
        plan = session.plan(graph, scope={"both": "surf"})
        assert {(t.source, t.target) for t in plan.transfers} == {("vu", "surf"), ("uva", "surf")}
        with three.memory(os.getpid()) as peaks:
            job = session.submit(plan)
            job.wait(240)
            assert job.status == "done", job
        peaks.pop("also")  # this process made the tables
        assert max(peaks.values()) < GB, peaks
        into = three.wires["surf"].bytes_in + three.wires["vu"].bytes_out
        assert into > 200e6, "the rows went through the third party"
        answer = job.result()
        rows = answer.compute() if hasattr(answer, "compute") else answer
        assert len(rows) == 2 * ROWS
        assert checksum(rows) == expected
