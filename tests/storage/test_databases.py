"""Tables in databases, at real servers of PostgreSQL and MariaDB."""

from __future__ import annotations

import datetime
import decimal
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataflow.datasets import Replica
from dataflow.errors import UnreadableDataset
from dataflow.operations import query
from dataflow.storage import databases
from dataflow.storage.fingerprints import current_fingerprint, stored_files
from dataflow.storage.probe import probe
from dataflow.storage.read import open_data
from dataflow.storage.source import Source
from dataflow.storage.tabular import StoredTable
from dataflow.testing.databases import PASSWORD, Server, missing

KINDS = ("postgresql", "mysql")


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    if why := missing(request.param):
        pytest.skip(why)
    with Server(request.param) as found:
        yield found


def quoted(server: Server, name: str) -> str:
    mark = '"' if server.kind == "postgresql" else "`"
    return f"{mark}{name}{mark}"


def source(server: Server, table: str) -> Source:
    return Source(f"{server.url}/{table}", server.credentials)


def rows_of(server: Server, table: str) -> list[tuple[Any, ...]]:
    schema, read = databases.batches(source(server, table))
    whole = pa.Table.from_batches(read(), schema=schema)
    return list(zip(*(column.to_pylist() for column in whole.columns), strict=True))


@pytest.fixture
def people(server: Server) -> Iterator[str]:
    name = quoted(server, "People")
    server.run(
        f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, word VARCHAR(40), number DOUBLE PRECISION,"
        " price DECIMAL(10, 2), day DATE, moment TIMESTAMP NULL, flag BOOLEAN, big BIGINT)"
    )
    server.fill(
        name,
        ["id", "word", "number", "price", "day", "moment", "flag", "big"],
        [
            (3, "drie", 0.5, decimal.Decimal("12.30"), datetime.date(1960, 1, 31),
             datetime.datetime(2024, 2, 29, 12, 30), True, 2**62),
            (1, "één, 'n", -1e300, decimal.Decimal("-0.01"), datetime.date(1999, 12, 31),
             datetime.datetime(1999, 12, 31), False, -5),
            (2, None, None, None, None, None, None, None),
        ],
    )  # fmt: skip
    yield "People"
    server.run(f"DROP TABLE {name}")


def test_every_value_comes_as_what_it_is(server: Server, people: str) -> None:
    schema, _ = databases.batches(source(server, people))
    assert [str(field.type) for field in schema][:5] == [
        "int64", "string", "double", "decimal128(10, 2)", "date32[day]",
    ]  # fmt: skip
    first, second, third = rows_of(server, people)
    assert (first[0], second[0], third[0]) == (1, 2, 3), "by its primary key"
    assert first[1:5] == (
        "één, 'n", -1e300, decimal.Decimal("-0.01"), datetime.date(1999, 12, 31),
    )  # fmt: skip
    assert second[1:] == (None,) * 7
    assert third[5] == datetime.datetime(2024, 2, 29, 12, 30)
    assert (bool(third[6]), bool(first[6]), third[7]) == (True, False, 2**62)


def test_what_is_registered_of_it(server: Server, people: str) -> None:
    found = probe(f"{server.url}/{people}", credentials=server.credentials)
    assert (found.kind, found.format) == ("table", "database")
    assert [v.name for v in found.extent.variables][:3] == ["id", "word", "number"]
    assert {v.shape for v in found.extent.variables} == {(3,)}
    assert found.nbytes > 0
    again = current_fingerprint(f"{server.url}/{people}", credentials=server.credentials)
    assert found.fingerprint == again


def test_the_fingerprint_follows_every_change(server: Server, people: str) -> None:
    name, seen = quoted(server, people), set()

    def look() -> None:
        seen.add(databases.fingerprint(source(server, people)))

    look()
    changes = (
        f"UPDATE {name} SET word = 'twee' WHERE id = 2",
        f"UPDATE {name} SET word = NULL, flag = TRUE WHERE id = 2",
        f"UPDATE {name} SET word = 'NULL' WHERE id = 2",
        f"DELETE FROM {name} WHERE id = 1",
        f"INSERT INTO {name} (id, word) VALUES (9, 'nine')",
    )
    for number, change in enumerate(changes, 2):
        server.run(change)
        look()
        assert len(seen) == number, change
    server.run(f"DELETE FROM {name} WHERE id = 3", f"DELETE FROM {name} WHERE id = 9")
    look()
    before = len(seen)
    server.run(f"INSERT INTO {name} (id, word) VALUES (9, 'nine')")
    server.run(f"DELETE FROM {name} WHERE id = 9")
    look()
    assert len(seen) == before, "the same rows again"


def test_queries_over_it(server: Server, people: str) -> None:
    replica = Replica(
        key="k", site="s", store="db", url=f"{server.url}/{people}", format="database", nbytes=100,
        fingerprint=databases.fingerprint(source(server, people)),
    )  # fmt: skip
    stored = StoredTable(replica=replica, kind="table", credentials=server.credentials)
    sql = "SELECT count(*) AS n, sum(id) AS total, max(word) AS word FROM data WHERE id <> 2"
    found = query.function(stored, sql=sql)
    assert list(found.to_pylist()[0].values()) == [2, 4, "één, 'n"]
    for lazy in (False, True):
        frame = open_data(replica, kind="table", credentials=server.credentials, lazy=lazy)
        frame = frame.compute(scheduler="sync") if lazy else frame
        assert frame["id"].to_list() == [1, 2, 3]


def test_views_are_read_and_nothing_can_be_written(server: Server, people: str) -> None:
    from sqlalchemy import exc

    name = quoted(server, people)
    server.run(f"CREATE VIEW grown AS SELECT id, word FROM {name} WHERE id > 1")
    try:
        assert [row[0] for row in sorted(rows_of(server, "grown"))] == [2, 3]
        listed = databases.tables(server.url, server.credentials, {})
        assert {"grown", "People"} <= set(listed)
        with (
            pytest.raises(UnreadableDataset) as error,
            databases._opened(source(server, people)) as (connection, _),
        ):
            connection.exec_driver_sql(f"DELETE FROM {name}")
        assert not isinstance(error.value.__cause__, exc.SQLAlchemyError)
        assert "read" in str(error.value).lower()
        assert len(rows_of(server, people)) == 3
    finally:
        server.run("DROP VIEW grown")


def test_a_reading_sees_one_moment(server: Server, people: str) -> None:
    _, read = databases.batches(source(server, people))
    pieces = read()
    first = next(pieces)
    server.run(f"DELETE FROM {quoted(server, people)} WHERE id = 3")
    assert sum(map(len, [first, *pieces])) == 3
    assert len(rows_of(server, people)) == 2


@pytest.mark.parametrize("name", ["a%2Eb", "a'b", "semi;colon", "per%25cent", "Mit Leerzeichen"])
def test_names_are_names(server: Server, name: str) -> None:
    from urllib.parse import unquote

    table = quoted(server, unquote(name))
    server.run(f"CREATE TABLE {table} (x INTEGER)", f"INSERT INTO {table} VALUES (7)")
    try:
        assert rows_of(server, name) == [(7,)]
        assert probe(f"{server.url}/{name}", credentials=server.credentials).extent.nbytes == 8
    finally:
        server.run(f"DROP TABLE {table}")


def test_what_is_wrong_is_told_without_secrets(server: Server, people: str) -> None:
    wrong = {**server.credentials, "password": "other"}
    for where, credentials, said in (
        (f"{server.url}/Nobody", server.credentials, "there is no table or view 'Nobody'"),
        (f"{server.url}/People; DROP TABLE People", server.credentials, "there is no table"),
        (server.url, server.credentials, "database/table"),
        (f"{server.url}/People", wrong, ""),
        (f"{server.url.rpartition(':')[0]}:1/personnel/People", server.credentials, ""),
    ):
        with pytest.raises(UnreadableDataset, match=said or None) as error:
            probe(where, credentials=credentials)
        assert PASSWORD not in str(error.value)
        assert "other" not in str(error.value).replace("another", "")
    assert len(rows_of(server, people)) == 3


def test_a_value_that_cannot_be_read_is_not_told(server: Server) -> None:
    table = quoted(server, "Odd")
    if server.kind == "postgresql":
        server.run(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, day DATE)")
        server.run(f"INSERT INTO {table} VALUES (4711, '5874897-11-30')")
    else:
        server.run(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, day DATE)")
        server.run(
            f"SET STATEMENT sql_mode = '' FOR INSERT INTO {table} VALUES (4711, '2020-02-00')"
        )
    try:
        with pytest.raises(UnreadableDataset, match="a value") as error:
            rows_of(server, "Odd")
        assert "5874897" not in str(error.value)
        assert "2020" not in str(error.value)
    finally:
        server.run(f"DROP TABLE {table}")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        *((code, True) for code in ("28P01", "42P01", "42501", "25006", 1045, 1146, 2003, None)),
        ("the text of a driver, and no code", True),
        *((code, False) for code in ("22P02", "P0001", "23505", "XX000", 1105, 1292, 1644, 1690)),
    ],
)
def test_of_what_a_server_says_only_what_is_about_no_row_is_told(code: Any, told: bool) -> None:
    assert databases._is_told(code) is told


def test_what_is_not_installed_is_named(
    server: Server, people: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = (
        lambda: databases.fingerprint(source(server, people)),
        lambda: databases.tables(server.url, server.credentials, {}),
    )
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "sqlalchemy", None)
        for ask in asked:
            with pytest.raises(
                UnreadableDataset, match=r"pip install 'jupyter-dataflow\[databases\]'"
            ):
                ask()


def test_it_has_no_files(server: Server, people: str) -> None:
    with pytest.raises(UnreadableDataset, match="query it where it is"):
        stored_files(f"{server.url}/{people}")
    with pytest.raises(UnreadableDataset, match="chosen by a query"):
        probe(f"{server.url}/{people}", variable="id", credentials=server.credentials)


@pytest.fixture(scope="module")
def found(server: Server) -> str:
    server.run(
        f"CREATE TABLE {quoted(server, 'Found')} (at INTEGER PRIMARY KEY, n INTEGER,"
        " word VARCHAR(100), x DOUBLE PRECISION)"
    )
    return "Found"


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
values = st.tuples(
    st.integers(-(2**31), 2**31 - 1) | st.none(),
    texts | st.none(),
    st.floats(-1e12, 1e12, allow_nan=False, allow_subnormal=False) | st.none(),
)


@settings(
    max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.lists(values, max_size=8))
def test_rows_come_back(server: Server, found: str, rows: list[Any]) -> None:
    table = quoted(server, found)
    server.run(f"DELETE FROM {table}")
    numbered = [(at, *row) for at, row in enumerate(rows)]
    server.fill(table, ["at", "n", "word", "x"], numbered)
    assert rows_of(server, found) == numbered
    one = databases.fingerprint(source(server, found))
    assert one == databases.fingerprint(source(server, found))
