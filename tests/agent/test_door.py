"""The door: who is let in once, and is not known any more, gets no more of a long answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from dataflow.agent import door
from dataflow.agent.auth import Identity
from dataflow.errors import SiteRefused

PIECES = 5


async def long_answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in range(PIECES):
        more = number < PIECES - 1
        await send({"type": "http.response.body", "body": b"piece", "more_body": more})


def sent_to(known_for: int) -> tuple[int, BaseException | None]:
    """Pieces that get out, and what cut the answer, if the token is known for so many questions."""
    asked, sent = 0, 0

    async def authenticate(request: Any) -> Identity:
        nonlocal asked
        asked += 1
        if asked > known_for:
            raise SiteRefused("uva", "the token was revoked")
        return Identity(user="anna")

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        nonlocal sent
        sent += message["type"] == "http.response.body" and message["body"] == b"piece"

    app = SimpleNamespace(state=SimpleNamespace(participant=None))
    scope: Any = {
        "type": "http",
        "method": "GET",
        "path": "/v1/data/x/y",
        "headers": [],
        "query_string": b"",
        "app": app,
    }
    whole = door.Door(long_answer, authenticate=authenticate, body_limit=1, answered=Counter())
    try:
        asyncio.run(whole(scope, receive, send))
    except SiteRefused as error:
        return sent, error
    return sent, None


def test_a_long_answer_ends_with_the_right_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sent_to(known_for=1) == (PIECES, None), "a short answer asks once"
    monkeypatch.setattr(door, "AGAIN_SECONDS", -1.0)
    assert sent_to(known_for=100) == (PIECES, None)
    sent, cut = sent_to(known_for=3)
    assert (sent, isinstance(cut, SiteRefused)) == (2, True)
