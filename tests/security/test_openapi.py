"""Requests made by the agent's own description: answered or refused, never broken, and nothing is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.core import NotSet
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from dataflow.agent.door import OPEN_PATHS
from dataflow.participant import jobs
from tests.security.conftest import OTHERS, PEOPLE, SECRET, TOKENS, Target

#: An administrator who joins a site makes the agent ask at whatever address was made up.
NOT_BY_ADMINISTRATORS = ("/v1/join",)
#: How long a made-up request waits for news.
WAITS = "wait"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One of its own: administrators are let in here, and change what they like."""
    made = Target(tmp_path_factory.mktemp("described"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "HEARSAY_SECONDS", 0.0)  # nobody will ever tell of a made-up job
        yield made
    made.close()


@pytest.fixture(scope="module")
def described(site: Target) -> list[Any]:
    """The operations that the description has."""
    schema = schemathesis.openapi.from_dict(site.send("GET", "/openapi.json", "anna").json())
    return [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]


def sent(site: Target, case: Any, who: str | None) -> Any:
    """A made-up request, as it goes over the wire."""
    options: dict[str, Any] = {}
    query = {name: value for name, value in (case.query or {}).items() if name != WAITS}
    if query:
        options["params"] = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in query.items()
        }
    headers = {
        name: value
        for name, value in (case.headers or {}).items()
        if name.lower() != "authorization"
    }
    if isinstance(case.body, bytes):
        options["content"] = case.body
    elif not isinstance(case.body, NotSet):
        options["content"] = json.dumps(case.body).encode("utf-8", "surrogatepass")
        headers["content-type"] = "application/json"
    return site.send(case.method, case.formatted_path, who, headers=headers, **options)


def told_nothing(site: Target, answer: Any) -> None:
    said = answer.text + json.dumps(dict(answer.headers))
    hidden = [SECRET, "Traceback", 'File "', *TOKENS.values()]
    if answer.status_code >= 400:  # who is known may see where stores lie; no refusal says it
        hidden += [OTHERS, str(site.folder)]
        document = answer.json()
        assert set(document) == {"kind", "args"}
    for word in hidden:
        assert word not in said


def made_up(described: list[Any], data: st.DataObject) -> Any:
    operation = data.draw(st.sampled_from(described))
    mode = data.draw(st.sampled_from([GenerationMode.POSITIVE, GenerationMode.NEGATIVE]))
    return data.draw(operation.as_strategy(generation_mode=mode))


CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


@settings(max_examples=120, suppress_health_check=CHECKS)
@given(data=st.data())
def test_who_is_known_breaks_nothing(
    site: Target, described: list[Any], data: st.DataObject
) -> None:
    case = made_up(described, data)
    who = data.draw(st.sampled_from(sorted(PEOPLE)))
    if PEOPLE[who] == "admin" and case.operation.path in NOT_BY_ADMINISTRATORS:
        who = "anna"
    answer = sent(site, case, who)
    assert answer.status_code < 500, answer.text
    told_nothing(site, answer)


@settings(max_examples=40, suppress_health_check=CHECKS)
@given(data=st.data())
def test_strangers_are_told_nothing(
    site: Target, described: list[Any], data: st.DataObject
) -> None:
    case = made_up(described, data)
    answer = sent(site, case, None)
    told_nothing(site, answer)
    if case.operation.path not in OPEN_PATHS:
        assert answer.status_code == 401, answer.text
