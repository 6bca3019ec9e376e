"""Sites by SSH: a real SSH server on the loopback interface, a real agent behind it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import httpx2
import numpy as np
import psutil
import pytest

import dataflow as flow
from dataflow.cli.detach import detach
from dataflow.client.ssh import BEGINS_SECONDS, MARK, SshReach
from dataflow.client.words import start_command, there
from dataflow.config.records import SshAccess
from dataflow.errors import ConfigError, DataflowError, SiteRefused, SiteUnreachable
from dataflow.session.loop import LoopThread

pytestmark = pytest.mark.usefixtures("collected")

BANNER = "*** Welcome to the cluster ***\n\x1b[1mQuota: 97 %\x1b[0m\n"


@flow.operation(kind="elementwise")
def plus(x: Any, *, number: int) -> Any:
    return x + number


class _Server(asyncssh.SSHServer):
    """Lets forwarded connections through, to anywhere on this machine."""

    def __init__(self, host: LoginHost) -> None:
        self.host = host

    def connection_made(self, connection: Any) -> None:
        self.host.connections.add(connection)

    def connection_requested(self, *_: Any) -> bool:
        return True

    def unix_connection_requested(self, *_: Any) -> bool:
        return True


class LoginHost:
    """An account on a host with an SSH server, its home a directory here."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self.connections: set[Any] = set()
        self.commands: list[str] = []
        self.banner = ""
        self.folder = folder
        key, other = asyncssh.generate_private_key("ssh-ed25519"), folder / "other"
        self._host_key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(folder / "key")
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(other)
        (folder / "authorized").write_text(key.export_public_key().decode())
        self.port = 0
        self._listening: Any = None

    async def start(self) -> None:
        self._listening = await asyncssh.listen(
            "127.0.0.1",
            self.port,
            server_factory=lambda: _Server(self),
            server_host_keys=[self._host_key],
            authorized_client_keys=str(self.folder / "authorized"),
            process_factory=self._run,
            sftp_factory=lambda channel: asyncssh.SFTPServer(
                channel, chroot=os.fsencode(self.home)
            ),
            keepalive_interval=0,
        )
        self.port = self._listening.get_port()
        known = self._host_key.export_public_key().decode()
        (self.folder / "known").write_text(f"[127.0.0.1]:{self.port} {known}")
        self.write_config("key")

    def write_config(self, key: str, known: str = "known") -> None:
        (self.folder / "config").write_text(
            f"Host cluster\n  HostName 127.0.0.1\n  Port {self.port}\n  User anna\n"
            f"  IdentityFile {self.folder / key}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.folder / known}\n  GlobalKnownHostsFile /dev/null\n"
        )

    async def stop(self) -> None:
        ending = [connection.wait_closed() for connection in self.connections]
        self.cut()
        await asyncio.gather(*ending)
        await asyncio.sleep(0.1)  # what it forwarded is let go of in the turns that follow
        if self._listening is not None:
            self._listening.close()
            await self._listening.wait_closed()

    def cut(self) -> None:
        for connection in self.connections:
            connection.abort()
        self.connections.clear()

    async def _run(self, process: Any) -> None:
        self.commands.append(process.command)
        process.stdout.write(self.banner)
        ran = await asyncio.create_subprocess_shell(
            process.command,
            env={**os.environ, "HOME": str(self.home)},
            cwd=self.home,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, complaint = await ran.communicate()
        process.stdout.write(out.decode())
        process.stderr.write(complaint.decode())
        process.exit(ran.returncode or 0)

    @property
    def access(self) -> SshAccess:
        return SshAccess(python=sys.executable, config=self.folder / "config")

    def write_site(self) -> None:
        folder = self.home / "dataflow"
        (folder / "data").mkdir(parents=True)
        np.save(folder / "data" / "run.npy", np.arange(50))
        (folder / "site.yaml").write_text(
            "site: {name: cluster, workers: 1, memory: 1 GB}\nstate: ./state\n"
            "stores:\n- {name: data, url: ./data, purpose: data}\n- {name: results, url: ./results}\n"
        )

    def agent(self) -> psutil.Process | None:
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            told = json.loads((self.home / "dataflow" / "state" / "agent.json").read_text())
            return psutil.Process(told["pid"])
        return None


@contextlib.asynccontextmanager
async def login_host(folder: Path) -> AsyncIterator[LoginHost]:
    host = LoginHost(folder)
    await host.start()
    try:
        yield host
    finally:
        await host.stop()
        end_agent(host)


def end_agent(host: LoginHost) -> None:
    agent = host.agent()
    if agent is not None:
        agent.send_signal(signal.SIGTERM)
        with contextlib.suppress(psutil.TimeoutExpired):
            agent.wait(20)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LoginHost]:
    """One that is served from a thread of its own, for sessions."""
    loop = LoopThread()
    found = LoginHost(tmp_path)
    loop.run(found.start())
    try:
        yield found
    finally:
        loop.run(found.stop())
        loop.close()
        end_agent(found)


def sites_file(host: LoginHost) -> Path:
    path = host.folder / "sites.yaml"
    path.write_text(
        "sites:\n- name: cluster\n  address: ssh://cluster\n"
        f"  ssh: {{python: {sys.executable}, config: ./config}}\n"
    )
    return path


def test_a_site_of_which_one_has_an_account_and_nothing_else(host: LoginHost) -> None:
    host.write_site()
    host.banner = BANNER
    with flow.connect(sites_file(host), state=host.folder / "notebook") as session:
        session.register(str(host.home / "dataflow/data/run.npy"), name="run", site="cluster")
        job = session.submit(plus(session["run"], number=2))
        np.testing.assert_array_equal(job.result(60), np.arange(50) + 2)
        first = host.agent()
        assert first is not None
        page = session.dashboard("cluster")
        assert page is not None
        assert session.dashboard("cluster") == page
        assert "Dask" in httpx2.get(page, trust_env=False, follow_redirects=True, timeout=60).text
        host.cut()  # whatever asks next makes the connection again
        limit = time.monotonic() + 60
        while "cluster" in session.topology().away:  # on a busy machine it is for a moment
            assert time.monotonic() < limit
            time.sleep(0.1)
        job = session.submit(plus(session["run"], number=3))
        np.testing.assert_array_equal(job.result(60), np.arange(50) + 3)
        assert "Dask" in httpx2.get(page, trust_env=False, follow_redirects=True, timeout=60).text
    assert first.is_running(), "the agent goes on without us"
    with flow.connect(sites_file(host), state=host.folder / "notebook") as session:
        assert [dataset.name for dataset in session.datasets(kind="array", name="run")] == ["run"]
        assert host.agent() == first


def test_one_connection_one_agent_for_all_who_ask_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with login_host(tmp_path) as host:
            host.write_site()
            reach = SshReach("cluster", "ssh://cluster", host.access)
            doors = await asyncio.gather(*(reach.ready() for _ in range(5)))
            assert len(set(doors)) == 1
            assert len(host.connections) == len(host.commands) == 1
            assert doors[0].token not in repr(doors[0])
            host.cut()
            while reach.door is not None:
                await asyncio.sleep(0.01)
            with socket.socket() as thief, pytest.raises(OSError, match="in use"):
                thief.bind(("127.0.0.1", int(doors[0].url.rpartition(":")[2])))
            again = await reach.ready()
            assert again.url == doors[0].url, "addresses stay what they were"
            status, out, _ = await reach.run("echo $HOME")
            assert (status, out.strip()) == (0, str(host.home))
            await reach.close()
            with pytest.raises(SiteUnreachable, match="closed"):
                await reach.ready()

    asyncio.run(story())


def test_an_agent_is_being_started_once_we_are_logged_in(tmp_path: Path) -> None:
    async def story() -> None:
        async with login_host(tmp_path) as host:
            host.write_site()
            reach = SshReach("cluster", "ssh://cluster", host.access)
            await reach.begin()
            assert len(host.connections) == 1
            assert reach.door is None, "nobody waited for the agent"
            await reach.ready()
            assert len(host.connections) == len(host.commands) == 1
            await reach.begin()
            await reach.close()
            host.write_config("other")
            stranger = SshReach("cluster", "ssh://cluster", host.access)
            with pytest.raises(SiteRefused, match="does not let us in"):
                await stranger.begin()
            await stranger.close()

    asyncio.run(story())


def failed(tmp_path: Path, prepare: Any, access: Any = None, address: str = "ssh://cluster") -> Any:
    """The error with which a reach gives up."""

    async def story() -> DataflowError:
        async with login_host(tmp_path) as host:
            prepare(host)
            chosen = host.access if access is None else access(host)
            reach = SshReach("cluster", address, chosen)
            with pytest.raises(DataflowError) as caught:
                await reach.ready()
            with pytest.raises(type(caught.value)):
                await reach.ready()
            await reach.close()
            return caught.value

    return asyncio.run(story())


def test_a_key_that_is_not_let_in(tmp_path: Path) -> None:
    error = failed(tmp_path, lambda host: host.write_config("other"))
    assert isinstance(error, SiteRefused)
    assert "does not let us in" in str(error)


def test_a_host_that_nobody_knows(tmp_path: Path) -> None:
    error = failed(tmp_path, lambda host: host.write_config("key", known="nothing"))
    assert isinstance(error, SiteRefused)
    assert "connect once with ssh cluster" in str(error)


def test_a_host_that_pretends(tmp_path: Path) -> None:
    def prepare(host: LoginHost) -> None:
        other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
        (host.folder / "known").write_text(f"[127.0.0.1]:{host.port} {other}")

    assert isinstance(failed(tmp_path, prepare), SiteRefused)


def test_nobody_answers(tmp_path: Path) -> None:
    error = failed(tmp_path, lambda host: None, address="ssh://anna@127.0.0.1:9")
    assert isinstance(error, SiteUnreachable)
    assert "no SSH connection to '127.0.0.1'" in str(error)


def test_no_python_there(tmp_path: Path) -> None:
    error = failed(
        tmp_path, lambda host: None, lambda h: replace(h.access, python="nothing/python")
    )
    assert isinstance(error, SiteUnreachable)
    assert "nothing/python" in str(error)
    assert "What you can do" in str(error)


def test_a_host_that_looks_for_the_agent_is_not_silent(tmp_path: Path) -> None:
    async def story() -> None:
        async with login_host(tmp_path) as host:
            python = host.home / "python"
            python.write_text(
                "#!/bin/sh\ntouch ~/begun\nwhile ! [ -e ~/end ]; do sleep 0.02; done\nexit 1\n"
            )
            python.chmod(0o700)
            reach = SshReach("cluster", "ssh://cluster", replace(host.access, python=str(python)))
            assert reach.beginning == 0
            opening = asyncio.create_task(reach.ready())
            async with asyncio.timeout(30):
                while not (host.home / "begun").exists():
                    await asyncio.sleep(0.02)
                assert 0 < reach.beginning < BEGINS_SECONDS
                (host.home / "end").touch()
                with pytest.raises(SiteUnreachable, match="no agent could be started"):
                    await opening
            assert reach.beginning == 0
            await reach.close()

    asyncio.run(story())


@pytest.mark.slow
def test_an_environment_that_is_made_from_what_is_here(tmp_path: Path) -> None:
    """Without any index: what runs here is all that there is to install."""

    async def story() -> None:
        async with login_host(tmp_path) as host:
            host.write_site()
            python = "dataflow/env/bin/python"
            access = replace(host.access, python=python, bootstrap="copy")
            reach = SshReach("cluster", "ssh://cluster", access)
            await reach.ready()
            agent = host.agent()
            assert agent is not None
            assert agent.cmdline()[0] == str(host.home / python)
            await reach.close()
            made = [command for command in host.commands if "bootstrap.sh" in command]
            assert len(made) == 1

    asyncio.run(story())


def test_an_environment_that_cannot_be_made(tmp_path: Path) -> None:
    """Nothing that is needed lies in the directory that is named."""
    error = failed(
        tmp_path,
        lambda host: (host.home / "empty").mkdir(),
        lambda h: replace(
            h.access, python="made/bin/python", bootstrap="uv", wheels="empty", extras=()
        ),
    )
    assert isinstance(error, SiteUnreachable)
    assert "no environment could be made at made" in str(error)
    assert "bootstrap: copy" in str(error)


def test_no_site_file_there(tmp_path: Path) -> None:
    assert "there is no such file" in str(failed(tmp_path, lambda host: None))


def test_an_agent_that_cannot_start(tmp_path: Path) -> None:
    def prepare(host: LoginHost) -> None:
        host.write_site()
        (host.home / "dataflow" / "state").mkdir()
        (host.home / "dataflow" / "state" / "tokens").write_text("nonsense")
        (host.home / "dataflow" / "state" / "tokens").chmod(0o600)

    error = failed(tmp_path, prepare)
    assert isinstance(error, SiteUnreachable)
    assert "a line must read: token user role" in str(error)


def test_an_agent_of_another_host_that_shares_the_home(tmp_path: Path) -> None:
    def prepare(host: LoginHost) -> None:
        host.write_site()
        state = host.home / "dataflow" / "state"
        state.mkdir(mode=0o700)
        told = {"site": "cluster", "address": "unix:///x", "pid": 1, "host": "login2"}
        (state / "agent.json").write_text(json.dumps(told))

    error = failed(tmp_path, prepare)
    assert isinstance(error, SiteUnreachable)
    assert "its agent runs on login2" in str(error)


def test_what_a_dead_agent_left_behind(tmp_path: Path) -> None:
    """Its number is somebody else's by now, and nobody listens at its address."""

    async def story() -> None:
        async with login_host(tmp_path) as host:
            host.write_site()
            state = host.home / "dataflow" / "state"
            state.mkdir(mode=0o700)
            told = {"site": "cluster", "address": f"unix://{state}/agent.sock", "pid": 2**22 + 1}
            (state / "agent.json").write_text(json.dumps(told))
            reach = SshReach("cluster", "ssh://cluster", host.access)
            assert (await reach.ready()).url
            await reach.close()

    asyncio.run(story())


def test_other_versions_there(tmp_path: Path) -> None:
    def prepare(host: LoginHost) -> None:
        answer = {"address": "http://127.0.0.1:1", "token": "t", "versions": {"python": "2.7.18"}}
        fake = host.home / "python"
        fake.write_text(f"#!/bin/sh\necho '{MARK}{json.dumps(answer)}'\n")
        fake.chmod(0o755)

    error = failed(tmp_path, prepare, lambda host: replace(host.access, python="python"))
    assert isinstance(error, SiteRefused)
    assert "other versions of python and jupyter-dataflow" in str(error)
    assert "2.7.18" in str(error)


@pytest.mark.parametrize("address", ["http://x", "ssh://", "ssh://host/path"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ConfigError, match="ssh://"):
        SshReach("s", address, SshAccess())


def test_what_is_run_there() -> None:
    access = SshAccess(
        site_file="~/my files/site.yaml", python="/opt/p y/bin/python", state="s;rm x"
    )
    assert start_command(access) == (
        "'/opt/p y/bin/python' -m dataflow agent --detach "
        """--config="$HOME"/'my files/site.yaml' --state="$HOME"/'s;rm x'"""
    )
    assert there("~/a") == '"$HOME"/a'


def test_what_is_run_there_takes_the_short_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    access = SshAccess(site_file="~/my files/site.yaml", state="st ate")
    words = shlex.split(os.path.expandvars(start_command(access)))[3:]
    was = gc.isenabled()
    try:
        with pytest.raises(SystemExit) as caught:
            detach(words)
    finally:
        if was:
            gc.enable()
    assert caught.value.code == 2
    assert f"{tmp_path}/my files/site.yaml: there is no such file" in capsys.readouterr().err
    assert not detach(["agent", "--detach"])
    assert not detach([*words, "--idle=3"])
    assert not detach(["sites"])
