"""The client alone: whatever happens on the way becomes a typed error, soon, without a secret."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from dataflow.client import AgentClient
from dataflow.errors import (
    ConfigError,
    DataflowError,
    NoAllowedSite,
    PolicyError,
    SiteRefused,
    SiteUnreachable,
    UnknownJob,
    to_document,
)
from dataflow.sites import Site

TOKEN = "swordfish-swordfish"
Answer = Callable[[httpx2.Request], httpx2.Response]


def asked(answer: Answer, call: Callable[[AgentClient], Awaitable[Any]], **options: Any) -> Any:
    """What a call gives if every request is answered so."""

    async def scenario() -> Any:
        site = Site(name="vu", address="http://vu.test:1")
        transport = httpx2.MockTransport(answer)
        async with AgentClient(site, TOKEN, transport=transport, **options) as client:
            return await call(client)

    return asyncio.run(scenario())


def says(status: int, **options: Any) -> Answer:
    return lambda request: httpx2.Response(status, **options)


def late(times: int, error: type[Exception]) -> Answer:
    """So often nothing comes in time; then the site agrees to take the job."""
    tried = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        tried.append(request)
        if len(tried) <= times:
            raise error("too late", request=request)  # type: ignore[call-arg]
        return httpx2.Response(200)

    return answer


@pytest.mark.parametrize("error", [httpx2.ConnectTimeout, httpx2.ReadTimeout])
def test_what_a_user_asks_is_asked_again_while_the_road_is_late(error: type[Exception]) -> None:
    asked(late(3, error), lambda client: client.ask("j1", "cancel"))
    with pytest.raises(SiteUnreachable):
        asked(late(1, error), lambda client: client.cancel("o1"))  # whose caller asks again itself


def test_reading_a_copy_is_given_up_at_once_where_there_are_others() -> None:
    read = late(1, httpx2.ConnectTimeout)
    with pytest.raises(SiteUnreachable, match="no connection within"):
        asked(read, lambda client: client.archive("r1"))
    asked(late(1, httpx2.ConnectTimeout), lambda client: client.archive("r1", bear=True))


# --- errors that an answer carries ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, UnknownJob("j1", ["vu"])),
        (409, NoAllowedSite("mean", {"amc": "no"})),
        (403, PolicyError("A7 forbids it")),
        (403, SiteRefused("vu", "a steward takes no code")),
        (503, SiteUnreachable("amc", "no route")),
        (400, ConfigError("wrong", "request", "body.x")),
        (500, DataflowError("the agent failed")),
    ],
)
def test_errors_come_back_as_themselves(status: int, error: DataflowError) -> None:
    with pytest.raises(type(error)) as raised:
        asked(says(status, json=to_document(error)), lambda c: c.job_document("j1"))
    assert type(raised.value) is type(error)
    assert raised.value.args == error.args


def test_a_token_that_is_not_known() -> None:
    document = to_document(SiteRefused("uva-by-its-own-word", "the token is not known here"))
    with pytest.raises(SiteRefused) as refused:
        asked(says(401, json=document), lambda c: c.hello())
    assert refused.value.args == ("vu", "the token is not known here")
    for status in (401, 403):
        with pytest.raises(SiteRefused, match=f"HTTP {status}"):
            asked(says(status, text="<html>Forbidden</html>"), lambda c: c.hello())


def test_an_order_that_is_not_known() -> None:
    answer = says(404, json={"kind": "unknown-order", "args": ["o1"]})
    with pytest.raises(KeyError) as unknown:
        asked(answer, lambda c: c.follow("o1", 0, 0))
    assert unknown.value.args == ("o1",)
    assert not isinstance(unknown.value, DataflowError)


@pytest.mark.parametrize(
    "answer",
    [
        says(502, text="<html>Bad Gateway</html>"),
        says(404, text="nginx"),
        says(404, json={"detail": "Not Found"}),
        says(404, json={"kind": "dataflow", "args": ["Not Found"]}),
        says(302, headers={"location": "http://elsewhere.test/login"}),
        says(500, json=["kind", "args"]),
        says(500, json={"kind": "job", "args": "text"}),
        says(200, text="<html>Welcome to the wireless network</html>"),
        says(200, content=b""),
        says(200, json={"surprise": True}),
        says(200, content=b"\xff\xfe"),
    ],
)
def test_what_is_no_agent(answer: Answer) -> None:
    """Most of all: an order is not taken for unknown because some proxy says 404."""
    for call in (lambda c: c.follow("o1", 0, 0), lambda c: c.files("r1")):
        with pytest.raises(SiteUnreachable) as raised:
            asked(answer, call)
        assert raised.value.site == "vu"


def test_a_document_cannot_make_anything_but_our_errors() -> None:
    for kind in ("builtins.SystemExit", "os.system", "", None, 3, "no-such-kind"):
        answer = says(500, json={"kind": kind, "args": ["touch /tmp/x"]})
        with pytest.raises(DataflowError):
            asked(answer, lambda c: c.hello())
    wrong_count = says(500, json={"kind": "unknown-job", "args": [1, 2, 3, 4]})
    with pytest.raises(DataflowError):
        asked(wrong_count, lambda c: c.hello())


# --- what is sent ---------------------------------------------------------------------------------


def recorded(call: Callable[[AgentClient], Awaitable[Any]], body: Any = None) -> httpx2.Request:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json=body)

    asked(answer, call, caller="uva")
    return seen[-1]


@pytest.mark.parametrize(
    ("word", "path"),
    [
        ("j1", "/v1/jobs/j1"),
        ("../../site", "/v1/jobs/..%2F..%2Fsite"),
        ("..", "/v1/jobs/%2E%2E"),
        ("a?b#c", "/v1/jobs/a%3Fb%23c"),
        ("ü b", "/v1/jobs/%C3%BC%20b"),
    ],
)
def test_ids_stay_one_segment(word: str, path: str) -> None:
    assert recorded(lambda c: c.job_document(word), {}).url.raw_path.decode() == path


def test_the_token_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine vu.test login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    request = recorded(lambda c: c.peers(), [])
    assert request.headers["authorization"] == f"Bearer {TOKEN}"


def test_no_code_is_asked_for_without_need() -> None:
    assert asked(says(500), lambda c: c.has_code([])) == []


def test_reading_asks_for_a_range_and_names_the_job() -> None:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(206, stream=httpx2.ByteStream(b"2345"))

    read = asked(answer, lambda c: c.read("r1", "c/0 0", 2, 6, job="j1"), caller="uva")
    assert read == b"2345"
    assert seen[0].url.raw_path == b"/v1/data/r1/c/0%200"
    assert seen[0].headers["range"] == "bytes=2-5"
    assert seen[0].headers["accept-encoding"] == "identity"
    assert seen[0].headers["x-dataflow-job"] == "j1"
    assert seen[0].headers["x-dataflow-site"] == "uva"
    asked(answer, lambda c: c.read("r1", "x", 7))
    assert seen[1].headers["range"] == "bytes=7-"


def test_a_whole_object_instead_of_a_range_is_not_taken() -> None:
    with pytest.raises(SiteUnreachable, match="ranges"):
        asked(says(200, content=b"0123456789"), lambda c: c.read("r1", "x", 2, 6))


# --- the way --------------------------------------------------------------------------------------


@asynccontextmanager
async def server(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server that says what ``talk`` says; its address."""
    writers: list[asyncio.StreamWriter] = []

    async def each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            await talk(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(each, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}"
    finally:
        listening.close()
        for writer in writers:
            writer.close()


async def fails(address: str, timeout: float = 0.3) -> SiteUnreachable:
    """How asking there fails, instead of waiting."""
    async with (
        asyncio.timeout(30),
        AgentClient(Site(name="vu", address=address), TOKEN, timeout=timeout) as client,
    ):
        with pytest.raises(SiteUnreachable) as raised:
            await client.hello()
    assert TOKEN not in f"{raised.value!r} {raised.value}"
    return raised.value


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = asyncio.run(fails(f"http://127.0.0.1:{taken.getsockname()[1]}"))
    assert error.site == "vu"


def test_a_name_that_does_not_exist() -> None:
    asyncio.run(fails("http://no-such-host.invalid:1"))


def test_no_such_socket(tmp_path: Path) -> None:
    asyncio.run(fails(f"unix://{tmp_path}/none.sock"))


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: no\r\n\r\n",
        b"\x00" * 1000,
    ],
)
def test_an_answer_that_breaks_off(said: bytes) -> None:
    async def scenario() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(said)

        async with server(talk) as address:
            await fails(address)

    asyncio.run(scenario())


def test_silence_is_given_up() -> None:
    async def scenario() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        async with server(talk) as address:
            error = await fails(address)
        assert "no answer within" in str(error)

    asyncio.run(scenario())


def test_drops_of_an_answer_are_given_up_too() -> None:
    """Each read is in time; the whole never would be."""

    async def scenario() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)

        async with server(talk) as address:
            await fails(address)

    asyncio.run(scenario())


def test_a_stream_that_stalls() -> None:
    async def scenario() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin")
            await reader.read()

        async with (
            server(talk) as address,
            AgentClient(Site(name="vu", address=address), TOKEN, timeout=0.3) as client,
        ):
            with pytest.raises(SiteUnreachable):
                await client.read("r1", "x")

    asyncio.run(scenario())


def test_a_poll_may_take_its_time() -> None:
    async def scenario() -> Any:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(3)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")

        async with server(talk) as address, AgentClient(address, TOKEN, timeout=0.3) as client:
            return await client.follow("o1", 0, 1.0)

    assert asyncio.run(scenario()) == []


def test_a_kept_connection_that_died_is_replaced() -> None:
    """An agent that was restarted between two requests is not away."""

    async def scenario() -> int:
        talks = 0

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal talks
            talks += 1
            body = json.dumps([]).encode()
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + body)
            await reader.read(1)  # takes the next request, and hangs up

        async with server(talk) as address, AgentClient(address, TOKEN) as client:
            await client.peers()
            assert await client.peers() == []
        return talks

    assert asyncio.run(scenario()) == 2


def test_registering_is_not_repeated_by_itself() -> None:
    async def scenario() -> int:
        talks = 0

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal talks
            talks += 1
            await reader.readuntil(b"\r\n\r\n")

        async with server(talk) as address, AgentClient(address, TOKEN) as client:
            with pytest.raises(SiteUnreachable):
                await client.register("file:///x")
        return talks

    assert asyncio.run(scenario()) == 1


def test_after_the_end() -> None:
    async def scenario() -> None:
        client = AgentClient("http://127.0.0.1:9", TOKEN)
        await client.close()
        await client.close()
        with pytest.raises(SiteUnreachable):
            await client.hello()

    asyncio.run(scenario())


# --- addresses and texts --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["", "vu.test", "ssh://ann@vu.test", "ftp://vu.test", "http://"]
)
def test_addresses_of_no_agent(address: str) -> None:
    with pytest.raises(ConfigError):
        AgentClient(address, TOKEN)


def test_a_site_without_an_address() -> None:
    with pytest.raises(ConfigError, match="no address"):
        AgentClient(Site(name="vu"))


def test_secrets_are_in_no_text() -> None:
    client = AgentClient("http://ann:hunter2-hunter2@127.0.0.1:9/", TOKEN)
    texts = [repr(client), str(client), client.name, client.address, client.data_url("r")]
    texts += [repr(client.source("r")), repr(vars(client)), repr(vars(client)["_way"])]
    texts += [repr(value) for value in vars(vars(client)["_way"]).values()]
    error, _ = asyncio.run(_hello(client))
    texts += [repr(error), str(error), repr(error.__cause__)]
    for text in texts:
        assert TOKEN not in text
        assert "hunter2" not in text
    assert client.headers() == {"authorization": f"Bearer {TOKEN}"}


async def _hello(client: AgentClient) -> tuple[SiteUnreachable, None]:
    with pytest.raises(SiteUnreachable) as raised:
        await client.hello()
    await client.close()
    return raised.value, None


def test_a_client_is_one_site_access_for_the_driver() -> None:
    client = AgentClient(Site(name="vu", address="http://vu.test"))
    for name in ("start", "follow", "cancel", "give_code", "has_code"):
        assert asyncio.iscoroutinefunction(getattr(client, name))
    assert client.name == "vu"
