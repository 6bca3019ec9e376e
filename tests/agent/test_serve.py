"""Agents as processes: how they begin, what they say, how they end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from dataflow.agent.auth import make_token_file
from dataflow.agent.serve import serve
from dataflow.client import AgentClient
from dataflow.config import Listen
from dataflow.errors import ConfigError, SiteRefused, SiteUnreachable
from dataflow.execution.events import TransferOrder


def test_from_ready_to_gone(start: Callable[..., Any]) -> None:
    agent = start()
    assert agent.said.startswith("listening on http://127.0.0.1:")
    assert not agent.said.endswith(":0")
    file = agent.state / "agent.json"
    facts = {"site": "uva", "address": agent.address, "pid": agent.process.pid}
    facts["host"] = socket.gethostname()
    assert json.loads(file.read_text()) == facts
    tokens = agent.state / "tokens"
    assert tokens.stat().st_mode & 0o777 == 0o600
    assert tokens.parent.stat().st_mode & 0o077 == 0

    async def hello() -> Any:
        async with agent.client() as client:
            return await client.hello()

    assert asyncio.run(hello())["site"]["name"] == "uva"
    assert agent.stop() == 0
    assert not file.exists()
    assert [line["event"] for line in agent.log] == ["agent_ready", "agent_stopped"]
    assert agent.token not in (agent.directory / "log").read_text()


def test_interrupting_ends_it_as_well(start: Callable[..., Any]) -> None:
    assert start().stop(signal.SIGINT) == 0


def test_open_polls_do_not_hold_it_up(start: Callable[..., Any], order: TransferOrder) -> None:
    agent = start()

    async def scenario() -> list[Any]:
        async with agent.client() as client:
            await client.start(order)
            polls = [asyncio.create_task(client.follow("o1", 1, 50)) for _ in range(20)]
            await asyncio.sleep(0.5)
            agent.process.terminate()
            async with asyncio.timeout(30):
                return await asyncio.gather(*polls)

    assert asyncio.run(scenario()) == [[]] * 20
    assert agent.process.wait(30) == 0


@pytest.fixture
def order() -> TransferOrder:
    from dataflow.datasets import Replica

    replica = Replica(key="k", site="vu", store="s", url="file:///x", format="zarr", nbytes=1)
    return TransferOrder(id="o1", job="j1", site="uva", key="k", replica=replica)


def test_polls_wait_side_by_side(start: Callable[..., Any], order: TransferOrder) -> None:
    agent = start()

    async def scenario() -> list[Any]:
        async with agent.client() as client:
            await client.start(order)
            polls = [asyncio.create_task(client.follow("o1", 1, 50)) for _ in range(100)]
            await asyncio.sleep(1)
            await client.hello()
            assert not any(poll.done() for poll in polls), "it was answered while they wait"
            await client.cancel("o1")
            return await asyncio.gather(*polls)

    answers = asyncio.run(scenario())
    assert [answer[0].type for answer in answers] == ["ended"] * 100, "told, and not given up"


def test_a_unix_socket(start: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "run" / "agent.sock"
    agent = start(f"unix:{path}")
    assert agent.address == f"unix://{path}"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0

    async def hello(token: str | None) -> Any:
        async with AgentClient(agent.address, token) as client:
            await client.hello()
            with pytest.raises(ConfigError, match="Unix socket"):
                client.data_url("r")
            return client.name

    assert asyncio.run(hello(agent.token)) == "uva"
    with pytest.raises(SiteRefused):
        asyncio.run(hello(None))
    assert agent.stop() == 0
    assert not path.exists()
    with pytest.raises(SiteUnreachable):
        asyncio.run(hello("x"))


def test_a_socket_left_behind_is_replaced(start: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    start(f"unix:{path}").stop(signal.SIGKILL)
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert start(f"unix:{path}").stop() == 0


def refuse(listen: Listen, state: Path) -> str:
    """What the agent says instead of listening there; nothing may have been started."""

    def never(address: str) -> Any:
        raise AssertionError("the participant was made")

    with pytest.raises(ConfigError) as refused:
        asyncio.run(serve(never, site="uva", listen=listen, state_dir=state))
    return str(refused.value)


def test_places_it_will_not_listen_on(start: Callable[..., Any], tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.7", "example.org"):
        assert "without TLS" in refuse(Listen(host=host), tmp_path / "other")
    agent = start()
    port = int(agent.address.rpartition(":")[2])
    assert "cannot listen" in refuse(Listen(port=port), tmp_path / "other")
    (tmp_path / "file").write_text("precious")
    assert "not a socket" in refuse(Listen(socket=tmp_path / "file"), tmp_path / "other")
    assert (tmp_path / "file").read_text() == "precious"
    path = tmp_path / "x.sock"
    other = start(f"unix:{path}", tmp_path / "second")
    assert "another agent" in refuse(Listen(socket=path), tmp_path / "other")
    assert other.stop() == 0


def test_a_failed_start_closes_what_was_made(tmp_path: Path) -> None:
    closed = []

    class Fails:
        site = type("S", (), {"name": "uva"})

        async def start(self) -> None:
            raise ConfigError("no workers to be had")

        async def close(self) -> None:
            closed.append(True)

    with pytest.raises(ConfigError, match="no workers"):
        asyncio.run(
            serve(lambda _: Fails(), site="uva", listen=Listen(), state_dir=tmp_path / "s")  # type: ignore[arg-type,return-value]
        )
    assert closed == [True]


def test_being_told_to_stop_while_starting(tmp_path: Path) -> None:
    life = []

    class Slow:
        site = type("S", (), {"name": "uva"})

        async def start(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(60)

        async def close(self) -> None:
            life.append("closed")

    asyncio.run(
        serve(
            lambda _: Slow(),  # type: ignore[arg-type,return-value]
            site="uva",
            listen=Listen(),
            state_dir=tmp_path / "s",
            announce=life.append,
        )
    )
    assert life == ["closed"]


def test_an_agent_takes_the_tls_it_is_given(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    options = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost"
    command = ["openssl", "req", *options.split(), "-addext", "subjectAltName=DNS:localhost"]
    made = subprocess.run(
        [*command, "-keyout", str(key), "-out", str(certificate)], capture_output=True
    )
    if made.returncode:
        pytest.skip("openssl cannot make a certificate here")
    program = (
        "import asyncio, sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from double import Double; from dataflow.agent.serve import configure_logs, serve\n"
        "from dataflow.config import Listen; d = Path(sys.argv[1]); configure_logs()\n"
        "asyncio.run(serve(lambda _: Double(d), site='uva', state_dir=d / 'state', listen=Listen("
        "host='0.0.0.0', certificate=d / 'c.pem', key=d / 'k.pem')))"
    )
    command = [sys.executable, "-c", program, str(tmp_path), str(Path(__file__).parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    said = process.stdout.readline().strip()
    try:
        assert said.startswith("listening on https://0.0.0.0:")
        url = f"https://localhost:{said.rpartition(':')[2]}/v1/health"
        import ssl

        trusted = ssl.create_default_context(cafile=str(certificate))
        with httpx2.Client(verify=trusted, trust_env=False) as http:
            assert http.get(url).json() == {"status": "ok"}
        with httpx2.Client(trust_env=False) as http, pytest.raises(httpx2.ConnectError):
            http.get(url)
    finally:
        process.terminate()
        assert process.wait(10) == 0
        process.stdout.close()


# --- what comes over the wire ---------------------------------------------------------------------


def say(agent: Any, text: bytes) -> bytes:
    host, _, port = agent.address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=2) as way:
        with suppress(BrokenPipeError, ConnectionResetError):
            way.sendall(text)
        answer = b""
        with suppress(ConnectionResetError, TimeoutError):  # it had enough, or waits for more
            while piece := way.recv(65536):
                answer += piece
        return answer


def test_what_no_client_would_send(start: Callable[..., Any]) -> None:
    agent = start()
    authorization = f"Authorization: Bearer {agent.token}\r\n".encode()
    for line in (b"GET /v1/site", b"\x16\x03\x01\x02\x00\x01\x00", b"NONSENSE / HTTP/9.9"):
        assert b"200 OK" not in say(agent, line + b"\r\nHost: x\r\n" + authorization + b"\r\n")
    huge = b"GET /v1/health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n"
    assert b"200 OK" not in say(agent, huge)
    both = (
        b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n"
        + authorization
        + b"\r\n0\r\n\r\nGET /v1/site HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    assert say(agent, both).count(b"HTTP/1.1 200") == 0
    traversal = (
        b"GET /v1/data/x/../../../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    )
    assert b" 404 " in say(agent, traversal + authorization + b"\r\n").partition(b"\r\n")[0]
    upgrade = b"GET /v1/site HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert b" 401 " in say(agent, upgrade).partition(b"\r\n")[0]
    assert b'{"status":"ok"}' in say(
        agent, b"GET /v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert agent.stop() == 0


def test_an_oversized_body_is_cut_off(start: Callable[..., Any]) -> None:
    agent = start()

    async def scenario() -> None:
        async with agent.client() as client:
            with pytest.raises((ConfigError, SiteUnreachable)) as refused:
                await client.give_code("ab" * 32, bytes(65 * 2**20))
            if isinstance(refused.value, ConfigError):
                assert "longer than" in str(refused.value)
            await client.give_code("ab" * 32, bytes(2**20))
            assert await client.has_code(["ab" * 32, "cd" * 32]) == ["ab" * 32]

    asyncio.run(scenario())


def test_a_token_file_that_was_there_is_kept(start: Callable[..., Any], tmp_path: Path) -> None:
    token = make_token_file(tmp_path / "uva" / "state" / "tokens", "ann", "reader")
    agent = start()
    assert agent.token == token

    async def scenario() -> None:
        async with agent.client() as client:
            await client.hello()
            with pytest.raises(SiteRefused, match="only look"):
                await client.cancel("o1")

    asyncio.run(scenario())
