"""An agent in this process: the application around a double, on an event loop of the test."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from dataflow.agent.app import create_app
from dataflow.agent.auth import TokenFile
from dataflow.client import AgentClient
from dataflow.execution.events import JobCreated
from dataflow.placement.plan import Plan
from dataflow.sites import Site, Topology, Trust

_spec = importlib.util.spec_from_file_location("agent_double", Path(__file__).parent / "double.py")
assert _spec
assert _spec.loader
double = importlib.util.module_from_spec(_spec)
sys.modules["agent_double"] = double
_spec.loader.exec_module(double)

TOKENS = {role: f"{role}-token-0123456789" for role in ("reader", "user", "site", "admin")}
BODY_LIMIT = 2**20


class LocalAgent:
    """The application and its double; every call runs on one loop."""

    def __init__(self, directory: Path, trust: Trust = "lab") -> None:
        self.runner = asyncio.Runner()
        self.participant = double.Double(directory / "site", trust=trust)
        self.tokens = directory / "tokens"
        self.tokens.touch(mode=0o600)
        self.tokens.write_text(
            "".join(f"{token} {role}-person {role}\n" for role, token in TOKENS.items())
        )
        self.run(self.participant.start())
        self.app: FastAPI = create_app(
            self.participant, TokenFile(self.tokens, "uva"), body_limit=BODY_LIMIT
        )

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(call)

    def client(self, role: str | None = "admin", **options: Any) -> AgentClient:
        transport = httpx2.ASGITransport(self.app, raise_app_exceptions=False)
        site = Site(name="uva", address="http://uva.test")
        token = TOKENS[role] if role else None
        return AgentClient(site, token, transport=transport, **options)

    def call(
        self, method: str, path: str, role: str | None = "admin", **options: Any
    ) -> httpx2.Response:
        """One plain request, without the client's own care."""
        headers = dict(options.pop("headers", {}))
        if role is not None:
            headers.setdefault("authorization", f"Bearer {TOKENS[role]}")

        async def request() -> httpx2.Response:
            transport = httpx2.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx2.AsyncClient(transport=transport, base_url="http://uva.test") as http:
                return await http.request(method, path, headers=headers, **options)

        answer: httpx2.Response = self.run(request())
        return answer

    def close(self) -> None:
        self.run(self.participant.close())
        self.runner.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[LocalAgent]:
    local = LocalAgent(tmp_path)
    yield local
    local.close()


@pytest.fixture
def steward(tmp_path: Path) -> Iterator[LocalAgent]:
    local = LocalAgent(tmp_path, trust="steward")
    yield local
    local.close()


@pytest.fixture
def new_job() -> Callable[..., JobCreated]:
    """Makes a job without work."""

    def make(job: str = "j1", user: str = "someone") -> JobCreated:
        plan = Plan(
            id="p1",
            sources={},
            steps=(),
            outputs=(),
            extents={},
            assignments=(),
            segments=(),
            transfers=(),
            replicas={},
            seconds=0.0,
            nbytes=0,
            topology=Topology(sites=()),
        )
        return JobCreated(job=job, plan=plan, user=user)

    return make
