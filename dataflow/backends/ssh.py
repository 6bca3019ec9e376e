"""Workers on hosts that are reached by SSH and have no batch system; the scheduler lives here.

distributed has a class for that. It shows the certificate's key on a command line, stops reading what
its workers write, and leaves them behind when the connection is lost; so only its cluster is used
here, and what runs on the hosts is :mod:`dataflow.backends.remote`.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import shlex
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from dataflow.backends.base import Demand, Lease
from dataflow.backends.cluster import (
    IMPORTS,
    SCHEDULER_OPTIONS,
    ClusterBackend,
    environment,
    own_security,
)
from dataflow.backends.nanny import replace_worker
from dataflow.backends.remote import MARK, address_towards
from dataflow.backends.wanted import refusal
from dataflow.config.backend_records import SshHosts
from dataflow.errors import SiteRefused
from dataflow.versions import incompatible, versions

log = structlog.get_logger(__name__)

#: A host is told so often (s) that we are there, and ends its workers after so long without a word.
BEAT, SILENCE = 5.0, 30.0

#: A silent connection is asked every so many seconds, and given up after so many silent answers.
ALIVE, MOST_SILENT = 5.0, 3

#: Seconds for the workers of a host to be ready once the connection stands.
START = 90.0

#: Seconds for them to end when they are told to.
_END = 10.0

#: Lines of what a host writes that are kept, to say why it failed.
_LINES = 30


@dataclass(slots=True)
class _Host:
    """One host and what has become of it."""

    name: str
    workers: list[str]
    address: str = ""
    up: bool = False
    reason: str = ""
    again: asyncio.Event = field(default_factory=asyncio.Event)
    process: Any = None


class SshBackend(ClusterBackend):
    """A :class:`~dataflow.backends.base.Backend` of workers on several hosts.

    A host that fails does not keep the others from going on; it is tried again every
    ``settings.again`` seconds, and whenever somebody asks for workers. Nothing is left on a host by
    :meth:`close`, after a crash of this process, or after a cut of half a minute.

    Parameters
    ----------
    site
        Its name, to say who refuses.
    workers
        On all hosts together, dealt out in turn.
    threads, memory
        Of each worker; memory in bytes.
    settings
        What the site file says.
    directory
        Of this host alone.
    """

    def __init__(
        self,
        *,
        site: str,
        workers: int,
        threads: int,
        memory: int,
        settings: SshHosts,
        directory: Path,
    ) -> None:
        super().__init__(directory)
        self.site = site
        self.workers, self.threads, self.memory = workers, threads, memory
        self.settings = settings
        self._hosts: list[_Host] = []
        self._serving: set[asyncio.Task[None]] = set()
        self._tls: dict[str, Any] = {}
        self._ways: dict[str, str] = {}

    async def request(self, demand: Demand) -> None:
        """Workers are there or come by themselves; hosts that failed are tried again now."""
        why = refusal(demand, most=self.workers, memory=self.memory, wall=None)
        if why:
            raise SiteRefused(self.site, why)
        await self.client()
        for host in self._hosts:
            if host.reason:
                host.reason = ""  # there is hope until it has failed again
                host.again.set()

    def leases(self) -> Sequence[Lease]:
        """One for each worker, also those on hosts that cannot be reached."""
        found = []
        known = self._known()
        for host in self._hosts:
            for name in host.workers:
                status = "running" if name in known else "failed" if host.reason else "queued"
                reason = host.reason if status == "failed" else ""
                found.append(Lease(id=name, status=status, host=host.name, reason=reason))  # type: ignore[arg-type]
        return found

    def trouble(self) -> str:
        """What is wrong with each host, if no worker is there and none is on its way."""
        if self._known() or any(not host.reason for host in self._hosts):
            return ""
        return "; ".join(f"{host.name}: {host.reason}" for host in self._hosts)

    async def stop_worker(self, address: str) -> None:
        """End a worker; its nanny starts another, or its host is started anew."""
        if not self._alive() or address not in self._cluster.scheduler.workers:
            return
        name = self._cluster.scheduler.workers[address].name
        log.info("worker-stopped", address=address)
        if not await replace_worker(self._cluster.scheduler, address):
            for host in self._hosts:
                if name in host.workers and host.process is not None:
                    host.process.stdin.write_eof()

    def _known(self) -> set[str]:
        if not self._alive():
            return set()
        return {str(worker.name) for worker in self._cluster.scheduler.workers.values()}

    # --- the cluster ----------------------------------------------------------------------------

    async def _make_cluster(self) -> Any:
        await asyncio.to_thread(importlib.import_module, "asyncssh")
        distributed: Any = importlib.import_module("distributed")
        security = await asyncio.to_thread(own_security)
        self._tls = {
            "require_encryption": True,
            "tls_ca_file": security.tls_ca_file,
            "tls_worker_cert": security.tls_worker_cert,
            "tls_worker_key": security.tls_worker_key,
        }
        self._ways = {} if self.settings.interface else await self._find_ways()
        where: dict[str, Any] = {"host": sorted(set(self._ways.values())) or "0.0.0.0"}
        if self.settings.interface:
            where = {"interface": self.settings.interface}
        cluster = await distributed.SpecCluster(
            workers={},
            scheduler={
                "cls": distributed.Scheduler,
                "options": {
                    **SCHEDULER_OPTIONS,
                    **where,
                    "protocol": "tls",
                    "security": security,
                    "dashboard_address": "127.0.0.1:0",
                },
            },
            security=security,
            asynchronous=True,
            silence_logs=logging.CRITICAL,
        )
        self._hosts = self._dealt()
        self._serving = {
            asyncio.create_task(self._serve(cluster.scheduler, host)) for host in self._hosts
        }
        return cluster

    def _dealt(self) -> list[_Host]:
        """The workers, dealt out to the hosts in turn; one that stands twice gets twice as many."""
        hosts = {name: _Host(name, []) for name in dict.fromkeys(self.settings.hosts)}
        for number in range(self.workers):
            name = self.settings.hosts[number % len(self.settings.hosts)]
            hosts[name].workers.append(f"{name}-{len(hosts[name].workers)}")
        return [host for host in hosts.values() if host.workers]

    async def _end(self) -> None:
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)
        self._serving, self._hosts = set(), []
        await super()._end()

    # --- one host -------------------------------------------------------------------------------

    async def _serve(self, scheduler: Any, host: _Host) -> None:
        """Have workers on a host, again and again."""
        while True:
            host.again.clear()
            try:
                await self._run(scheduler, host)
                host.reason = "its workers ended"
            except Exception as error:
                host.reason = _words(error)
            finally:
                host.up, host.process = False, None
            log.warning("host-lost", host=host.name, reason=host.reason)
            await self._forget(scheduler, host)
            with suppress(TimeoutError):
                async with asyncio.timeout(self.settings.again):
                    await host.again.wait()

    async def _forget(self, scheduler: Any, host: _Host) -> None:
        """Have tasks of a lost host run elsewhere; that it was lost does not count against them.

        Dask would wait for five minutes where a host only stands still, its connections open.
        """
        for worker in [one for one in scheduler.workers.values() if one.name in host.workers]:
            with suppress(Exception):
                await scheduler.remove_worker(
                    worker.address, stimulus_id="dataflow-host-lost", expected=True, close=False
                )

    async def _run(self, scheduler: Any, host: _Host) -> None:
        import asyncssh

        options: dict[str, Any] = {}
        if self.settings.config is not None:
            options["config"] = [str(self.settings.config)]
        if self.settings.known_hosts is not None:
            options["known_hosts"] = str(self.settings.known_hosts)
        # Whom we talk to is checked against known_hosts: asyncssh does so unless told not to.
        connection = await asyncssh.connect(
            host.name,
            connect_timeout=self.settings.connect,
            login_timeout=self.settings.connect,
            keepalive_interval=ALIVE,
            keepalive_count_max=MOST_SILENT,
            agent_forwarding=False,
            **options,
        )
        try:
            await self._have(scheduler, host, connection)
        finally:
            connection.abort()
            await connection.wait_closed()

    async def _have(self, scheduler: Any, host: _Host, connection: Any) -> None:
        """Start the workers over a connection, and stay until they end."""
        process = host.process = await connection.create_process(self._command(), errors="replace")
        said: deque[str] = deque(maxlen=_LINES)
        others = [
            asyncio.create_task(_keep(process.stderr, said)),
            asyncio.create_task(_beat(process, self._order(scheduler, host))),
        ]
        try:
            async with asyncio.timeout(START) as patience:
                async for line in process.stdout:
                    if not line.startswith(MARK):
                        continue  # what a login shell says to everybody
                    facts = json.loads(line.removeprefix(MARK))
                    _check(facts)
                    if "started" in facts:
                        patience.reschedule(None)
                        host.address, host.up, host.reason = facts["started"], True, ""
                        log.info("host-up", host=host.name, address=host.address)
            await asyncio.wait(others[:1])
            if not host.up:
                raise _Unfit(_telling(said) or "it ended without a word")
        finally:
            for task in others:
                task.cancel()
            await asyncio.wait(others)
            with suppress(OSError, TimeoutError):
                # The end of its input: workers end, and their processes with them.
                process.stdin.write_eof()
                async with asyncio.timeout(_END):
                    await process.wait_closed()

    async def _find_ways(self) -> dict[str, str]:
        """Host → the address of this one from which it is reached, where that is known.

        The scheduler listens there and nowhere else.
        """
        import asyncssh

        config = {"config": [str(self.settings.config)]} if self.settings.config else {}
        ways = {}
        for name in dict.fromkeys(self.settings.hosts):
            with suppress(OSError, asyncssh.Error):
                options = await asyncssh.SSHClientConnectionOptions.construct(host=name, **config)
                host, port = options.host or name, options.port
                ways[name] = await asyncio.to_thread(address_towards, host, port)
        return ways

    def _order(self, scheduler: Any, host: _Host) -> str:
        """What the host is told to start; the certificate's key goes this way and no other."""
        mine = self._ways.get(host.name, "")
        listening = [one for one in scheduler.listeners if one.contact_address]
        addresses = [str(one.contact_address) for one in listening]
        way = next((one for one in addresses if f"//{_literal(mine)}:" in one), addresses[0])
        return json.dumps(
            {
                "scheduler": way,
                "names": host.workers,
                "threads": self.threads,
                "memory": self.memory,
                "scratch": self.settings.scratch,
                "imports": IMPORTS,
                "environment": environment(),
                "silence": SILENCE,
                "tls": self._tls,
            }
        )

    def _command(self) -> str:
        python = shlex.quote(self.settings.python or sys.executable)
        lines = [*self.settings.prologue, f"exec {python} -m dataflow.backends.remote"]
        # Whatever shell the account has there.
        return f"sh -c {shlex.quote(chr(10).join(lines))}"

    def _about(self) -> str:
        up = sum(host.up for host in self._hosts)
        names = ", ".join(dict.fromkeys(self.settings.hosts))
        return f"{self.workers} x {self.threads} threads on {names}, {up} up"


class _Unfit(Exception):
    """A host was reached and cannot have workers."""


def _check(facts: dict[str, Any]) -> None:
    if "failed" in facts:
        raise _Unfit(str(facts["failed"]))
    wrong = incompatible(versions(), facts["versions"]) if "versions" in facts else []
    if wrong:
        pairs = [f"{name} {facts['versions'].get(name)}" for name in wrong]
        ours = [f"{name} {versions().get(name)}" for name in wrong]
        raise _Unfit(f"it has {' and '.join(pairs)}, and here is {' and '.join(ours)}")


async def _keep(stream: Any, said: deque[str]) -> None:
    """Read a stream to its end: what is not read would stop who writes it."""
    async for line in stream:
        said.append(line.strip())


async def _beat(process: Any, order: str) -> None:
    """Give the order, then tell every now and then that we are there."""
    with suppress(OSError):
        process.stdin.write(f"{order}\n")
        while True:
            await process.stdin.drain()
            await asyncio.sleep(BEAT)
            process.stdin.write("\n")


def _telling(said: Sequence[str]) -> str:
    """The line about an error, or the last one."""
    lines = [line for line in said if line]
    errors = [line for line in lines if "Error" in line or "not found" in line]
    return (errors or lines or [""])[-1][:300]


def _literal(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _words(error: Exception) -> str:
    """Why a host cannot be used, for who wrote the site file."""
    import asyncssh

    text = " ".join(str(error).split())
    match error:
        case _Unfit():
            return text
        case asyncssh.HostKeyNotVerifiable():
            return f"its key is not known here, or is another one: {text}"
        case asyncssh.PermissionDenied():
            return f"it does not let us in: {text}"
        case TimeoutError():
            return f"no answer in time{f': {text}' if text else ''}"
        case asyncssh.ConnectionLost() | asyncssh.DisconnectError():
            return f"the connection was lost: {text}"
        case _:
            return text or type(error).__name__
