"""Any request that the description allows, and any that it does not, has an answer that is one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataflow.documents import to_document
from dataflow.execution.events import JobCreated

ANY_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from(["../..", "file:///etc/passwd", "\x00", "transfer", "segment", "1e999"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)
WORDS = st.text(max_size=30) | st.sampled_from(["j1", "o1", "..", "cancel", "ab" * 32, "%2e%2e"])


def sound_bodies(job: JobCreated) -> dict[str, Any]:
    """A body that each route takes, by the route's path."""
    order = {
        "type": "transfer",
        "id": "o1",
        "job": "j1",
        "site": "uva",
        "key": "k",
        "replica": {
            "key": "k",
            "site": "vu",
            "store": "s",
            "url": "file:///x",
            "format": "zarr",
            "nbytes": 1,
        },
    }
    return {
        "/v1/jobs": {"created": to_document(job), "payloads": {"ab" * 32: "AAAA"}},
        "/v1/orders": {"order": order},
        "/v1/hint": {"site": "vu", "sequence": 1, "epoch": "e"},
        "/v1/join": {"address": "http://vu.test", "credentials": None},
        "/v1/datasets": {"url": "file:///x", "name": "x", "tags": {"a": "b"}},
        "/v1/codes/missing": {"codes": ["ab" * 32]},
        "/v1/jobs/{job}/{what}": {"by": "ann"},
    }


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, part in items:
            yield from places(part, (*path, name))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    value = copy.copy(value)
    value[path[0]] = replaced(value[path[0]], path[1:], new)
    return value


def filled(path: str, words: list[str]) -> str:
    while "{" in path:
        before, _, rest = path.partition("{")
        path = before + quote(words.pop(), safe="") + rest.partition("}")[2]
    return path


def sound(answer: Any) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        document = answer.json()
        assert set(document) == {"kind", "args"}
        assert isinstance(document["kind"], str)
        assert isinstance(document["args"], list)


@settings(
    max_examples=400,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_no_request_breaks_the_agent(
    shared_agent: Any, new_job: Callable[..., JobCreated], data: st.DataObject
) -> None:
    described = shared_agent.call("GET", "/openapi.json").json()["paths"]
    path, methods = data.draw(st.sampled_from(sorted(described.items())))
    method = data.draw(st.sampled_from(sorted(methods)))
    words = data.draw(st.lists(WORDS, min_size=2, max_size=2))
    parameters = [p["name"] for p in methods[method].get("parameters", []) if p["in"] == "query"]
    query = {
        name: data.draw(WORDS | st.integers().map(str) | st.floats().map(str))
        for name in parameters
        if name != "wait" and data.draw(st.booleans())
    }
    options: dict[str, Any] = {"params": query}
    bodies = sound_bodies(new_job())
    if path in bodies:
        body = bodies[path]
        for _ in range(data.draw(st.integers(0, 3))):
            chosen = data.draw(st.sampled_from(list(places(body))))
            body = replaced(body, chosen, data.draw(ANY_JSON))
        options["content"] = json.dumps(body).encode("utf-8", "surrogatepass")
        options["headers"] = {"content-type": "application/json"}
    elif method == "put":
        options["content"] = data.draw(st.binary(max_size=100))
    role = data.draw(st.sampled_from(["admin", "user", "reader", "site"]))
    sound(shared_agent.call(method.upper(), filled(path, words), role, **options))


@pytest.mark.parametrize(
    "poison",
    [
        '{"x": NaN}',
        '{"x": -Infinity}',
        '{"x": 1e999}',
        '{"x": "\\ud800"}',
        '{"\\udfff": 1}',
        '{"x": ' + "1" * 5000 + "}",
        "[" * 300 + "]" * 300,
    ],
)
def test_what_could_not_be_read_out_again_is_not_taken_in(
    agent: Any, new_job: Callable[..., JobCreated], poison: str
) -> None:
    body = to_document(new_job())
    body["plan"]["options"] = "POISON"
    text = json.dumps({"created": body}).replace('"POISON"', poison)
    headers = {"content-type": "application/json"}
    answer = agent.call("POST", "/v1/jobs", content=text.encode(), headers=headers)
    assert answer.status_code == 400, answer.text
    assert agent.participant.journals == {}


def test_deep_and_odd_parameters_come_back(agent: Any, new_job: Callable[..., JobCreated]) -> None:
    body = to_document(new_job())
    deep: Any = ["😀", "\u0000", 2**80, -0.0]
    for _ in range(60):
        deep = {"a": [deep]}
    body["plan"]["options"] = deep
    assert agent.call("POST", "/v1/jobs", json={"created": body}).status_code == 201
    assert agent.call("GET", "/v1/jobs/j1/events").json()[0]["plan"]["options"] == deep
