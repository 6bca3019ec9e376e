"""An agent in this process: the application around a double, on an event loop of the test."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from dataflow.agent.app import create_app
from dataflow.agent.auth import TokenFile, first_token
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


@pytest.fixture(scope="module")
def shared_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAgent]:
    local = LocalAgent(tmp_path_factory.mktemp("agent"))
    yield local
    local.close()


@pytest.fixture
def steward(tmp_path: Path) -> Iterator[LocalAgent]:
    local = LocalAgent(tmp_path, trust="steward")
    yield local
    local.close()


class AgentProcess:
    """A double behind a real server in a process of its own."""

    def __init__(self, directory: Path, listen: str = "127.0.0.1:0") -> None:
        self.directory, self.state = directory, directory / "state"
        program = [sys.executable, "-W", "error", str(Path(__file__).parent / "double.py")]
        with (directory / "log").open("w") as log:
            self.process = subprocess.Popen(
                [*program, str(directory), listen],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=Path(__file__).parents[2],
            )
        assert self.process.stdout
        self.said = self.process.stdout.readline().strip()

    @property
    def address(self) -> str:
        return self.said.removeprefix("listening on ")

    @property
    def token(self) -> str:
        return first_token(self.state / "tokens")

    @property
    def replicas(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.directory / "replicas.json").read_text())
        return found

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory / "log").read_text().splitlines()]

    def client(self, **options: Any) -> AgentClient:
        return AgentClient(Site(name="uva", address=self.address), self.token, **options)

    def stop(self, number: int = signal.SIGTERM, within: float = 10.0) -> int:
        self.process.send_signal(number)
        return self.process.wait(within)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., AgentProcess]]:
    """Starts agents as processes; whatever still runs at the end of the test is killed."""
    started: list[AgentProcess] = []

    def begin(listen: str = "127.0.0.1:0", directory: Path | None = None) -> AgentProcess:
        directory = directory or tmp_path / "uva"
        directory.mkdir(exist_ok=True)
        started.append(AgentProcess(directory, listen))
        return started[-1]

    yield begin
    for agent in started:
        if agent.process.poll() is None:
            agent.stop(signal.SIGKILL)
        assert agent.process.stdout
        agent.process.stdout.close()


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
