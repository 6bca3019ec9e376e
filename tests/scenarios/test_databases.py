"""A site whose data is a table in a database that nobody else can reach."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import dataflow as flow
from dataflow.errors import DataflowError, NoAllowedSite
from dataflow.operations import query
from dataflow.testing.databases import PASSWORD, Server, missing
from dataflow.testing.federation import Federation, SiteSettings


@flow.operation(lazy=False, output=8)
def rows(table: Any, *, tag: str = "") -> Any:
    """How many rows there are, by somebody who is given a frame."""
    return pd.DataFrame({"rows": [len(table)]})


@pytest.fixture(scope="module", params=["postgresql", "mysql"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    if why := missing(request.param):
        pytest.skip(why)
    with Server(request.param) as found:
        found.run("CREATE TABLE people (id INTEGER PRIMARY KEY, gender CHAR(1), scale INTEGER)")
        found.fill(
            "people",
            ["id", "gender", "scale"],
            [(number, "MV"[number % 2], number % 10) for number in range(1000)],
        )
        yield found


@pytest.fixture(scope="module")
def federation(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    store = {"name": "personnel", "url": server.url, "purpose": "data", "credentials": "vu-db"}
    sites = {"vu": SiteSettings(stores=[store]), "surf": SiteSettings()}
    folder = tmp_path_factory.mktemp("databases")
    secret = {"vu-db": server.credentials}
    with Federation(folder, sites, credentials=secret, ready_within=90) as found:
        yield found


def test_a_table_is_queried_where_it_is(
    server: Server, federation: Federation, tmp_path: Path
) -> None:
    with flow.connect(federation.sites_file, state=tmp_path / "anna") as session:
        data = session.register(f"{server.url}/people", name="people", site="vu")
        assert (data.kind, data.extent.nbytes > 0) == ("table", True)
        sql = "SELECT gender, avg(scale) AS mean FROM data GROUP BY gender ORDER BY gender"
        plan = session.plan(query(session["people"], sql=sql), result_at="surf")
        assert {one.site for one in plan.assignments} == {"vu"}
        assert session.submit(plan).result(120).to_dict("list") == {
            "gender": ["M", "V"],
            "mean": [4.0, 5.0],
        }

        counted = session.plan(rows(session["people"]))
        assert {one.site for one in counted.assignments} == {"vu"}, "it cannot be copied"
        assert session.submit(counted).result(120)["rows"].to_list() == [1000]
        verdict = {one.site: one for one in counted.why("rows").candidates}["surf"]
        assert (verdict.allowed, verdict.rule) == (False, "database")
        with pytest.raises(NoAllowedSite, match="queried where it is"):
            session.plan(rows(session["people"], tag="far"), scope={"rows": "surf"})
        with pytest.raises(DataflowError, match="query it where it is"):
            session.open("people")

        before = session.plan(query(session["people"], sql="SELECT max(id) AS last FROM data"))
        server.run("INSERT INTO people VALUES (5000, 'M', 1)")
        with pytest.raises(DataflowError, match="changed"):
            session.submit(before).result(120)
        session.register(f"{server.url}/people", name="people", site="vu")
        found = session.submit(query(session["people"], sql="SELECT max(id) AS last FROM data"))
        assert found.result(120)["last"].to_list() == [5000]

    for file in federation.folder.rglob("*"):
        if file.is_file() and file.name != "credentials.yaml":
            assert PASSWORD.encode() not in file.read_bytes(), file
