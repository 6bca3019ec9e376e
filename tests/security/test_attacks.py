"""Attacks: each is refused, tells nothing, and leaves one entry in the audit log.

Whoever attacks is a stranger, a user who is granted something else, a third party that is not
permitted, or one that is and wants more.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
import wages

from dataflow.agreements import Agreement, Relation, Request
from dataflow.datasets import Replica
from dataflow.documents import to_document, to_json
from dataflow.execution.events import SegmentOrder, TransferOrder
from dataflow.graph.anonymity import common_rows
from dataflow.graph.hiding import without_columns
from dataflow.graph.operation import operation
from tests.security.conftest import BODY_LIMIT, GRANTED, OTHERS, SECRET, THROUGH, TOKENS, Target

Attack = Callable[[Target], Any]
ATTACKS: dict[str, Attack] = {}

ANNA = f"Bearer {TOKENS['anna']}"
FETCH = Request(type="sqlDataRequest", purpose="study", archetypes={"vu": "fetch"})
STUDY = replace(GRANTED, purpose="study")
STUDY_THROUGH = replace(THROUGH, purpose="study")


def attack(name: str) -> Callable[[Attack], Attack]:
    def enter(one: Attack) -> Attack:
        assert name not in ATTACKS
        ATTACKS[name] = one
        return one

    return enter


# --- who is it -----------------------------------------------------------------------------------

HEADERS = {
    "no token": "",
    "an empty token": "Bearer ",
    "another scheme": f"Basic {TOKENS['anna']}",
    "an unknown token": "Bearer 0123456789abcdef0123456789",
    "a shortened token": ANNA[:-1],
    "a lengthened token": ANNA + "x",
    "a token in capitals": f"Bearer {TOKENS['anna'].upper()}",
    "the digest of a token": "Bearer sha256:" + hashlib.sha256(TOKENS["anna"].encode()).hexdigest(),
    "two tokens": f"Bearer {TOKENS['anna']}, Bearer {TOKENS['root']}",
    "a token of other letters": "Bearer " + TOKENS["anna"].replace("a", "\u00e0"),
}
for name, header in HEADERS.items():
    value = header.encode("utf-8")
    attack(f"token: {name}")(
        lambda t, value=value: t.send(
            "GET", "/v1/agreements", None, headers={"authorization": value} if value else {}
        )
    )

attack("token: in the address")(
    lambda t: t.send("GET", f"/v1/agreements?token={TOKENS['root']}", None)
)
attack("token: in a cookie")(
    lambda t: t.send("GET", "/v1/agreements", None, headers={"cookie": f"token={TOKENS['root']}"})
)
attack("token: none, for what has no route")(lambda t: t.send("GET", "/v1/../../etc/passwd", None))


@attack("token: replayed after it was taken back")
def replayed(target: Target) -> Any:
    before = target.tokens.read_text()
    lines = [line for line in before.splitlines() if " eve " not in line]
    try:
        target.tokens.write_text("\n".join(lines) + "\n")
        return target.send("GET", "/v1/agreements", "eve")
    finally:
        target.tokens.write_text(before)


# --- what may he -----------------------------------------------------------------------------------

OPEN = Relation(
    id="mine",
    users=("*",),
    request_types=("*",),
    datasets=("*",),
    archetypes=("*",),
    compute_providers=("*",),
)


def agreement(site: str = "vu", name: str = "wages", *relations: Relation) -> dict[str, Any]:
    relations = relations or (OPEN,)
    return {"agreement": to_document(Agreement(name=name, site=site, relations=relations))}


for who in ("eve", "surf", "reader"):
    attack(f"rights: {who} makes an agreement")(
        lambda t, who=who: t.send("PUT", "/v1/agreements/wages", who, json=agreement())
    )
attack("rights: an agreement is taken back by a user")(
    lambda t: t.send("DELETE", "/v1/agreements/wages", "eve")
)
attack("rights: an agreement about data of another site")(
    lambda t: t.send("PUT", "/v1/agreements/wages", "root", json=agreement("uva"))
)
attack("rights: an agreement under another name")(
    lambda t: t.send("PUT", "/v1/agreements/other", "root", json=agreement())
)
attack("rights: two relations of one id")(
    lambda t: t.send(
        "PUT", "/v1/agreements/wages", "root", json=agreement("vu", "wages", OPEN, OPEN)
    )
)
for who in ("eve", "desk"):
    attack(f"rights: {who} joins a site")(
        lambda t, who=who: t.send(
            "POST", "/v1/join", who, json={"address": "http://evil.test", "credentials": "vu"}
        )
    )
attack("rights: a user registers data of the steward as his own")(
    lambda t: t.send(
        "POST",
        "/v1/datasets",
        "eve",
        json={"url": (t.data / "other.parquet").as_uri(), "tags": {"topic": "wages"}},
    )
)
attack("rights: an administrator registers what lies in no store")(
    lambda t: t.send("POST", "/v1/datasets", "root", json={"url": "file:///etc/passwd"})
)
attack("rights: an administrator registers what lies beside a store")(
    lambda t: t.send(
        "POST", "/v1/datasets", "root", json={"url": t.data.as_uri() + "/../state/catalog.db"}
    )
)
attack("rights: a reader gives an order")(
    lambda t: t.give(t.order(wages.average(t.source("wageGap"))), "reader")
)


# --- bytes -----------------------------------------------------------------------------------------


def read(
    target: Target,
    who: str,
    replica: str,
    request: Request | None = None,
    path: str = "",
    **headers: str,
) -> Any:
    told = {f"x-dataflow-{name}": value for name, value in headers.items()}
    if request is not None:
        told["x-dataflow-request"] = quote(to_json(request, Request))
    where = f"/v1/data/{replica}" + (f"/{path}" if path else "")
    return target.send("GET", where, who, headers=told)


attack("read: by a user whom no relation is for")(lambda t: read(t, "eve", t.id("wageGap"), STUDY))
attack("read: raw rows under computeToData")(lambda t: read(t, "anna", t.id("wageGap"), STUDY))
attack("read: under an archetype that is not granted")(
    lambda t: read(t, "anna", t.id("wageGap"), FETCH)
)
attack("read: without a request")(lambda t: read(t, "anna", t.id("wageGap")))
attack("read: with another type of request")(
    lambda t: read(t, "anna", t.id("wageGap"), replace(FETCH, type="genericRequest"))
)
attack("read: for another purpose")(
    lambda t: read(t, "surf", t.id("wageGap"), replace(STUDY_THROUGH, purpose="ads"), user="anna")
)
attack("read: in the name of somebody else")(
    lambda t: read(t, "eve", t.id("wageGap"), STUDY, user="anna")
)
attack("read: a user says that he is the third party")(
    lambda t: read(t, "anna", t.id("wageGap"), STUDY_THROUGH, to="surf")
)
attack("read: by a third party that is not permitted")(
    lambda t: read(t, "desk", t.id("wageGap"), STUDY_THROUGH, user="anna")
)
attack("read: by one that says it is for another")(
    lambda t: read(t, "desk", t.id("wageGap"), STUDY_THROUGH, user="anna", to="surf")
)
attack("read: a permitted one takes it on to another site")(
    lambda t: read(t, "surf", t.id("wageGap"), STUDY_THROUGH, user="anna", to="desk")
)
attack("read: a third party for a user whom nothing is granted")(
    lambda t: read(t, "surf", t.id("wageGap"), STUDY_THROUGH, user="eve")
)
attack("read: a third party for nobody")(lambda t: read(t, "surf", t.id("wageGap"), STUDY_THROUGH))
attack("read: a third party under computeToData")(
    lambda t: read(t, "surf", t.id("wageGap"), STUDY, user="anna")
)
attack("read: before what is forced")(
    lambda t: read(t, "surf", t.id("forced"), STUDY_THROUGH, user="anna")
)
attack("read: hidden columns")(lambda t: read(t, "anna", t.id("hidden"), FETCH))
attack("read: after the relation ran out")(
    lambda t: read(t, "surf", t.id("expired"), STUDY_THROUGH, user="anna")
)
attack("read: what no relation is about")(
    lambda t: read(t, "surf", t.id("other"), STUDY_THROUGH, user="anna")
)
attack("read: somebody else's result")(lambda t: read(t, "eve", _id(t.result), STUDY))
attack("read: somebody else's result, for him by his site")(
    lambda t: read(t, "desk", _id(t.result), STUDY, user="eve")
)
attack("read: one range of it")(
    lambda t: t.send(
        "GET", f"/v1/data/{t.id('wageGap')}/wageGap.parquet", "eve", headers={"range": "bytes=0-9"}
    )
)
attack("read: how long it is")(
    lambda t: t.send("HEAD", f"/v1/data/{t.id('wageGap')}/wageGap.parquet", "eve")
)
attack("read: all at once")(lambda t: t.send("GET", f"/v1/archives/{t.id('wageGap')}", "eve"))
attack("read: a request that is no request")(
    lambda t: t.send(
        "GET", f"/v1/data/{t.id('wageGap')}", "anna", headers={"x-dataflow-request": "{"}
    )
)
attack("read: by the key in place of the id")(
    lambda t: read(t, "anna", t.datasets["wageGap"].key, STUDY)
)
attack("read: by its name")(lambda t: read(t, "anna", "wageGap", STUDY))
attack("read: a copy at another site")(lambda t: read(t, "anna", _id(t.foreign), STUDY))

for way in (
    "..%2fstate%2fcatalog.db",
    "%2e%2e/state/audit.jsonl",
    "inside.txt/../../tokens",
    "..%5ctokens",
    "%00",
    "/etc/passwd",
    "out.txt",
):
    attack(f"path: {way}")(
        lambda t, way=way: t.send(
            "GET",
            f"/v1/data/{_id(t.tree)}/{way}",
            "anna",
            headers={"x-dataflow-request": quote(to_json(FETCH, Request))},
        )
    )


def _id(replica: Replica) -> str:
    from dataflow.catalog.entries import replica_id

    return replica_id(replica)


# --- orders ----------------------------------------------------------------------------------------


@operation(role="computeProvider", name="sql-algorithm", version="1", lazy=False)
def disguised(table: Any) -> Any:
    """The name of what is installed, and other code."""
    return table


@operation(role="dataProvider", name="sql-anonymize", version="1", lazy=False)
def not_anonymous(table: Any) -> Any:
    return table


@operation(role="computeProvider", version="1", lazy=False)
def everything(table: Any) -> Any:
    return table


def granted(target: Target, name: str = "wageGap") -> SegmentOrder:
    return target.order(wages.average(target.source(name)))


def with_step(order: SegmentOrder, **changes: Any) -> SegmentOrder:
    (step,) = order.steps
    return replace(order, steps=(replace(step, **changes),))


def with_input(target: Target, **changes: Any) -> SegmentOrder:
    order = granted(target)
    ((key, copy),) = order.inputs.items()
    return replace(order, inputs={key: replace(copy, **changes)})


attack("order: for another site")(lambda t: t.give(replace(granted(t), site="uva")))
attack("order: by a user whom no relation is for")(lambda t: t.give(granted(t), "eve"))
attack("order: in the name of somebody else")(
    lambda t: t.give(replace(granted(t), user=OTHERS), "eve")
)
attack("order: what no relation is about")(lambda t: t.give(granted(t, "other")))
attack("order: hidden columns, at home")(lambda t: t.give(granted(t, "hidden")))
attack("order: hidden columns through a query")(
    lambda t: t.give(t.order(wages.average(wages.query(t.source("hidden")))))
)
attack("order: other columns hidden than those that are")(
    lambda t: t.give(
        t.order(wages.average(without_columns(t.source("hidden"), columns=["Salschal"])))
    )
)
attack("order: rows that single somebody out")(lambda t: t.give(granted(t, "alike")))
attack("order: rows that single somebody out, through a query")(
    lambda t: t.give(t.order(wages.average(wages.query(t.source("alike")))))
)
for fewer, wanted in {
    "fewer rows": (1, ["Gebdat", "Geslacht"]),
    "fewer columns": (2, ["Gebdat"]),
}.items():
    attack(f"order: rows that single somebody out, with {fewer} alike")(
        lambda t, k=wanted[0], among=wanted[1]: t.give(
            t.order(wages.average(common_rows(t.source("alike"), k=k, among=among)))
        )
    )
attack("read: rows that single somebody out, where fetching is granted")(
    lambda t: read(t, "anna", t.id("alike"), FETCH)
)
attack("order: after the relation ran out")(lambda t: t.give(granted(t, "expired")))
attack("order: with fewer rows than the floor")(lambda t: t.give(granted(t, "floor")))
attack("order: before what is forced")(lambda t: t.give(granted(t, "forced")))
attack("order: with what only has the name of what is forced")(
    lambda t: t.give(t.order(wages.average(not_anonymous(t.source("forced")))))
)
attack("order: two owners' rows, one of them not granted")(
    lambda t: t.give(t.order(wages.average_of_all(t.source("wageGap"), t.source("other"))))
)
attack("order: another type of request")(
    lambda t: t.give(replace(granted(t), request=replace(STUDY, type="genericRequest")))
)
attack("order: another purpose")(
    lambda t: t.give(replace(granted(t), request=replace(STUDY, purpose="ads")))
)
attack("order: no archetype")(
    lambda t: t.give(replace(granted(t), request=replace(STUDY, archetypes={})))
)
attack("order: an archetype that nobody knows")(
    lambda t: t.give(replace(granted(t), request=replace(STUDY, archetypes={"vu": "mine"})))
)
attack("order: the archetype under which it computes elsewhere")(
    lambda t: t.give(replace(granted(t), request=STUDY_THROUGH))
)
attack("order: an operation that is not installed")(
    lambda t: t.give(t.order(everything(t.source("wageGap"))))
)
attack("order: the right name and other code")(
    lambda t: t.give(t.order(disguised(t.source("wageGap"))))
)
attack("order: the right name and another version")(
    lambda t: t.give(with_step(granted(t), operation=replace(wages.average.operation, version="2")))
)
attack("order: another label for what is installed")(
    lambda t: t.give(
        with_step(granted(t), operation=replace(wages.average.operation, role="dataProvider"))
    )
)
attack("order: what is installed, as a command")(
    lambda t: t.give(
        with_step(granted(t), operation=replace(wages.average.operation, command="cat {table}"))
    )
)
attack("order: a reference to another module")(
    lambda t: t.give(
        with_step(granted(t), operation=replace(wages.average.operation, reference="os:system"))
    )
)
attack("order: the key of another step")(lambda t: t.give(with_step(granted(t), key="k-result")))
attack("order: edited parameters under the old key")(
    lambda t: t.give(with_step(granted(t), parameters={"seconds": 9.0}))
)
attack("order: a combined step that proves nothing")(
    lambda t: t.give(with_step(granted(t), stage="combine"))
)
attack("order: a combined step with the wrong proof")(
    lambda t: t.give(
        replace(
            with_step(granted(t), stage="combine", key="k-result"),
            originals=granted(t).steps,
            outputs=("k-result",),
        )
    )
)
attack("order: a merged step that proves nothing")(
    lambda t: t.give(with_step(granted(t), stage="merge", parts=(0,)))
)
attack("order: a part of nothing")(
    lambda t: t.give(with_step(granted(t), stage="part", absent=(("x", "k"),), parts=(0,)))
)
attack("order: an input from any path")(lambda t: t.give(with_input(t, url="file:///etc/passwd")))
attack("order: an input beside the store")(
    lambda t: t.give(with_input(t, url=t.data.as_uri() + "/../tokens"))
)
attack("order: an input from the network")(
    lambda t: t.give(with_input(t, url="http://169.254.169.254/latest"))
)
attack("order: an input of another site")(lambda t: t.give(with_input(t, site="uva")))


@attack("order: data that are not granted, under the key of some that are")
def other_data(target: Target) -> Any:
    order = granted(target)
    (key,) = order.inputs
    return target.give(replace(order, inputs={key: target.copy("other")}))


@attack("order: data that are not granted, with that key written on them")
def relabelled(target: Target) -> Any:
    order = granted(target)
    (key,) = order.inputs
    return target.give(replace(order, inputs={key: replace(target.copy("other"), key=key)}))


@attack("order: a dataset's record that says that it is a result")
def relabelled_record(target: Target) -> Any:
    order = granted(target, "other")
    ((key, dataset),) = order.datasets.items()
    result = target.records.get("dataset", "d-result")
    return target.give(
        replace(order, datasets={key: replace(dataset, lineage=result.lineage, owner="anna")})
    )


@attack("order: a record that has more rows than there are")
def more_rows(target: Target) -> Any:
    order = granted(target, "floor")
    ((key, dataset),) = order.datasets.items()
    variables = tuple(replace(variable, shape=(10_000,)) for variable in dataset.extent.variables)
    grown = replace(dataset, extent=replace(dataset.extent, variables=variables))
    return target.give(replace(order, datasets={key: grown}))


@attack("order: a relayed copy, brought to a steward by a user")
def brought(target: Target) -> Any:
    return target.give(
        TransferOrder(
            id="brought",
            job="j",
            site="vu",
            key="k-far",
            replica=target.foreign,
            relayed=True,
            user="anna",
        )
    )


@attack("order: a copy under the key of something else")
def wrong_copy(target: Target) -> Any:
    return target.give(
        TransferOrder(id="wrong", job="j", site="vu", key="k-result", replica=target.foreign)
    )


# --- bodies ----------------------------------------------------------------------------------------

attack("code: to a steward")(
    lambda t: t.send("PUT", f"/v1/codes/{'ab' * 32}", "anna", content=pickle.dumps(print))
)
attack("code: by an agent")(
    lambda t: t.send("PUT", f"/v1/codes/{'ab' * 32}", "surf", content=pickle.dumps(print))
)
attack("code: with a path for a digest")(
    lambda t: t.send("PUT", "/v1/codes/..%2f..%2fx", "surf", content=b"x")
)

JSON = {"content-type": "application/json"}
BODIES: dict[str, bytes] = {
    "not JSON": b"{",
    "a pickle": pickle.dumps({"order": 1}),
    "a list": b"[]",
    "nothing": b"",
    "an order of an unknown type": b'{"order": {"type": "shell", "id": "x"}}',
    "a field too many": b'{"order": {"type": "segment"}, "admin": true}',
    "numbers that are none": b'{"order": {"type": "segment", "walltime": NaN}}',
    "half a letter": b'{"order": {"type": "segment", "id": "\\ud800"}}',
    "very deep": b'{"order": ' + b"[" * 2000 + b"]" * 2000 + b"}",
    "very long": b'{"order": "' + b"x" * (BODY_LIMIT + 1) + b'"}',
}
for name, body in BODIES.items():
    attack(f"body: {name}")(
        lambda t, body=body: t.send("POST", "/v1/orders", "anna", content=body, headers=JSON)
    )


@attack("body: very long, and it does not say so")
def endless(target: Target) -> Any:
    async def pieces() -> Any:
        for _ in range(BODY_LIMIT // 1024 + 2):
            yield b"x" * 1024

    return target.send("POST", "/v1/orders", "anna", content=pieces(), headers=JSON)


attack("body: a length that is none")(
    lambda t: t.send(
        "POST", "/v1/orders", "anna", content=b"{}", headers={**JSON, "content-length": "-1"}
    )
)


def test_there_are_enough() -> None:
    assert len(ATTACKS) >= 60


@pytest.mark.parametrize("name", ATTACKS)
def test_it_is_refused_tells_nothing_and_is_written_down(target: Target, name: str) -> None:
    before, version = len(target.refusals()), target.records.latest("vu")
    answer = ATTACKS[name](target)
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:500])
    said = answer.text + json.dumps(dict(answer.headers))
    for word in (SECRET, OTHERS, "root:x:", "Traceback", *TOKENS.values()):
        assert word not in said
    # Paths of the site are its own business, save those that the attacker wrote himself.
    assert str(target.folder / "state") not in said
    assert str(target.tokens) not in said
    entries = target.refusals()[before:]
    assert len(entries) == 1, entries
    (entry,) = entries
    for token in TOKENS.values():
        assert token not in json.dumps(entry)
    assert target.records.latest("vu") == version, "something was changed"
    assert not target.participant.runner.busy, "something was begun"
