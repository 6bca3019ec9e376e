"""Routes of agreements, and what a read says of its errand."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from dataflow.agreements import Agreement, Relation, Request
from dataflow.catalog.entries import replica_id
from dataflow.datasets import Replica
from dataflow.documents import from_json, to_document, to_json
from dataflow.execution.events import Errand


def agreement(**fields: Any) -> Agreement:
    relations = (
        Relation(id="mine", users=("user-person",), datasets=("run1",), archetypes=("fetch",)),
        Relation(id="theirs", users=("somebody",), datasets=("run1",), archetypes=("fetch",)),
    )
    return Agreement(**{"name": "runs", "site": "uva", "relations": relations, **fields})


def put(agent: Any, what: Any, role: str = "admin", name: str = "runs") -> Any:
    return agent.call("PUT", f"/v1/agreements/{name}", role, json={"agreement": to_document(what)})


def test_an_administrator_makes_and_withdraws(agent: Any) -> None:
    agent.run(agent.client("admin").agree(agreement()))
    (known,) = agent.run(agent.client("site").agreements())
    assert known == agreement()
    agent.run(agent.client("admin").withdraw("runs"))
    (known,) = agent.run(agent.client("site").agreements())
    assert known.relations == (), "it stays, and grants nothing"


@pytest.mark.parametrize("role", ["reader", "user", "site"])
def test_nobody_else_does(agent: Any, role: str) -> None:
    assert put(agent, agreement(), role).status_code == 403
    assert agent.call("DELETE", "/v1/agreements/runs", role).status_code == 403
    assert agent.participant.agreements() == []


def test_what_is_wrong_is_refused(agent: Any) -> None:
    assert put(agent, agreement(), name="other").status_code == 400
    assert put(agent, agreement(site="vu")).status_code == 403
    document = to_document(agreement())
    document["relations"][0]["userz"] = ["eve"]
    answer = agent.call("PUT", "/v1/agreements/runs", json={"agreement": document})
    assert answer.status_code == 400
    assert agent.call("DELETE", "/v1/agreements/none").status_code == 403


def test_users_see_what_is_for_them(agent: Any) -> None:
    put(agent, agreement())
    for path in ("/v1/agreements", "/v1/records?site=uva"):
        seen = agent.call("GET", path, "user").text
        assert "mine" in seen
        assert "theirs" not in seen
        assert "somebody" not in seen
        assert "theirs" in agent.call("GET", path, "site").text
    rows = agent.call("GET", "/v1/records?site=uva", "user").json()["rows"]
    (row,) = (row for row in rows if row["kind"] == "agreement")
    assert [r.id for r in from_json(Agreement, row["body"]).relations] == ["mine"]


@pytest.fixture
def replica(agent: Any) -> str:
    (agent.participant.data / "a.npy").write_bytes(b"abc")
    copy = Replica(
        key="k",
        site="uva",
        store="data",
        url=f"{agent.participant.store.url}/a.npy",
        format="npy",
        nbytes=3,
    )
    id = replica_id(copy)
    agent.participant.records.add(copy)
    agent.participant.replicas[id] = copy
    return id


REQUEST = Request(type="sql", purpose="study", archetypes={"uva": "fetch"})
HEADERS = {
    "x-dataflow-job": "j1",
    "x-dataflow-user": "anna",
    "x-dataflow-to": "surf",
    "x-dataflow-request": quote(to_json(REQUEST, Request)),
}
PATHS = ("/v1/data/{}", "/v1/archives/{}", "/v1/data/{}/a.npy")


@pytest.mark.parametrize("path", PATHS)
def test_agents_read_for_somebody_and_users_for_themselves(
    agent: Any, replica: str, path: str
) -> None:
    asked = path.format(replica)
    whole = Errand(job="j1", user="anna", request=REQUEST, to="surf")
    mine = Errand(job="j1", user="user-person", request=REQUEST)
    for role, errand, via in (("site", whole, ("site-person",)), ("user", mine, ())):
        assert agent.call("GET", asked, role, headers=HEADERS).status_code == 200
        assert agent.participant.errands.pop() == (errand, via)
    assert agent.call("GET", asked, "admin", headers=HEADERS).status_code == 200
    assert not agent.participant.errands, "the site's own people see their own disk"


@pytest.mark.parametrize("path", PATHS)
def test_an_owner_that_refuses_is_heard(
    agent: Any, replica: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataflow.errors import NotGranted

    def refuse(*_: Any, **__: Any) -> None:
        raise NotGranted({"uva": "no relation"})

    monkeypatch.setattr(agent.participant, "may_read", refuse)
    answer = agent.call("GET", path.format(replica), "user")
    assert answer.status_code == 403
    assert answer.json() == {"kind": "not-granted", "args": [{"uva": "no relation"}]}


def test_a_request_that_is_not_understood_is_refused(agent: Any, replica: str) -> None:
    headers = {"x-dataflow-request": "{"}
    answer = agent.call("GET", f"/v1/data/{replica}", "site", headers=headers)
    assert answer.status_code == 400


def test_a_stewards_data_are_registered_by_its_administrators(steward: Any) -> None:
    (steward.participant.data / "a.npy").write_bytes(b"abc")
    body = {"url": f"{steward.participant.store.url}/a.npy", "name": "mine"}
    assert steward.call("POST", "/v1/datasets", "user", json=body).status_code == 403
    assert steward.call("POST", "/v1/datasets", "admin", json=body).status_code == 201


def test_who_loses_his_right_while_he_reads_gets_no_more(
    agent: Any, replica: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starlette.requests import Request as HttpRequest

    from dataflow.agent import serve_data
    from dataflow.agent.auth import Identity
    from dataflow.errors import NotGranted

    asked: list[bool] = []

    def revoked(*_: Any, again: bool = False) -> None:
        asked.append(again)
        if len(asked) > 2:
            raise NotGranted({"uva": "no relation"})

    async def pieces() -> Any:
        for _ in range(10):
            yield b"piece"

    monkeypatch.setattr(agent.participant, "may_read", revoked)
    monkeypatch.setattr(serve_data, "ASKED_AGAIN_SECONDS", -1.0)
    scope = {"type": "http", "headers": [], "dataflow.identity": Identity(user="anna")}
    copy = agent.participant.served_replica(replica)
    got: list[bytes] = []

    async def story() -> None:
        stream = serve_data._metered(HttpRequest(scope), agent.participant, copy, pieces())
        async for piece in stream:
            got.append(piece)

    with pytest.raises(NotGranted):
        agent.run(story())
    assert got == [b"piece"] * 2
    assert asked == [True] * 3
