"""Tables as streams: from every form they are stored in, and into a store as they come."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.datasets import Replica
from dataflow.errors import UnreadableDataset
from dataflow.storage.dialect import separator_of
from dataflow.storage.manifest import replica_of
from dataflow.storage.probe import probe
from dataflow.storage.read import open_data
from dataflow.storage.results import write_result
from dataflow.storage.tables import Batches
from dataflow.storage.tabular import StoredTable, gathered, tabular

FRAME = pd.DataFrame({"a": range(1000), "b": np.arange(1000) / 4, "c": ["x", "y"] * 500})


def replica(path: Path, format: Any) -> Replica:
    return Replica(
        key="key",
        site="here",
        store="data",
        url=path.as_uri(),
        format=format,
        nbytes=path.stat().st_size,
        fingerprint="one",
    )


def test_stored_forms_are_one_table(tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "a.csv", index=False)
    FRAME.to_parquet(tmp_path / "a.parquet", row_group_size=300)
    for format in ("csv", "parquet"):
        stored = StoredTable(replica=replica(tmp_path / f"a.{format}", format), kind="table")
        table = tabular(stored)
        for _ in range(2):
            found = table.loaded().to_pandas()
            pd.testing.assert_frame_equal(found, FRAME, check_dtype=False)
        assert table.identity


def test_hdf5_columns(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="the extra 'hdf' is not installed")
    with h5py.File(tmp_path / "columns.h5", "w") as file:
        file["a"], file["b"] = np.arange(5), np.arange(5) / 2
    stored = StoredTable(replica=replica(tmp_path / "columns.h5", "hdf5"), kind="dataset")
    assert tabular(stored).loaded().to_pydict()["b"] == [0.0, 0.5, 1.0, 1.5, 2.0]


def test_dask(tmp_path: Path) -> None:
    import dask.dataframe as dd

    frame = dd.from_pandas(FRAME, npartitions=3)  # type: ignore[no-untyped-call]
    pd.testing.assert_frame_equal(tabular(frame).loaded().to_pandas(), FRAME, check_dtype=False)


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_csv_of_all_sorts(ends: str, separator: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    lines = ["a;b;c", "1;x;1.5", '2;"y";', "3;;2"]
    path.write_bytes((ends.join(lines) + ends).replace(";", separator).encode())
    found = tabular(path).loaded().to_pydict()
    assert found == {"a": [1, 2, 3], "b": ["x", "y", None], "c": [1.5, None, 2.0]}
    probed = probe(path.as_uri())
    assert [(v.name, v.shape) for v in probed.extent.variables] == [
        ("a", (3,)),
        ("b", (3,)),
        ("c", (3,)),
    ]
    frame = open_data(replica(path, "csv"), kind="table", lazy=False)
    assert frame["a"].tolist() == [1, 2, 3]


def test_a_value_that_does_not_fit_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataflow.storage import table_files

    monkeypatch.setattr(table_files, "BLOCK_NBYTES", 1000)
    path = tmp_path / "a.csv"
    path.write_text("a\n" + "1\n" * 2000 + "Jansen\n")
    with pytest.raises(UnreadableDataset, match="does not fit") as failed:
        tabular(path).loaded()
    assert "Jansen" not in str(failed.value)


def test_not_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\0\1\2")
    with pytest.raises(UnreadableDataset, match="no table that we know"):
        tabular(tmp_path / "a.bin")
    with pytest.raises(TypeError, match="a int is no table"):
        tabular(3)


@given(st.lists(st.integers(0, 50), max_size=8))
def test_small_streams_are_tables_and_large_ones_stay_streams(lengths: list[int]) -> None:
    schema = pa.schema([("a", pa.int64())])
    batches = [pa.RecordBatch.from_pydict({"a": np.arange(n)}, schema=schema) for n in lengths]
    found = gathered(schema, iter(batches), 400)
    expected = [value for n in lengths for value in range(n)]
    if sum(lengths) > 50:
        assert isinstance(found, Batches)
        assert [v for b in found.batches for v in b["a"].to_pylist()] == expected
    else:
        assert found["a"].to_pylist() == expected


def test_a_stream_is_stored_as_it_comes(tmp_path: Path) -> None:
    at_once: list[int] = []
    held = 0

    def rows() -> Iterator[pa.RecordBatch]:
        nonlocal held
        for number in range(20):
            at_once.append(len(list((tmp_path / "results").rglob("*.parquet"))))
            yield pa.RecordBatch.from_pydict({"a": np.full(1000, number)})

    stream = Batches(pa.schema([("a", pa.int64())]), rows())
    manifest = write_result(
        stream,
        root=(tmp_path / "results").as_uri(),
        key="k" * 64,
        attempt="one",
        provenance={},
        chunk_nbytes=2000,
    )
    assert at_once[-1] >= 8, "parts are written while the stream goes on"
    assert manifest.kind == "table"
    assert manifest.extent.rows == 20_000
    lying = replica_of(manifest, "here", "results")
    assert tabular(StoredTable(replica=lying, kind="table")).loaded()["a"].to_pylist() == [
        number for number in range(20) for _ in range(1000)
    ]
    assert len(open_data(lying, kind="table", lazy=False)) == 20_000


@given(st.integers(0, 300), st.integers(1, 4000))
def test_an_arrow_table_is_stored_like_the_frame_that_it_is(rows: int, chunk_nbytes: int) -> None:
    words = [None if n % 7 == 0 else f"w{n % 5}" for n in range(rows)]
    table = pa.table({"a": np.arange(rows), "w": pa.array(words, pa.string())})
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_result(
            table, root=Path(folder).as_uri(), key="t" * 64, attempt="one", provenance={},
            chunk_nbytes=chunk_nbytes,
        )  # fmt: skip
        lying = replica_of(manifest, "here", "results")
        frame = open_data(lying, kind="table", lazy=False).reset_index(drop=True)
        pd.testing.assert_frame_equal(frame, table.to_pandas())
    assert manifest.extent.rows == rows
    assert [variable.dtype for variable in manifest.extent.variables] == ["int64", "str"]
    if rows:
        part = max(8 * chunk_nbytes, table.nbytes // rows)
        assert len(manifest.files) >= table.nbytes // (2 * part)


def test_a_stream_of_nothing_is_a_table(tmp_path: Path) -> None:
    stream = Batches(pa.schema([("a", pa.int64())]), iter(()))
    manifest = write_result(
        stream, root=tmp_path.as_uri(), key="n" * 64, attempt="one", provenance={}
    )
    assert manifest.extent.rows == 0
    assert manifest.extent.variables[0].name == "a"


def test_separators() -> None:
    assert separator_of(b"") == ","
    assert separator_of(b'"a;b;c",d\n') == ","
    assert separator_of("\ufeffa\tb,c\td".encode()) == "\t"
