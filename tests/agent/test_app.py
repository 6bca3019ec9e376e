"""The routes, in this process: form, rights, errors. What a stranger may learn is tested too."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from dataflow.agent.served import KnowsOwners
from dataflow.documents import to_document
from dataflow.errors import JobCancelled, NoAllowedSite, SiteUnreachable, TransferFailed
from dataflow.execution.events import Ended, JobCreated, Progress
from dataflow.execution.runner import SiteRunner

DIGEST = "ab" * 32


def transfer(**changes: Any) -> dict[str, Any]:
    replica = {
        "key": "k",
        "site": "vu",
        "store": "s",
        "url": "file:///x",
        "format": "zarr",
        "nbytes": 3,
    }
    order = {"type": "transfer", "id": "o1", "job": "j1", "site": "uva", "key": "k"}
    return {**order, "replica": replica, **changes}


# --- who may ----------------------------------------------------------------------------------


def paths(agent: Any) -> list[tuple[str, str]]:
    described = agent.call("GET", "/openapi.json").json()["paths"]
    return [(method.upper(), path) for path, methods in described.items() for method in methods]


def test_strangers_learn_that_it_is_alive_and_nothing_else(agent: Any) -> None:
    assert agent.call("GET", "/v1/health", None).json() == {"status": "ok"}
    asked = [*paths(agent), ("GET", "/openapi.json"), ("GET", "/"), ("DELETE", "/v1/nonsense")]
    for method, path in asked:
        if path == "/v1/health":
            continue
        answer = agent.call(method, path, None)
        assert answer.status_code == 401, (method, path)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json() == {
            "kind": "site-refused",
            "args": ["uva", "a bearer token is needed"],
        }


def test_a_stranger_s_body_is_not_read(agent: Any) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        raise AssertionError("the agent went on reading")

    assert agent.call("POST", "/v1/jobs", None, content=body()).status_code == 401


def test_readers_only_look(agent: Any) -> None:
    assert agent.call("GET", "/v1/site", "reader").status_code == 200
    for method, path in paths(agent):
        if method != "GET":
            answer = agent.call(method, path.replace("{what}", "cancel"), "reader", json={})
            assert answer.status_code in (400, 403), (method, path)
    answer = agent.call("POST", "/v1/orders", "reader", json={"order": transfer()})
    assert answer.status_code == 403
    assert agent.participant.runner.orders == {}


def test_joining_is_for_administrators(agent: Any) -> None:
    body = {"address": "http://vu.test", "credentials": "vu"}
    for role in ("user", "site"):
        answer = agent.call("POST", "/v1/join", role, json=body)
        assert (answer.status_code, answer.json()["kind"]) == (403, "policy"), role
    assert agent.participant.joined == []
    assert agent.call("POST", "/v1/join", json=body).status_code == 204
    assert agent.participant.joined == [("http://vu.test", "vu")]


def test_users_act_in_their_own_name(agent: Any, new_job: Callable[..., JobCreated]) -> None:
    body = {"created": to_document(new_job(user="the-director"))}
    assert agent.call("POST", "/v1/jobs", "user", json=body).json() == {"job": "j1"}
    assert agent.call("GET", "/v1/jobs/j1").json()["user"] == "user-person"
    agent.call("POST", "/v1/orders", "user", json={"order": transfer(user="the-director")})
    assert agent.participant.runner.orders["o1"].user == "user-person"


def test_agents_act_for_their_users(agent: Any, new_job: Callable[..., JobCreated]) -> None:
    agent.call("POST", "/v1/jobs", "site", json={"created": to_document(new_job(user="ann"))})
    assert agent.call("GET", "/v1/jobs/j1").json()["user"] == "ann"
    assert agent.call("POST", "/v1/jobs/j1/cancel", "user").status_code == 403
    assert agent.call("POST", "/v1/jobs/j1/cancel", "site", json={"by": "ann"}).status_code == 204
    assert agent.participant.asked == [("j1", "cancel", "ann")]


def test_a_job_is_stopped_by_its_owner(agent: Any, new_job: Callable[..., JobCreated]) -> None:
    agent.call("POST", "/v1/jobs", "user", json={"created": to_document(new_job())})
    answer = agent.call("POST", "/v1/jobs/j1/suspend", "user", json={"by": "somebody-else"})
    assert answer.status_code == 204
    assert agent.participant.asked == [("j1", "suspend", "user-person")]


def test_a_steward_takes_no_code(steward: Any, new_job: Callable[..., JobCreated]) -> None:
    answer = steward.call("PUT", f"/v1/codes/{DIGEST}", content=b"pickle")
    assert answer.status_code == 403
    assert answer.json()["kind"] == "site-refused"
    body = {"created": to_document(new_job()), "payloads": {DIGEST: "AAAA"}}
    assert steward.call("POST", "/v1/jobs", json=body).status_code == 403
    assert steward.participant.runner.codes == {}
    assert steward.participant.journals == {}


# --- form -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"surprise": 1}, "surprise"),
        ({"replica": {**transfer()["replica"], "surprise": 1}}, "replica.surprise"),
        ({"id": None}, "id"),
        ({"type": "pickle"}, "order"),
        ({"replica": []}, "replica"),
        ({"replica": {**transfer()["replica"], "nbytes": "many"}}, "nbytes"),
    ],
)
def test_wrong_fields_are_named(agent: Any, change: dict[str, Any], where: str) -> None:
    answer = agent.call("POST", "/v1/orders", json={"order": {**transfer(), **change}})
    assert answer.status_code == 400
    kind, (_, _, path) = answer.json()["kind"], answer.json()["args"]
    assert kind == "config"
    assert where in path
    assert agent.participant.runner.orders == {}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"order": NaN}',
        b"[" * 100_000,
        b'{"order": ' + b'{"a":' * 50_000,
        json.dumps({"order": transfer(), "also": 1}).encode(),
    ],
)
def test_malformed_bodies(agent: Any, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = agent.call("POST", "/v1/orders", content=body, headers=headers)
    assert answer.status_code == 400
    assert set(answer.json()) == {"kind", "args"}


def test_a_pickle_is_not_json(agent: Any) -> None:
    import pickle

    headers = {"content-type": "application/python-pickle"}
    answer = agent.call("POST", "/v1/orders", content=pickle.dumps(transfer()), headers=headers)
    assert answer.status_code == 400


@pytest.mark.parametrize("declared", [True, False])
def test_oversized_bodies(agent: Any, declared: bool) -> None:
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 100_000
            yield b"x" * 100_000

    content = b"x" * (2**20 + 1) if declared else pieces()
    answer = agent.call("PUT", f"/v1/codes/{DIGEST}", content=content)
    assert answer.status_code == 413
    assert sent <= 2**20 + 200_000
    assert agent.participant.runner.codes == {}
    assert agent.call("PUT", f"/v1/codes/{DIGEST}", content=b"x" * 2**20).status_code == 204


@pytest.mark.parametrize("length", ["-1", "1e3", "99999999999999999999", "²"])
def test_strange_lengths(agent: Any, length: str) -> None:
    headers = {"content-length": length.encode()}  # as bytes: the client would mend it
    answer = agent.call("POST", "/v1/orders", content=b"{}", headers=headers)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/orders/o1/reports?wait=nan"),
        ("GET", "/v1/orders/o1/reports?wait=-1"),
        ("GET", "/v1/orders/o1/reports?wait=1e9"),
        ("GET", "/v1/orders/o1/reports?since=-1"),
        ("GET", "/v1/orders/o1/reports?since=99999999999999999999999999"),
        ("GET", "/v1/records?since=x"),
        ("GET", "/v1/probe?nbytes=1000000000000"),
        ("POST", "/v1/jobs/j1/destroy"),
        ("PUT", "/v1/codes/..%2f..%2fetc"),
        ("PUT", f"/v1/codes/{DIGEST.upper()}"),
        ("GET", "/v1/jobs/" + "x" * 300),
    ],
)
def test_values_out_of_range(agent: Any, method: str, path: str) -> None:
    answer = agent.call(method, path)
    assert answer.status_code in (400, 404)
    assert set(answer.json()) == {"kind", "args"}


def test_unknown_paths_and_methods(agent: Any) -> None:
    assert agent.call("GET", "/v1/nothing").status_code == 404
    assert agent.call("DELETE", "/v1/site").status_code == 405
    assert agent.call("GET", "/docs").status_code == 404


def test_payloads_are_base64(agent: Any, new_job: Callable[..., JobCreated]) -> None:
    for payloads in ({DIGEST: "A*A="}, {DIGEST: 3}, {"short": "AAAA"}):
        body = {"created": to_document(new_job()), "payloads": payloads}
        assert agent.call("POST", "/v1/jobs", json=body).status_code == 400
    body = {"created": to_document(new_job()), "payloads": {DIGEST: "AAE="}}
    assert agent.call("POST", "/v1/jobs", json=body).status_code == 201
    assert agent.participant.runner.codes == {DIGEST: b"\0\1"}


def test_an_order_for_somebody_else(agent: Any) -> None:
    answer = agent.call("POST", "/v1/orders", json={"order": transfer(site="vu")})
    assert answer.status_code == 403
    assert "for site 'vu'" in answer.json()["args"][1]


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "{data}/../../../etc/passwd",
        "{data}/%2e%2e/secret",
        "{data}x/a",
        "s3://bucket/x",
        "http://169.254.169.254/latest",
    ],
)
def test_only_what_lies_in_a_store_is_registered(agent: Any, url: str) -> None:
    url = url.replace("{data}", agent.participant.data.as_uri())
    answer = agent.call("POST", "/v1/datasets", json={"url": url})
    assert answer.status_code == 403
    assert answer.json()["kind"] == "policy"


def test_registering(agent: Any) -> None:
    body = {"url": agent.participant.data.as_uri() + "/a.zarr", "name": "a", "tags": {"x": "1"}}
    answer = agent.call("POST", "/v1/datasets", "user", json={**body, "owner": "the-director"})
    assert answer.status_code == 201
    assert (answer.json()["name"], answer.json()["owner"]) == ("a", "user-person")


# --- answers ----------------------------------------------------------------------------------


def test_the_site_and_those_it_knows(agent: Any) -> None:
    answer = agent.call("GET", "/v1/site").json()
    assert answer["site"]["name"] == "uva"
    assert [store["name"] for store in answer["stores"]] == ["data"]
    assert set(answer["versions"]) >= {"python", "jupyter-dataflow"}
    assert answer["time"] > 0
    (itself,) = agent.call("GET", "/v1/peers").json()
    assert (itself["site"], itself["answering"]) == ("uva", True)


def test_records_in_pages(agent: Any) -> None:
    page = agent.call("GET", "/v1/records").json()
    assert [row["kind"] for row in page["rows"]] == ["peer", "site", "store"]
    page = agent.call("GET", "/v1/records?site=uva&since=1").json()
    assert (page["site"], [row["seq"] for row in page["rows"]]) == ("uva", [2, 3])
    page = agent.call("GET", "/v1/records?site=nobody").json()
    assert page == {"site": "nobody", "epoch": "", "rows": []}


def test_hints_wake_the_sync(agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = []

    async def hint(*args: Any, **named: Any) -> None:
        heard.append((*args, *named.values()))

    monkeypatch.setattr(agent.participant.sync, "hint", hint)
    body = {"site": "vu", "sequence": 3, "epoch": "e", "address": "http://vu.test"}
    assert agent.call("POST", "/v1/hint", "user", json=body).status_code == 204
    assert agent.call("POST", "/v1/hint", "site", json=body).status_code == 204
    assert heard == [("vu", 3, "e", None), ("vu", 3, "e", "http://vu.test")]


def test_news_end_a_poll_at_once(agent: Any) -> None:
    async def scenario() -> Any:
        transport = httpx2.ASGITransport(agent.app)
        headers = {"authorization": "Bearer admin-token-0123456789"}
        async with (
            asyncio.timeout(25),
            httpx2.AsyncClient(transport=transport, headers=headers) as http,
        ):
            url = "http://uva.test/v1/records?since=3&wait=30"
            poll = asyncio.create_task(http.get(url))
            await asyncio.sleep(0.1)
            records = agent.participant.records
            await asyncio.to_thread(records.put, "measurement", "m", {"a": 1})
            return (await poll).json()

    assert [row["id"] for row in agent.run(scenario())["rows"]] == ["m"]


def test_an_empty_poll_ends_in_time(agent: Any) -> None:
    began = time.monotonic()
    assert agent.call("GET", "/v1/records?since=3&wait=0.2").json()["rows"] == []
    assert time.monotonic() - began >= 0.2


def test_stopping_ends_all_polls(agent: Any) -> None:
    async def scenario() -> list[Any]:
        async with agent.client() as client:
            await agent.participant.runner.start(_order())
            polls = [
                asyncio.create_task(client.follow("o1", 1, 30)),
                asyncio.create_task(
                    client._way.ask(
                        "GET", "/v1/records", query={"since": 3, "wait": 30}, seconds=40
                    )
                ),
            ]
            await asyncio.sleep(0.2)
            assert not any(poll.done() for poll in polls)
            agent.app.state.stopping.set()
            async with asyncio.timeout(5):
                return await asyncio.gather(*polls)

    reports, page = agent.run(scenario())
    assert reports == []
    assert json.loads(page)["rows"] == []


def _order() -> Any:
    from dataflow.documents import from_document
    from dataflow.execution.events import TransferOrder

    return from_document(TransferOrder, transfer())


def test_orders_from_start_to_end(agent: Any) -> None:
    assert agent.call("POST", "/v1/orders", json={"order": transfer()}).status_code == 204
    reports = agent.call("GET", "/v1/orders/o1/reports").json()
    assert reports == [to_document(Progress(done=0, total=1, message="begun"))]
    assert agent.call("POST", "/v1/orders/o1/cancel").status_code == 204
    assert agent.call("GET", "/v1/orders/o1/reports?since=1").json() == [to_document(Ended())]
    assert agent.call("POST", "/v1/orders/never-heard-of/cancel").status_code == 204
    answer = agent.call("GET", "/v1/orders/never-heard-of/reports")
    assert answer.status_code == 404
    assert answer.json() == {"kind": "unknown-order", "args": ["never-heard-of"]}


def test_an_order_is_its_user_s(agent: Any) -> None:
    theirs = {"order": transfer(id="theirs", user="ann")}
    assert agent.call("POST", "/v1/orders", "site", json=theirs).status_code == 204
    own = {"order": transfer(id="own", user="ann")}
    assert agent.call("POST", "/v1/orders", "user", json=own).status_code == 204
    for role in ("user", "reader"):
        answer = agent.call("GET", "/v1/orders/theirs/reports", role)
        assert (answer.status_code, answer.json()["kind"]) == (403, "policy")
        assert "ann" not in answer.text
    assert agent.call("POST", "/v1/orders/theirs/cancel", "user").status_code == 403
    assert len(agent.participant.runner.reports["theirs"]) == 1
    assert agent.call("GET", "/v1/orders/own/reports", "user").status_code == 200
    assert agent.call("POST", "/v1/orders/own/cancel", "user").status_code == 204
    assert agent.call("POST", "/v1/orders/nobody-s/cancel", "user").status_code == 204
    assert agent.call("GET", "/v1/orders/nobody-s/reports", "user").status_code == 404
    assert agent.call("GET", "/v1/orders/theirs/reports", "site").status_code == 200
    assert agent.call("POST", "/v1/orders/theirs/cancel", "site").status_code == 204


def test_whose_orders_a_real_runner_has(agent: Any) -> None:
    assert isinstance(agent.participant.runner, KnowsOwners)
    assert issubclass(SiteRunner, KnowsOwners)


def test_an_order_of_a_runner_that_knows_no_owners(
    agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Simple:
        async def cancel(self, order: str) -> None:
            cancelled.append(order)

    cancelled: list[str] = []
    monkeypatch.setattr(agent.participant, "runner", Simple())
    assert agent.call("POST", "/v1/orders/o1/cancel", "user").status_code == 403
    assert agent.call("POST", "/v1/orders/o1/cancel", "admin").status_code == 204
    assert cancelled == ["o1"]


def test_codes_that_are_missing(agent: Any) -> None:
    other = "cd" * 32
    agent.call("PUT", f"/v1/codes/{DIGEST}", content=b"\x80not opened here")
    answer = agent.call("POST", "/v1/codes/missing", json={"codes": [other, DIGEST]})
    assert answer.json() == [other]


def test_jobs_and_their_journal(agent: Any, new_job: Callable[..., JobCreated]) -> None:
    created = new_job()
    agent.call("POST", "/v1/jobs", json={"created": to_document(created)})
    assert [job["id"] for job in agent.call("GET", "/v1/jobs").json()] == ["j1"]
    agent.call("POST", "/v1/jobs/j1/cancel")
    events = agent.call("GET", "/v1/jobs/j1/events").json()
    assert [event["type"] for event in events] == ["job-created", "asked"]
    assert agent.call("GET", "/v1/jobs/j1/events?since=2&wait=0.05").json() == []
    answer = agent.call("GET", "/v1/jobs/j2")
    assert (answer.status_code, answer.json()["kind"]) == (404, "unknown-job")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (JobCancelled("j1", "ann"), 409),
        (SiteUnreachable("vu", "no route"), 503),
        (TransferFailed("a", "b", "c", "d"), 503),
        (NoAllowedSite("mean", {"amc": "no"}), 409),
    ],
)
def test_errors_are_documents(
    agent: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    async def fails() -> Any:
        raise error

    monkeypatch.setattr(agent.participant, "jobs", fails)
    answer = agent.call("GET", "/v1/jobs")
    assert answer.status_code == status
    assert answer.json() == {"kind": error.kind, "args": list(error.args)}  # type: ignore[attr-defined]


@pytest.mark.usefixtures("plain_logs")
def test_unforeseen_errors_say_nothing(agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails() -> Any:
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr(agent.participant, "jobs", fails)
    with capture_logs() as logs:
        answer = agent.call("GET", "/v1/jobs")
    assert [line["event"] for line in logs] == ["request_failed"]
    assert answer.status_code == 500
    assert answer.json()["kind"] == "dataflow"
    assert "swordfish" not in answer.text


# --- description ------------------------------------------------------------------------------


def test_every_route_is_described(agent: Any) -> None:
    document = agent.call("GET", "/openapi.json").json()
    identifiers = set()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            assert operation["tags"], (method, path)
            identifiers.add(operation["operationId"])
            if path != "/v1/health":
                assert "401" in operation["responses"], (method, path)
            assert any(status.startswith("2") for status in operation["responses"])
    assert len(identifiers) == sum(len(methods) for methods in document["paths"].values())
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
