"""An array larger than the process that writes it may be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dataflow.storage.publish import find_result

CHILD = """
import json, resource, sys
import dask, dask.array as da, h5py, numpy as np
from dataflow.datasets import Replica
from dataflow.storage.read import open_data
from dataflow.storage.results import write_result

source, root, kind = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_DATA, (900_000_000, 900_000_000))
with dask.config.set(scheduler="threads", num_workers=2):
    if kind == "blocks":
        value = da.map_blocks(
            lambda block_info: np.full((2**21,), block_info[None]["chunk-location"][0], "f8"),
            chunks=((2**21,) * 64,), dtype="f8", meta=np.empty(0),
        )
    else:
        replica = Replica(key="k", site="s", store="s", url=source, format="hdf5", nbytes=0)
        value = open_data(replica, kind="array", chunk_nbytes=2**24) + 1
    manifest = write_result(value, root=root, key="k", attempt="a", provenance={})
# Not ru_maxrss, which begins with that of the process that started this one.
status = open("/proc/self/status").read()
peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
print(json.dumps({"peak": peak, "stored": manifest.nbytes, "in memory": manifest.extent.nbytes}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["blocks", "hdf5"])
def test_array_larger_than_memory(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "a.h5"
    if kind == "hdf5":
        import h5py

        with h5py.File(source, "w") as file:
            # Never written, so zeros that take no room on disk, and a gigabyte to whoever reads.
            file.create_dataset("v", shape=(1024, 2**17), dtype="f8", chunks=(16, 2**17))
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    root = (tmp_path / "store").as_uri()
    done = subprocess.run(
        [sys.executable, script, source.as_uri(), root, kind],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert said["in memory"] == 2**30
    assert said["stored"] > 2**30
    # 345 to 420 MB, by which threads wait for which; all of it would be more than a gigabyte
    assert said["peak"] < 500_000_000
    found = find_result(root, "k")
    assert found is not None
    assert found.nbytes == said["stored"]
