"""Query: what a SELECT over the given tables finds, and nothing else."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xarray as xr

pytest.importorskip("duckdb", reason="the extra 'sql' is not installed")

from dataflow.operations import query, sql
from dataflow.storage.scratch import drawing_into
from dataflow.storage.tables import Batches
from dataflow.storage.tabular import Tabular
from dataflow.testing.wage_gap import JOIN, UNIVERSITIES, write


def find(*tables: Any, **how: Any) -> Any:
    """What comes of it, as a frame if it is a table in memory."""
    found = query.function(*tables, **how)
    return found.to_pandas() if isinstance(found, pa.Table) else found


DATA = pd.DataFrame({"a": range(10), "g": ["M", "V"] * 5})


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path) -> Iterator[None]:
    with drawing_into(lambda: tmp_path):
        yield


def test_one_table() -> None:
    found = find(DATA, sql="SELECT g, sum(a)::BIGINT AS total FROM data GROUP BY g ORDER BY g")
    assert found.to_dict("list") == {"g": ["M", "V"], "total": [20, 25]}


def test_names() -> None:
    text = "SELECT count(*) AS n FROM data1 JOIN DATA2 USING (a)"
    assert find(DATA, DATA[:3], sql=text)["n"].tolist() == [3]
    text = "SELECT count(*) AS n FROM persons p, jobs"
    assert find(DATA, DATA[:3], sql=text, names=["persons", "jobs"])["n"].tolist() == [30]
    with pytest.raises(ValueError, match="two tables are called 'X'"):
        find(DATA, DATA, sql="SELECT 1", names=["x", "X"])
    with pytest.raises(ValueError, match="no table for the name 'y'"):
        find(DATA, sql="SELECT 1", names=["x", "y"])


def test_columns_of_one_name() -> None:
    found = find(DATA, DATA, sql="SELECT x.*, y.*, 1 AS a_1 FROM data1 x, data2 y LIMIT 1")
    assert list(found.columns) == ["a", "g", "a_2", "g_1", "a_1"]


def test_the_wage_gap(tmp_path: Path) -> None:
    """Both files as they are: semicolons, and lines that end in CR CR LF and in CR."""
    for site, about in UNIVERSITIES.items():
        (tmp_path / site).mkdir()
        paths = write(site, tmp_path / site)
        text = f"SELECT Geslacht, avg(Salschal) AS mean FROM ({JOIN}) GROUP BY 1"
        found = find(*paths, sql=text, names=["Personen", "Aanstellingen"])
        assert dict(zip(found["Geslacht"], found["mean"].round(3), strict=True)) == about.means


def test_sqlite(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        DATA.to_sql("people", connection, index=False)
        DATA[:4].to_sql("jobs", connection, index=False)
    found = find([tmp_path / "x.db"], sql="SELECT sum(a) AS s FROM people JOIN jobs USING (a)")
    assert found["s"].tolist() == [6]


def test_arrays_as_columns() -> None:
    columns = xr.Dataset({"a": ("row", np.arange(5)), "b": ("row", np.arange(5) / 2)})
    assert find(columns, sql="SELECT max(b) AS m FROM data")["m"].tolist() == [2.0]
    records = np.array(
        [(1, 2.5, b"x"), (2, 3.5, b"y")], dtype=[("i", "i4"), ("f", "f8"), ("s", "S3")]
    )
    found = find(xr.DataArray(records, dims="row"), sql="SELECT s, f FROM data WHERE i = 2")
    assert found.to_dict("list") == {"s": ["y"], "f": [3.5]}
    with pytest.raises(TypeError, match="one dimension of the same length"):
        find(xr.DataArray(np.ones((2, 2))), sql="SELECT 1 FROM data")


def test_a_large_result_is_a_stream() -> None:
    found = find(DATA, DATA, sql="SELECT x.a, y.a AS b, r FROM data1 x, data2 y, range(40000) t(r)")
    assert isinstance(found, Batches)
    rows = [batch.num_rows for batch in found.batches]
    assert sum(rows) == 4_000_000
    assert max(rows) <= sql.BATCH_ROWS


def test_a_large_table_is_not_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read once it is a stream; read twice it is written to disk first, where memory does not do."""
    monkeypatch.setattr(sql, "KEPT_NBYTES", 1000)
    reads = []

    def read() -> Iterator[pa.RecordBatch]:
        reads.append(1)
        for start in range(0, 100_000, 10_000):
            yield pa.RecordBatch.from_pydict({"a": np.arange(start, start + 10_000)})

    table = Tabular(pa.schema([("a", pa.int64())]), read, identity="large", nbytes=800_000)
    assert find(table, sql="SELECT sum(a)::BIGINT AS s FROM data")["s"].tolist() == [4999950000]
    assert len(reads) == 1
    text = "SELECT count(*) AS n FROM data x JOIN data y USING (a)"
    assert find(table, sql=text)["n"].tolist() == [100_000]
    assert len(reads) == 2


def test_loaded_once_per_fingerprint() -> None:
    reads = []

    def read() -> Iterator[pa.RecordBatch]:
        reads.append(1)
        yield pa.RecordBatch.from_pydict({"a": [1, 2]})

    schema = pa.schema([("a", pa.int64())])
    for _ in range(3):
        table = Tabular(schema, read, identity="test: the same bytes")
        assert find(table, sql="SELECT max(a) AS m FROM data")["m"].tolist() == [2]
    assert len(reads) == 1
    find(Tabular(schema, read, identity="test: other bytes"), sql="FROM data")
    assert len(reads) == 2


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM sniff_csv('/etc/passwd')",
        "SELECT * FROM data, other",
        "SELECT * FROM data WHERE a IN (SELECT oid FROM pg_class)",
        "SELECT * FROM main.data",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM duckdb_secrets()",
        "SELECT * FROM query('SELECT 1')",
        "FROM query_table('data')",
        "SELECT current_setting('temp_directory')",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP TABLE data",
        "DROP TABLE data",
        "CREATE TABLE x AS SELECT 1",
        "INSERT INTO data VALUES (1, 'x')",
        "COPY data TO '/tmp/stolen.csv'",
        "ATTACH '/tmp/x.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "PRAGMA database_list",
        "CALL duckdb_settings()",
        "EXPORT DATABASE '/tmp/x'",
        "SHOW TABLES",
        "DESCRIBE data",
        "SELECT random()",
        "",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(PermissionError, match="query: "):
        find(DATA, sql=text)


def test_the_engine_itself_has_no_way_out() -> None:
    """Should the check of the text miss something."""
    import duckdb

    connection = sql._shared().cursor()
    for text in (
        "SELECT * FROM read_text('/etc/passwd')",
        "COPY (SELECT 1) TO '/tmp/stolen.csv'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
    ):
        with pytest.raises(duckdb.Error):
            connection.execute(text)
    connection.close()


def test_one_query_does_not_see_the_tables_of_another() -> None:
    find(DATA, sql="SELECT * FROM secret", names=["secret"])
    with pytest.raises(PermissionError, match="there is no table 'secret'; there are data"):
        find(DATA, sql="SELECT * FROM secret")


def test_errors_tell_of_the_text_and_not_of_the_values() -> None:
    frame = pd.DataFrame({"who": ["Jansen"]})
    with pytest.raises(ValueError, match='"whom" not found'):
        find(frame, sql="SELECT whom FROM data")
    with pytest.raises(ValueError, match="syntax error"):
        find(frame, sql="SELECT FROM WHERE")
    with pytest.raises(ValueError, match="failed on the rows") as failed:
        find(frame, sql="SELECT who::INT FROM data")
    assert "Jansen" not in str(failed.value)
    assert failed.value.__suppress_context__


def test_the_same_query_gives_the_same_rows() -> None:
    text = "SELECT x.a, y.g FROM data1 x, data2 y LIMIT 37"
    first: Any = find(DATA, DATA, sql=text)
    for _ in range(3):
        pd.testing.assert_frame_equal(find(DATA, DATA, sql=text), first)
