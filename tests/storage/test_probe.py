"""What is found out about files in place, and how bad files are refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

from dataflow.datasets import Variable
from dataflow.errors import UnreadableDataset
from dataflow.storage import fingerprints
from dataflow.storage.manifest import PARQUET
from dataflow.storage.probe import current_fingerprint, probe


@pytest.fixture
def hdf5(tmp_path: Path) -> Path:
    path = tmp_path / "run.h5"
    with h5py.File(path, "w") as file:
        file["time"] = np.arange(10.0)
        file["time"].make_scale("time")
        energy = file.create_dataset("md/energy", data=np.ones((10, 4), "f4"), chunks=(5, 4))
        energy.dims[0].attach_scale(file["time"])
        file["md/count"] = np.arange(3)
        file["note"] = h5py.Empty("f")
    return path


def test_hdf5_one_variable(hdf5: Path) -> None:
    found = probe(hdf5.as_uri(), variable="md/energy")
    assert (found.kind, found.format, found.variable) == ("array", "hdf5", "md/energy")
    assert found.extent.variables == (
        Variable(
            name="md/energy",
            dims=("time", "dim_1"),
            shape=(10, 4),
            dtype="float32",
            nbytes=160,
            chunks=(5, 4),
        ),
    )
    assert found.nbytes == hdf5.stat().st_size
    assert probe(hdf5.as_uri(), variable="/md/energy").extent == found.extent


def test_hdf5_several_variables(hdf5: Path) -> None:
    found = probe(hdf5.as_uri())
    assert found.kind == "dataset"
    assert [v.name for v in found.extent.variables] == ["md/count", "md/energy"]


def test_netcdf(tmp_path: Path) -> None:
    data = xr.Dataset({"t2m": (("time", "x"), np.ones((3, 4)))}, {"x": [1, 2, 3, 4]})
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    found = probe((tmp_path / "a.nc").as_uri())
    assert (found.kind, found.format) == ("array", "netcdf")
    assert found.extent.dims == ("time", "x")


def test_classic_netcdf_needs_scipy(tmp_path: Path) -> None:
    pytest.importorskip("h5netcdf")
    try:
        import scipy  # noqa: F401
    except ImportError:
        (tmp_path / "a.nc").write_bytes(b"CDF\x01" + bytes(100))
        with pytest.raises(UnreadableDataset, match="pip install scipy"):
            probe((tmp_path / "a.nc").as_uri())
    else:
        xr.Dataset({"v": ("x", np.arange(3.0))}).to_netcdf(tmp_path / "a.nc", engine="scipy")
        assert probe((tmp_path / "a.nc").as_uri()).extent.shape == (3,)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_zarr_group(tmp_path: Path, version: Any, consolidated: bool) -> None:
    data = xr.Dataset(
        {"v": (("x", "y"), np.ones((4, 6)))}, {"x": range(4), "lat": (("x", "y"), np.ones((4, 6)))}
    )
    data.chunk(x=2, y=3).to_zarr(
        tmp_path / "a.zarr", zarr_format=version, consolidated=consolidated
    )
    found = probe((tmp_path / "a.zarr").as_uri())
    assert (found.kind, found.format) == ("array", "zarr")
    (variable,) = found.extent.variables
    assert (variable.name, variable.dims, variable.chunks) == ("v", ("x", "y"), (2, 3))


def test_zarr_array_with_shards(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a", shape=(8, 8), dtype="i2", chunks=(2, 2), shards=(4, 8))
    found = probe((tmp_path / "a").as_uri())
    (variable,) = found.extent.variables
    assert (variable.dims, variable.chunks, variable.nbytes) == (("dim_0", "dim_1"), (4, 8), 128)


def test_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((3, 2), "i4"))
    found = probe((tmp_path / "a.npy").as_uri())
    assert (found.kind, found.format, found.extent.shape, found.extent.nbytes) == (
        "array",
        "npy",
        (3, 2),
        24,
    )


def test_csv_with_quoted_line_breaks(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('n,word,f\n1,"two\nlines",1.5\n2,x,2.5\n')
    found = probe((tmp_path / "a.csv").as_uri())
    assert (found.kind, found.format, found.extent.rows) == ("table", "csv", 2)
    assert [(v.name, v.dims) for v in found.extent.variables] == [
        ("n", ("row",)),
        ("word", ("row",)),
        ("f", ("row",)),
    ]
    assert found.extent.variables[0].dtype == "int64"


@pytest.mark.parametrize("ending", PARQUET)
def test_every_ending_of_parquet(tmp_path: Path, ending: str) -> None:
    (tmp_path / "d").mkdir()
    pd.DataFrame({"n": range(5)}).to_parquet(tmp_path / "d" / f"a{ending}")
    for url in (tmp_path / "d" / f"a{ending}", tmp_path / "d"):
        found = probe(url.as_uri())
        assert (found.kind, found.format, found.extent.rows) == ("table", "parquet", 5)
    (tmp_path / f"text{ending}").write_text("n\n1\n")
    with pytest.raises(UnreadableDataset, match="does not begin like one"):
        probe((tmp_path / f"text{ending}").as_uri())


def test_parquet_file_and_directory(tmp_path: Path) -> None:
    frame = pd.DataFrame({"n": range(5), "w": list("abcde")})
    (tmp_path / "d").mkdir()
    frame.to_parquet(tmp_path / "d" / "1.parquet")
    frame.to_parquet(tmp_path / "d" / "2.parquet")
    assert probe((tmp_path / "d" / "1.parquet").as_uri()).extent.rows == 5
    found = probe((tmp_path / "d").as_uri())
    assert (found.kind, found.format, found.extent.rows) == ("table", "parquet", 10)
    frame.rename(columns={"n": "m"}).to_parquet(tmp_path / "d" / "3.parquet")
    with pytest.raises(UnreadableDataset, match="columns differ"):
        probe((tmp_path / "d").as_uri())


PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", PNG, "binary"),
        ("a.csv", b"", "empty"),
        ("a.h5", b"", "empty"),
        ("a.h5", b"hello", "does not begin like one"),
        ("a.npy", b"\x93NUMPY\x01", "EOF|header|ValueError"),
        ("a.nc", b"\x93NUMPY\x01\x00", "called .nc and holds npy"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", "Expected 2 fields|Error tokenizing"),
        ("a.csv", b"a,b\n\xff\xfe\n", "utf-8"),
        ("a.parquet", b"PAR1rubbish", "Parquet|magic|ArrowInvalid"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableDataset, match=reason) as caught:
        probe((tmp_path / name).as_uri())
    assert name in str(caught.value)


def test_what_is_not_known_is_just_files(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_bytes(b"hello")
    found = probe((tmp_path / "a.xyz").as_uri())
    assert (found.kind, found.format, found.nbytes, found.extent.nbytes) == ("files", "files", 5, 5)
    (tmp_path / "b.xyz").write_bytes(b"hello, again")
    whole = probe(tmp_path.as_uri())
    assert (whole.kind, whole.nbytes) == ("files", 17)
    with pytest.raises(UnreadableDataset, match="no variable 'x'"):
        probe((tmp_path / "a.xyz").as_uri(), variable="x")


def test_truncated_files(hdf5: Path, tmp_path: Path) -> None:
    hdf5.write_bytes(hdf5.read_bytes()[:3000])
    with pytest.raises(UnreadableDataset, match="truncated"):
        probe(hdf5.as_uri())
    np.save(tmp_path / "a.npy", np.ones(100))
    os.truncate(tmp_path / "a.npy", 500)
    with pytest.raises(UnreadableDataset, match="cut short"):
        probe((tmp_path / "a.npy").as_uri())


def test_nothing_there_makes_nothing(tmp_path: Path) -> None:
    for name in ("no.h5", "no.zarr", "no/deep.csv"):
        with pytest.raises(UnreadableDataset, match="nothing is there"):
            probe((tmp_path / name).as_uri())
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "state"])


def test_missing_variable_lists_those_there(hdf5: Path) -> None:
    with pytest.raises(UnreadableDataset, match="md/count, md/energy"):
        probe(hdf5.as_uri(), variable="pressure")


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object))
    with pytest.raises(UnreadableDataset):
        probe((tmp_path / "a.npy").as_uri())


def test_probe_reads_no_data(hdf5: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("read an array")

    monkeypatch.setattr(h5py.Dataset, "__getitem__", refuse)
    probe(hdf5.as_uri())


class TestFingerprint:
    def test_content_decides_when_small(self, tmp_path: Path) -> None:
        path = tmp_path / "a.bin"
        path.write_bytes(b"hello")
        first = current_fingerprint(path.as_uri())
        os.utime(path, (1, 1))
        assert current_fingerprint(path.as_uri()) == first
        path.write_bytes(b"hellp")
        assert current_fingerprint(path.as_uri()) != first

    def test_large_files_by_samples_size_and_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fingerprints, "WHOLE_NBYTES", 1000)
        monkeypatch.setattr(fingerprints, "BLOCK_NBYTES", 100)
        path = tmp_path / "a.bin"
        path.write_bytes(bytes(100_000))
        os.utime(path, (5, 5))
        first = current_fingerprint(path.as_uri())
        assert first.startswith("sample:")
        assert current_fingerprint(path.as_uri()) == first
        for offset in (0, 99_999):
            body = bytearray(100_000)
            body[offset] = 1
            path.write_bytes(body)
            os.utime(path, (5, 5))
            assert current_fingerprint(path.as_uri()) != first
        path.write_bytes(bytes(100_001))
        os.utime(path, (5, 5))
        assert current_fingerprint(path.as_uri()) != first
        path.write_bytes(bytes(100_000))
        os.utime(path, (6, 6))
        assert current_fingerprint(path.as_uri()) != first

    def test_directories(self, tmp_path: Path) -> None:
        root = tmp_path / "d"
        root.mkdir()
        (root / "a").write_bytes(b"1")
        (root / "b").write_bytes(b"2")
        first = current_fingerprint(root.as_uri())
        (root / "b").rename(root / "c")
        assert current_fingerprint(root.as_uri()) != first
        (root / "c").rename(root / "b")
        assert current_fingerprint(root.as_uri()) == first


@pytest.mark.bed
def test_everything_over_s3(rgw_place: Any, hdf5: Path, tmp_path: Path) -> None:
    frame = pd.DataFrame({"n": range(5), "w": list("abcde")})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    np.save(tmp_path / "a.npy", np.ones((3, 2)))
    xr.Dataset({"v": (("x", "y"), np.ones((4, 6)))}).to_zarr(
        tmp_path / "a.zarr", zarr_format=3, consolidated=False
    )
    xr.Dataset({"v": ("x", np.ones(4))}).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    store = rgw_place.store()
    for file in tmp_path.rglob("*"):
        if file.is_file():
            store.put(str(file.relative_to(tmp_path)), file)
    for name in ("a.csv", "a.parquet", "a.npy", "a.zarr", "a.nc", "run.h5"):
        here = probe((tmp_path / name).as_uri())
        there = probe(f"{rgw_place.root}/{name}", **rgw_place.opening)
        assert there == here
    with pytest.raises(UnreadableDataset, match="nothing is there"):
        probe(f"{rgw_place.root}/none.h5", **rgw_place.opening)
