"""Routes of negotiations: whose turn it is, and whose business."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dataflow.agreements import Agreement, Relation
from dataflow.documents import to_document
from dataflow.errors import ConfigError, OutOfOrder, PolicyError, UnknownNegotiation
from dataflow.participant.negotiating import MOST_ENDED, MOST_OPEN

WANTED = Relation(
    id="", request_types=("mean",), datasets=("run1",), archetypes=("fetch",), purposes=("study",)
)


@pytest.fixture
def open_agent(agent: Any) -> Any:
    agent.run(agent.client("admin").agree(Agreement(name="runs", site="uva")))
    return agent


def test_to_the_end(open_agent: Any) -> None:
    run, user, admin = open_agent.run, open_agent.client("user"), open_agent.client("admin")
    asked = run(user.negotiate("runs", WANTED))
    assert (asked.state, asked.user, asked.site) == ("requested", "user-person", "uva")
    offered = run(admin.move(asked.id, "offer", WANTED))
    assert offered.state == "offered"
    for client, move, state in (
        (user, "accept", "accepted"),
        (admin, "agree", "agreed"),
        (user, "verify", "verified"),
    ):
        assert run(client.move(asked.id, move)).state == state
        (agreement,) = run(admin.agreements())
        assert agreement.relations == (), "nothing is granted before the end"
    final = run(admin.move(asked.id, "finalize"))
    assert final.state == "finalized"
    (agreement,) = run(admin.agreements())
    (relation,) = agreement.relations
    assert (relation.id, relation.users, relation.origin) == (asked.id, ("user-person",), "agreed")
    assert run(user.negotiation(asked.id)) == final
    steps = [(step.side, step.by) for step in final.steps]
    assert steps[:2] == [("consumer", "user-person"), ("provider", "admin-person")]


def test_out_of_order_foreign_and_unknown(open_agent: Any) -> None:
    run, user, admin = open_agent.run, open_agent.client("user"), open_agent.client("admin")
    asked = run(user.negotiate("runs", WANTED))
    for move, status in (("verify", 409), ("agree", 409), ("finalize", 409), ("sign", 400)):
        path = f"/v1/negotiations/{asked.id}/{move}"
        assert open_agent.call("POST", path, "user", json={}).status_code == status
    with pytest.raises(OutOfOrder, match="it can terminate"):
        run(user.move(asked.id, "accept"))
    theirs = run(admin.negotiate("runs", WANTED, "somebody"))
    assert theirs.state == "offered"
    for path, method in (("", "GET"), ("/accept", "POST"), ("/terminate", "POST")):
        body = {} if method == "GET" else {"json": {}}
        answer = open_agent.call(method, f"/v1/negotiations/{theirs.id}{path}", "user", **body)
        assert answer.status_code == 403
        assert "somebody" not in answer.text
    assert run(admin.negotiation(theirs.id)) == theirs
    with pytest.raises(UnknownNegotiation):
        run(user.move("0" * 16, "accept"))
    assert open_agent.call("GET", "/v1/negotiations/none", "user").status_code == 404


def test_who_may_do_what(open_agent: Any) -> None:
    run, user = open_agent.run, open_agent.client("user")
    body = {"agreement": "runs", "terms": to_document(WANTED)}
    for role in ("reader", "site"):
        assert open_agent.call("POST", "/v1/negotiations", role, json=body).status_code == 403
    assert open_agent.call("GET", "/v1/negotiations", "site").status_code == 403
    with pytest.raises(PolicyError, match="administrators"):
        run(user.negotiate("runs", WANTED, "somebody"))
    with pytest.raises(PolicyError, match="no agreement 'none'"):
        run(user.negotiate("none", WANTED))
    terms = {**to_document(WANTED), "datasets": []}
    body = {"agreement": "runs", "terms": terms}
    assert open_agent.call("POST", "/v1/negotiations", "user", json=body).status_code == 400
    mine = run(user.negotiate("runs", WANTED))
    run(open_agent.client("admin").negotiate("runs", WANTED, "somebody"))
    assert run(user.negotiations()) == [mine]
    assert len(run(open_agent.client("admin").negotiations())) == 2


def test_nobody_fills_the_table(open_agent: Any) -> None:
    run, user = open_agent.run, open_agent.client("user")
    made = [run(user.negotiate("runs", WANTED)) for _ in range(MOST_OPEN)]
    with pytest.raises(PolicyError, match="end some"):
        run(user.negotiate("runs", WANTED))
    run(user.move(made[0].id, "terminate"))
    run(user.negotiate("runs", WANTED))


def test_ended_ones_are_forgotten_and_long_ones_refused(open_agent: Any) -> None:
    run, user = open_agent.run, open_agent.client("user")
    made = []
    for _ in range(MOST_ENDED + 2):
        made.append(run(user.negotiate("runs", WANTED)).id)
        run(user.move(made[-1], "terminate"))
    made.append(run(user.negotiate("runs", WANTED)).id)
    assert {one.id for one in run(user.negotiations())} == set(made[2:]), "the oldest are gone"
    assert run(user.negotiations())[0].id == made[-1], "open ones first"
    long = replace(WANTED, datasets=tuple(f"{n:0100}" for n in range(700)))
    with pytest.raises(ConfigError, match="bytes of JSON"):
        run(user.negotiate("runs", long))
    with pytest.raises(ConfigError, match="less than 0"):
        run(user.negotiate("runs", replace(WANTED, row_floor=-5)))
