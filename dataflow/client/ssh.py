"""SSH: a site of which one has an account on a login host, and nothing else.

One connection per site carries everything. Over it the agent is started, or found if it runs, and
its socket is forwarded to a port of the loopback interface here; who connects to that port still
needs the agent's token. When the connection breaks it is made again by whoever asks next, at the
same port, so that addresses stay what they were.

What the user's own SSH configuration says of the host counts: names, keys, the SSH agent, jump
hosts. Its host key must be known.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog

from dataflow.client.forward import Forward
from dataflow.client.words import start_command
from dataflow.config.records import SshAccess
from dataflow.errors import ConfigError, DataflowError, SiteRefused, SiteUnreachable
from dataflow.patience import STEP, Patience
from dataflow.versions import as_table, differences, incompatible, versions

log = structlog.get_logger(__name__)

#: What the line with the agent's answer begins with; see :mod:`dataflow.agent.detached`.
MARK = "dataflow-agent: "

#: What a shell or an interpreter says where there is no environment, or one that was never finished.
NO_ENVIRONMENT = re.compile(r"(?i)not found|no such file|no module named")

#: Seconds for the connection, for the whole login, and for the agent to come up.
CONNECT_SECONDS, LOGIN_SECONDS, START_SECONDS = 8.0, 15.0, 75.0

#: A silent connection is asked every so many seconds, and given up after so many silent answers.
ALIVE_SECONDS, MOST_SILENT = 2.0, 3

#: A login host that has begun to look for the agent, or to start it, is given so many seconds
#: before its site counts as silent: somebody is there, and interpreters may start slowly.
BEGINS_SECONDS = 30.0

#: Seconds for which readers through our port wait for a connection that is made again.
HOPE_SECONDS = 8.0

#: Seconds for which a failure is not tried again: several ask at the same time.
FAILED_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Door:
    """Where the agent can be reached from here, and the token that it wants."""

    url: str
    token: str = field(repr=False)


class SshReach:
    """The way to one site's agent through its login host.

    Parameters
    ----------
    site
        Its name, for errors.
    address
        ``ssh://[user@]host[:port]``; the host may be a name of the SSH configuration.
    access
        With what the agent is started there.
    """

    def __init__(self, site: str, address: str, access: SshAccess) -> None:
        parts = urlsplit(address)
        if parts.scheme != "ssh" or not parts.hostname or parts.path.strip("/"):
            raise ConfigError(f"{address!r} is no ssh://[user@]host[:port]")
        self.site, self.address, self.access = site, address, access
        # A name of the configuration keeps its capitals, which urlsplit takes away.
        host = parts.netloc.rpartition("@")[2]
        self._host = host[: -len(f":{parts.port}")] if parts.port else host
        self._user, self._port = unquote(parts.username or ""), parts.port
        self._connection: Any = None
        self._patience = Patience()
        self._forward = Forward(self._dial)
        self._forwards: dict[tuple[str, int], Forward] = {}
        self._behind: str | tuple[str, int] = ""
        self._door: Door | None = None
        self._opening: asyncio.Task[Door] | None = None
        self._logged_in = asyncio.Event()
        self._failed: tuple[float, Exception] | None = None
        self._begun: float | None = None
        self._met = False
        self._down_since: float | None = None
        self._closed = False

    @property
    def door(self) -> Door | None:
        """What :meth:`ready` last gave, while the connection holds."""
        return self._door if self._holds() else None

    @property
    def beginning(self) -> float:
        """Seconds since the login host began to look for the agent, while it does; else 0.

        At most :data:`BEGINS_SECONDS`. The first time, the login counts too: who has just begun, as
        a notebook that takes up its jobs again, knows nothing of the host yet.
        """
        if self._begun is None or (self._met and not self._holds()):
            return 0.0
        return min(asyncio.get_running_loop().time() - self._begun, BEGINS_SECONDS)

    async def ready(self) -> Door:
        """Connect and start the agent, unless that holds already.

        Raises
        ------
        SiteUnreachable
            If the host does not answer, or the agent does not come up there.
        SiteRefused
            If the host does not let us in, is not the one that is known, or has other versions.
        """
        door = self.door
        if door is not None:
            return door
        if self._closed:
            raise SiteUnreachable(self.site, "the session is closed")
        if self._opening is None:
            loop = asyncio.get_running_loop()
            if self._failed is not None and loop.time() - self._failed[0] < FAILED_SECONDS:
                raise self._failed[1]
            self._opening = asyncio.create_task(self._open(), name=f"ssh {self.site}")
            self._opening.add_done_callback(self._opened)
        return await asyncio.shield(self._opening)

    async def begin(self) -> None:
        """Begin with :meth:`ready` and wait until we are logged in; who needs the rest asks for it.

        Raises
        ------
        SiteUnreachable, SiteRefused
            As :meth:`ready`.
        """
        ready = asyncio.ensure_future(self.ready())
        logged_in = asyncio.ensure_future(self._logged_in.wait())
        try:
            await asyncio.wait({ready, logged_in}, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                ready.result()
        finally:  # what is under way goes on without us
            for one in (ready, logged_in):
                one.cancel()
            await asyncio.gather(ready, logged_in, return_exceptions=True)

    async def login(self) -> None:
        """Connect, and leave the agent alone: neither looked for nor started.

        Raises
        ------
        SiteUnreachable, SiteRefused
            As :meth:`ready`.
        """
        if not self._holds():
            await self._drop()
            self._connection = await self._connect()

    def doubt(self) -> None:
        """The agent did not answer as one does: look for it again before it is asked again.

        The connection may well hold; the process behind it may have ended.
        """
        self._door = None

    async def run(self, command: str, *, seconds: float = START_SECONDS) -> tuple[int, str, str]:
        """Run a command on the login host: exit status, what it wrote, what it complained."""
        if not self._holds():
            await self.ready()
        return await self._run(self._connection, command, seconds)

    async def forward(self, host: str, port: int) -> int:
        """A port of our loopback interface that leads to one there; the same for as long as we live."""
        found = self._forwards.get((host, port))
        if found is None:

            async def dial() -> tuple[Any, Any]:
                await self.ready()
                return await self._dial_to((host, port))

            found = self._forwards[host, port] = Forward(dial)
        return await found.open()

    async def close(self) -> None:
        """Give the connection up; the agent goes on as long as it is needed."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        await asyncio.gather(*(one.close() for one in (self._forward, *self._forwards.values())))
        await self._drop()

    def __repr__(self) -> str:
        return f"<SshReach {self.site} {self.address}, {'up' if self._holds() else 'down'}>"

    # --- the connection --------------------------------------------------------------------------

    def _holds(self) -> bool:
        return self._connection is not None and not self._connection.is_closed()

    def _opened(self, opening: asyncio.Task[Door]) -> None:
        self._opening = None
        if opening.cancelled():
            return
        error = opening.exception()
        if isinstance(error, Exception):
            self._failed = (asyncio.get_running_loop().time(), error)
        else:
            self._failed = None

    async def _open(self) -> Door:
        if not self._met:
            self._begun = asyncio.get_running_loop().time()
        try:
            return await self._opened_anew()
        finally:
            self._begun = None

    async def _opened_anew(self) -> Door:
        if fresh := not self._holds():
            await self._drop()
            self._connection = await self._connect()
        self._logged_in.set()
        try:
            answer = await self._agent()
            url = await self._listen(answer)
        except BaseException as error:
            # One that holds carries others' work, whatever this question came to.
            if fresh or not self._holds():
                await self._drop()
            if isinstance(error, KeyError | ValueError | TypeError | OSError) and not isinstance(
                error, DataflowError
            ):
                reason = f"its agent's answer is not understood: {error!r}"
                raise SiteUnreachable(self.site, reason) from error
            raise
        self._met = True
        log.info("ssh_ready", site=self.site, url=url, started=answer.get("started"))
        self._door, self._down_since = Door(url, str(answer["token"])), None
        return self._door

    async def _connect(self) -> Any:
        try:
            import asyncssh
        except ModuleNotFoundError as error:
            raise ConfigError(
                "sites behind SSH need asyncssh: pip install 'jupyter-dataflow[ssh]'"
            ) from error
        given: dict[str, Any] = {}
        if self._port:
            given["port"] = self._port
        if self._user:
            given["username"] = self._user
        if self.access.config is not None:
            given["config"] = [str(self.access.config)]
        if self.access.known_hosts is not None:
            given["known_hosts"] = str(self.access.known_hosts)
        # A login takes many round trips: on a road that nobody has seen yet, or that has become
        # slow, every second try is a long one.
        longer = min(self._patience.stretched(1.0), STEP)
        connect = CONNECT_SECONDS * longer
        try:
            connection = await asyncssh.connect(
                self._host,
                connect_timeout=connect,
                login_timeout=LOGIN_SECONDS * longer,
                keepalive_interval=ALIVE_SECONDS,
                keepalive_count_max=MOST_SILENT,
                client_version="dataflow",
                **given,
            )
            self._patience.answered(0.0)
            return connection
        except asyncssh.HostKeyNotVerifiable as error:
            raise SiteRefused(
                self.site,
                f"the key of host {self._host!r} is not known here, or not the one that is: "
                f"{_text(error)}; connect once with ssh {self._host} and look at the key",
            ) from error
        except asyncssh.PermissionDenied as error:
            raise SiteRefused(
                self.site,
                f"{self._host!r} does not let us in ({_text(error)}); try ssh {self._host}",
            ) from error
        except (asyncssh.KeyImportError, asyncssh.ConfigParseError) as error:
            raise ConfigError(f"the SSH configuration for {self._host!r}: {error}") from error
        except FileNotFoundError as error:
            raise SiteRefused(
                self.site,
                f"{error.filename}, which the SSH configuration for {self._host!r} names, is not "
                f"there; connect once with ssh {self._host} and look at the key",
            ) from error
        except TimeoutError as error:
            self._patience.failed()
            reason = f"no SSH connection to {self._host!r} within {connect:g} s"
            raise SiteUnreachable(self.site, reason) from error
        except (asyncssh.Error, OSError) as error:
            if isinstance(error, asyncssh.ConnectionLost):  # as when the login takes too long
                self._patience.failed()
            reason = f"no SSH connection to {self._host!r}: {_text(error)}"
            raise SiteUnreachable(self.site, reason) from error

    async def _drop(self) -> None:
        connection, self._connection, self._door = self._connection, None, None
        if connection is not None:
            connection.abort()
            await connection.wait_closed()

    # --- the agent -------------------------------------------------------------------------------

    async def _agent(self) -> Mapping[str, Any]:
        """Start the agent there, unless it runs, and hear where it answers."""
        status, out, complaint = await self._start()
        line = _marked(out)
        if line is None and self.access.bootstrap and NO_ENVIRONMENT.search(complaint):
            await self._bootstrap()
            status, out, complaint = await self._start()
            line = _marked(out)
        if line is None:
            said = (complaint.strip() or out.strip() or "nothing").splitlines()[-1]
            raise SiteUnreachable(
                self.site,
                f"no agent could be started at {self._host!r} (status {status}): {said}\n"
                f"What you can do: look there whether {self.access.python} and "
                f"{self.access.site_file} are what they should be",
            )
        try:
            answer = json.loads(line.removeprefix(MARK))
            theirs = dict(answer["versions"])
            token = answer["token"]
        except (ValueError, KeyError, TypeError) as error:
            raise SiteUnreachable(
                self.site, f"its agent's answer is not understood: {error}"
            ) from error
        if not token:
            raise SiteRefused(self.site, "its token file has no token that could be shown here")
        self._compare(theirs)
        return dict(answer)

    async def _start(self) -> tuple[int, str, str]:
        def begun() -> None:
            self._begun = self._begun or asyncio.get_running_loop().time()

        return await self._run(self._connection, start_command(self.access), START_SECONDS, begun)

    async def _bootstrap(self) -> None:
        from dataflow.client.bootstrap import bootstrap

        connection = self._connection

        async def run(command: str, seconds: float) -> tuple[int, str, str]:
            return await self._run(connection, command, seconds)

        await bootstrap(self.site, connection, run, self.access)

    def _compare(self, theirs: Mapping[str, str]) -> None:
        ours = versions()
        rows = differences(ours, theirs)
        wrong = incompatible(ours, theirs)
        if wrong:
            table = as_table(rows, "here", self.site)
            raise SiteRefused(
                self.site, f"other versions of {' and '.join(wrong)} than here\n{table}"
            )
        if rows:
            log.warning("versions_differ", site=self.site, differences=[list(row) for row in rows])

    async def _listen(self, answer: Mapping[str, Any]) -> str:
        """Have our port lead to where the agent answers; the URL."""
        parts = urlsplit(str(answer["address"]))
        if parts.scheme == "unix":
            self._behind = unquote(parts.path)
        else:
            self._behind = (parts.hostname or "127.0.0.1", parts.port or 80)
        scheme = "https" if parts.scheme == "https" else "http"
        return f"{scheme}://127.0.0.1:{await self._forward.open()}"

    async def _dial(self) -> tuple[Any, Any]:
        """A way to the agent over the connection, as streams of bytes.

        Who reads through our port knows nothing of SSH: while the connection is made again he waits,
        as long as that may be hoped for.
        """
        loop = asyncio.get_running_loop()
        while not self._holds():
            self._down_since = loop.time() if self._down_since is None else self._down_since
            try:
                await self.ready()
            except SiteUnreachable:
                if self._closed or loop.time() - self._down_since > HOPE_SECONDS:
                    raise
                await asyncio.sleep(FAILED_SECONDS)
        self._down_since = None
        return await self._dial_to(self._behind)

    async def _dial_to(self, where: str | tuple[str, int]) -> tuple[Any, Any]:
        if not self._holds():
            raise ConnectionError("the SSH connection is down")
        connection = self._connection
        if isinstance(where, tuple):
            found = await connection.open_connection(*where, encoding=None)
        else:
            found = await connection.open_unix_connection(where, encoding=None)
        return found[0], found[1]

    async def _run(
        self, connection: Any, command: str, seconds: float, begun: Callable[[], None] | None = None
    ) -> tuple[int, str, str]:
        """Run a command; ``begun`` is called when the host says that it runs."""
        import asyncssh

        try:
            async with asyncio.timeout(seconds):
                process = await connection.create_process(command, errors="replace")
            if begun is not None:
                begun()
            done = await process.wait(check=False, timeout=seconds)
        except (TimeoutError, asyncssh.TimeoutError) as error:
            reason = f"{self._host!r} did not do it within {seconds:g} s: {command}"
            raise SiteUnreachable(self.site, reason) from error
        except (asyncssh.Error, OSError) as error:
            raise SiteUnreachable(self.site, f"the SSH connection broke: {_text(error)}") from error
        return done.exit_status or 0, str(done.stdout), str(done.stderr)


def _marked(out: str) -> str | None:
    return next((line for line in out.splitlines() if line.startswith(MARK)), None)


def _text(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
