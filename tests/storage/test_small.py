"""Small results read plainly, against zarr and xarray reading the same files."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dataflow.errors import CorruptResult
from dataflow.storage.manifest import replica_of
from dataflow.storage.read import open_data
from dataflow.storage.results import write_result
from dataflow.storage.small import SMALL_NBYTES, small_result
from dataflow.storage.source import Source

# zarr 3.1 warns of the type that xarray gives strings; later ones have it in the specification.
pytestmark = pytest.mark.filterwarnings("ignore:The data type .FixedLengthUTF32")

DATASET = xr.Dataset(
    {
        "f": (("t", "x"), np.arange(12.0).reshape(3, 4), {"units": "m"}),
        "n": ("x", [1.0, np.nan, np.inf, -0.0]),
        "i": ("t", np.arange(3, dtype="u2")),
        "b": ((), np.bool_(True)),
        "c": ("x", np.array([1 + 1j, 2, 3, 4], "c8")),
        "none": ("e", np.zeros(0)),
        "when": ("t", pd.to_datetime(["2026-01-01", "NaT", "2026-03-01"])),
    },
    coords={"t": pd.date_range("2026-01-01", periods=3), "lab": ("x", list("abcd"))},
    attrs={"title": "test", "numbers": [1, 2]},
)


def stored(tmp_path: Path, value: Any, **more: Any) -> Any:
    manifest = write_result(
        value, root=tmp_path.as_uri(), key="k", attempt="a", provenance={}, **more
    )
    return replica_of(manifest, "here", "store")


def small(replica: Any) -> Any:
    return small_result(replica.url, Source(replica.url).read)


def by_zarr(replica: Any, kind: Any) -> Any:
    return open_data(replica, kind=kind).compute()


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
@pytest.mark.parametrize("chunk_nbytes", [16, 2**20])
def test_a_dataset_as_xarray_reads_it(tmp_path: Path, compression: str, chunk_nbytes: int) -> None:
    replica = stored(tmp_path, DATASET, compression=compression, chunk_nbytes=chunk_nbytes)
    found = small(replica)
    xr.testing.assert_identical(found, by_zarr(replica, "dataset"))
    xr.testing.assert_identical(found, DATASET)
    assert set(found.coords) == set(DATASET.coords)
    assert isinstance(found["f"].variable._data, np.ndarray)


@given(
    values=hnp.arrays(
        st.sampled_from(["i1", "u8", "f2", ">f8", "c16", "?", "U3"]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
    ),
    chunk_nbytes=st.integers(1, 200),
)
def test_any_array_comes_back(
    tmp_path_factory: pytest.TempPathFactory, values: Any, chunk_nbytes: int
) -> None:
    array = xr.DataArray(values, name="v")
    replica = stored(tmp_path_factory.mktemp("any"), array, chunk_nbytes=chunk_nbytes)
    found = small(replica)
    np.testing.assert_array_equal(found.values, by_zarr(replica, "array").values)
    np.testing.assert_array_equal(
        found.values, np.strings.rstrip(values, "\0") if values.dtype.kind == "U" else values
    )
    assert found.dims == array.dims
    assert found.name == "v"


def test_durations(tmp_path: Path) -> None:
    replica = stored(tmp_path, xr.DataArray([timedelta(seconds=3)], dims="x", name="d"))
    xr.testing.assert_identical(small(replica), by_zarr(replica, "array"))


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_damage_is_found(tmp_path: Path, compression: str) -> None:
    replica = stored(tmp_path, np.arange(100.0), chunk_nbytes=400, compression=compression)
    chunk = Source(replica.url).path / "data" / "c" / "1"  # type: ignore[operator]
    body = bytearray(chunk.read_bytes())
    for damage in (body[:-1], body[:3], b"", bytes([body[0] ^ 1]) + body[1:]):
        chunk.write_bytes(damage)
        with pytest.raises(CorruptResult, match="data/c/1 have changed"):
            small(replica)
    chunk.unlink()
    with pytest.raises(CorruptResult, match="data/c/1 is missing"):
        open_data(replica, kind="array", lazy=False)


def test_what_others_wrote_is_left_to_zarr(tmp_path: Path) -> None:
    xr.Dataset({"a": ("x", [1, 2])}).to_zarr(tmp_path / "3", zarr_format=3, consolidated=False)
    xr.Dataset({"a": ("x", [1, 2])}).to_zarr(tmp_path / "2", zarr_format=2)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "zarr.json").write_text("{")
    for name in ("3", "2", "bad", "none"):
        url = (tmp_path / name).as_uri()
        (tmp_path / name).mkdir(exist_ok=True)
        assert small_result(url, Source(url).read) is None


def test_large_ones_are_left_to_zarr(tmp_path: Path) -> None:
    replica = stored(tmp_path, da.zeros(SMALL_NBYTES // 8 + 1, chunks=-1))
    assert small(replica) is None
    assert open_data(replica, kind="array", lazy=False).sizes == {"dim_0": SMALL_NBYTES // 8 + 1}


def document(url: str, **changes: Any) -> dict[str, bytes]:
    """Files of a small result whose array says something else of itself."""
    root = Source(url).path
    assert root is not None
    files = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    whole = json.loads(files["zarr.json"])
    whole["consolidated_metadata"]["metadata"]["data"].update(changes)
    files["zarr.json"] = json.dumps(whole).encode()
    return files


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [0, 10**12]},
        {"shape": [-5]},
        {"shape": [10**12]},
        {"shape": [3, 3]},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0]}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2**40]}}},
        {"codecs": []},
        {"codecs": None},
        {"attributes": None},
        {"data_type": {"name": "fixed_length_utf32"}},
        {"data_type": "object"},
    ],
)
def test_what_a_hostile_site_may_say_of_it(tmp_path: Path, changes: dict[str, Any]) -> None:
    files = document(stored(tmp_path, np.arange(4.0)).url, **changes)
    assert small_result("u", files.get) is None


@pytest.mark.parametrize("codec", ["zstd", "blosc"])
def test_what_unpacks_to_more_than_it_should_is_refused(tmp_path: Path, codec: str) -> None:
    import struct

    import google_crc32c
    from numcodecs.blosc import Blosc
    from numcodecs.zstd import Zstd

    compression = {"zstd": "zstd", "blosc": "lz4"}[codec]
    replica = stored(tmp_path, np.arange(4.0), compression=compression)
    chunk = Source(replica.url).path / "data" / "c" / "0"  # type: ignore[operator]
    large = np.zeros(2**20, np.uint8)
    bomb = bytes(Zstd().encode(large) if codec == "zstd" else Blosc("lz4").encode(large))
    chunk.write_bytes(bomb + struct.pack("<I", google_crc32c.value(bomb)))
    with pytest.raises(CorruptResult, match="have changed"):
        small(replica)
