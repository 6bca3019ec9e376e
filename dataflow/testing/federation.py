"""Federation: real site agents on this machine, each a process of its own, to test and to show.

Every site has its own folder, store, Dask workers, state, token and port; nothing is shared but
the machine. In front of each agent stands a :class:`~dataflow.testing.wire.Wire`, and nobody is
told any other address, so that what crosses between sites can be counted, slowed and cut.

    with Federation(folder, ["amsterdam", "delft", "groningen"]) as federation:
        adk.prepare(federation.data("amsterdam"), federation.data("delft"))
        session = flow.connect(federation.sites_file, state=folder / "notebook")
        federation.wires["delft"].cut()
        federation.kill("groningen")          # the agent and its workers, at once
        federation.restart("groningen")       # the same site, its state, its address

All processes carry a mark in their environment, or are of an agent's session; by that they are found,
measured, and ended one by one when the federation ends, however it ends.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import psutil
import yaml

from dataflow.agent.certificates import make_pair
from dataflow.client.pinned import pinned_tls
from dataflow.config.records import CERTIFICATE_FILE, KEY_FILE
from dataflow.testing.copies import Copies, Copy
from dataflow.testing.ports import free_port
from dataflow.testing.wire import Crossed, Wire

if TYPE_CHECKING:
    from dataflow.session import Session

#: Environment variable that marks every process of a federation: ``<federation>/<site>``.
MARK = "DATAFLOW_TESTING_MARK"
#: Where everybody in a federation finds the tokens.
CREDENTIALS_FILE = "DATAFLOW_CREDENTIALS_FILE"
_LISTENING = "listening on "


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSettings:
    """What one site has.

    ``memory`` is the limit of each Dask worker; ``environment`` is added to the agent's; ``more``
    goes into the ``site:`` part of its file as it is, ``sections`` beside that. ``stores`` are
    further entries of ``stores:``; one of a site that has no agent here declares that site too.
    """

    workers: int = 1
    threads: int = 1
    memory: str = "1 GB"
    environment: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    stores: Sequence[Mapping[str, Any]] = ()
    sections: Mapping[str, Any] = field(default_factory=dict)


class Federation:
    """Site agents, started on entering and ended on leaving.

    Parameters
    ----------
    folder
        Gets a folder per site, the site files and the logs, which stay.
    sites
        Names, or names with their settings.
    wires
        ``False``: agents are addressed directly, and nothing is counted.
    knows
        Which others the file of a site names; by default all.
    credentials
        Further entries of the credentials file, which all processes share.
    users
        People with a token at every site, and their role there; :meth:`sites_file_of` gives the
        file that each of them would have.
    tls
        Agents speak TLS, and everybody knows everybody's certificate.
    rate
        Bytes per second over each wire, from the start.
    ready_within
        Seconds in which each agent must answer.

    Raises
    ------
    RuntimeError
        On entering, if an agent does not get ready; with the end of its log. Nothing is left
        running then.

    Attributes
    ----------
    copies
        What agents are forked from, in all federations of this process; by default each starts afresh.
    """

    copies: ClassVar[Copies | None] = None

    def __init__(
        self,
        folder: str | Path,
        sites: Sequence[str] | Mapping[str, SiteSettings],
        *,
        wires: bool = True,
        knows: Mapping[str, Sequence[str]] | None = None,
        users: Mapping[str, str] | None = None,
        credentials: Mapping[str, Mapping[str, str]] | None = None,
        tls: bool = False,
        rate: float | None = None,
        ready_within: float = 20.0,
    ) -> None:
        self.folder = Path(folder).absolute()
        self.settings = (
            dict(sites) if isinstance(sites, Mapping) else {name: SiteSettings() for name in sites}
        )
        self.wires: dict[str, Wire] = {}
        self._with_wires = wires
        self._knows = dict(knows or {})
        self._users = dict(users or {})
        self._secrets = dict(credentials or {})
        self._tls = tls
        self._rate = rate
        self._ready_within = ready_within
        self._id = secrets.token_hex(8)
        self._agents: dict[str, subprocess.Popen[bytes] | Copy] = {}
        #: Sites, and the sessions of all agents that they have had.
        self._sessions: dict[str, set[int]] = {}
        self._addresses: dict[str, str] = {}
        self._tokens = {name: secrets.token_urlsafe(24) for name in (*self.settings, *self._users)}
        self._before: str | None = None

    # --- where things are ----------------------------------------------------------------------

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of all sites."""
        return tuple(self.settings)

    @property
    def sites_file(self) -> Path:
        """For ``connect()``: every site at the address of its wire."""
        return self.folder / "sites.yaml"

    def sites_file_of(self, user: str = "", *, knows: Sequence[str] | None = None) -> Path:
        """The same for somebody who uses the token of ``user`` and is told of some sites only."""
        known = self.sites if knows is None else knows
        path = self.folder / f"sites-{user or 'all'}-{'-'.join(known)}.yaml"
        entries = [self._site_entry(site, user) for site in known]
        path.write_text(yaml.safe_dump({"sites": entries}, sort_keys=False))
        return path

    def root(self, site: str) -> Path:
        """The site's folder."""
        return self.folder / site

    def data(self, site: str) -> Path:
        """Where the site keeps data: a store that is only read."""
        return self.root(site) / "data"

    def results(self, site: str) -> Path:
        """Where the site keeps results and copies."""
        return self.root(site) / "results"

    def address(self, site: str) -> str:
        """URL under which everybody reaches the site."""
        scheme = urlsplit(self._addresses[site]).scheme
        return (
            f"{scheme}://{self.wires[site].address}" if self._with_wires else self._addresses[site]
        )

    def certificate(self, site: str) -> Path:
        """What the agent shows; with ``tls``."""
        return self.root(site) / "state" / CERTIFICATE_FILE

    def token(self, who: str) -> str:
        """The token that a user, or a site, shows everywhere."""
        return self._tokens[who]

    def log(self, site: str) -> str:
        """What the agent has said so far, all its lives."""
        path = self.root(site) / "agent.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # --- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Write the files, start all agents at once and wait until each answers."""
        atexit.register(self.stop)
        try:
            for site in self.sites:
                self._prepare(site)
            self._write_files()
            self._before = os.environ.get(CREDENTIALS_FILE)
            os.environ[CREDENTIALS_FILE] = str(self._credentials)
            for site in self.sites:
                self._launch(site)
            self._wait_ready(self.sites)
            self._wait_measured()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all agents, in order if they listen and in any case; take the wires down."""
        atexit.unregister(self.stop)
        for agent in self._agents.values():
            if agent.poll() is None:
                agent.terminate()
        limit = time.monotonic() + 8
        for agent in self._agents.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                agent.wait(max(0.1, limit - time.monotonic()))
        if self._agents:
            _end(self._marked())
        for agent in self._agents.values():
            agent.wait()
        self._agents.clear()
        self._sessions.clear()  # the numbers may be others' by and by
        for wire in self.wires.values():
            wire.close()
        if os.environ.get(CREDENTIALS_FILE) == str(self._credentials):
            if self._before is None:
                del os.environ[CREDENTIALS_FILE]
            else:
                os.environ[CREDENTIALS_FILE] = self._before

    def kill(self, site: str) -> None:
        """SIGKILL to the agent and all of its workers, as when the power goes; returns when gone."""
        _end(self.processes(site))
        self._agents[site].wait()
        self._sessions[site].clear()

    def kill_agent(self, site: str) -> None:
        """SIGKILL to the agent's own process only; what becomes of its workers is its business."""
        self._agents[site].kill()
        self._agents[site].wait()

    def restart(self, site: str) -> None:
        """Start the agent of a site that was killed, on the same folder; wait until it answers."""
        if self._agents[site].poll() is None:
            raise RuntimeError(f"the agent of {site} still runs")
        self._launch(site)
        self._wait_ready([site])

    def add(self, site: str, settings: SiteSettings | None = None, *, knows: Sequence[str]) -> None:
        """Start one more site, which is told of those it ``knows``; wait until it answers."""
        self.settings[site] = settings or SiteSettings()
        self._knows[site] = list(knows)
        self._tokens[site] = secrets.token_urlsafe(24)
        self._prepare(site)
        self._write_files()
        self._launch(site)
        self._wait_ready([site])

    def remove(self, site: str) -> None:
        """End a site for good; its folder stays."""
        self.kill(site)
        del self.settings[site], self._agents[site], self._addresses[site]
        if self._with_wires:
            self.wires.pop(site).close()

    def mend(self) -> None:
        """Undo what was done to it: wires are whole and fast again, dead agents run again."""
        for wire in self.wires.values():
            wire.heal()
            wire.rate, wire.latency, wire.loss = self._rate, 0.0, 0.0
        dead = [site for site, agent in self._agents.items() if agent.poll() is not None]
        for site in dead:
            self._launch(site)
        self._wait_ready(dead)

    def __enter__(self) -> Federation:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        running = [site for site, agent in self._agents.items() if agent.poll() is None]
        return f"<Federation {len(running)} of {len(self.sites)} sites run, in {self.folder}>"

    # --- evidence ------------------------------------------------------------------------------

    def pid(self, site: str) -> int:
        """Process id of the site's agent."""
        return self._agents[site].pid

    def processes(self, site: str) -> list[psutil.Process]:
        """Every process of the site: agent, Dask workers and what those started."""
        return self._marked(site)

    def wait_measured(self, session: Session, seconds: float = 120.0) -> None:
        """Wait until each site has measured the road from each other, as a session sees them.

        That moves megabytes, which a test that counts bytes does not want to meet.

        Raises
        ------
        TimeoutError
            If some road is not measured in time.
        """
        limit = time.monotonic() + seconds
        while missing := _not_measured(session, self.sites):
            if time.monotonic() > limit:
                raise TimeoutError(f"not measured within {seconds:g} s: {', '.join(missing)}")
            time.sleep(0.2)

    def crossed(self) -> dict[str, Crossed]:
        """Bytes (in, out) over the wire of each site since the start."""
        return {site: wire.crossed for site, wire in self.wires.items()}

    @contextlib.contextmanager
    def memory(self, *also: int, every: float = 0.1) -> Iterator[dict[str, int]]:
        """Peak resident memory (bytes) of the largest process of each site, inside the block.

        The kernel's own high-water mark (``VmHWM``, set back at the start), so that no peak falls
        between two looks. ``also`` are further process ids, reported as ``"also"``.
        """
        peaks: dict[str, int] = dict.fromkeys(self.sites, 0)
        if also:
            peaks["also"] = 0
        done = threading.Event()

        def pids() -> list[tuple[str, int]]:
            ours = [(site, p.pid) for site in self.sites for p in self.processes(site)]
            return [*ours, *(("also", pid) for pid in also)]

        def look() -> None:
            for site, pid in pids():
                with contextlib.suppress(OSError):
                    peaks[site] = max(peaks[site], _high_water(pid))

        def watch() -> None:
            while not done.wait(every):
                look()

        for _, pid in pids():
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")
        watcher = threading.Thread(target=watch, name="memory-watch", daemon=True)
        watcher.start()
        try:
            yield peaks
        finally:
            done.set()
            watcher.join()
            look()

    # --- inside --------------------------------------------------------------------------------

    @property
    def _credentials(self) -> Path:
        return self.folder / "credentials.yaml"

    def _prepare(self, site: str) -> None:
        for folder in (self.data(site), self.results(site), self.root(site) / "state"):
            folder.mkdir(parents=True, exist_ok=True)
        self._addresses[site] = f"{'https' if self._tls else 'http'}://127.0.0.1:{free_port()}"
        if self._tls:
            certificate = self.certificate(site)
            make_pair(site, certificate, certificate.with_name(KEY_FILE))
        if self._with_wires:
            self.wires[site] = Wire(self._addresses[site])
            self.wires[site].rate = self._rate

    def _write_files(self) -> None:
        _write_secret(
            self._credentials,
            yaml.safe_dump(
                {f"{n}-token": self._credential(n, t) for n, t in self._tokens.items()}
                | {name: dict(fields) for name, fields in self._secrets.items()}
            ),
        )
        entries = [self._site_entry(site) for site in self.sites]
        self.sites_file.write_text(yaml.safe_dump({"sites": entries}, sort_keys=False))
        tokens = "".join(
            f"{token} {name} {self._users.get(name, 'site')}\n"
            for name, token in self._tokens.items()
        )
        for site in self.sites:
            _write_secret(self.root(site) / "state" / "tokens", tokens)
            path = self.root(site) / "site.yaml"
            path.write_text(yaml.safe_dump(self._site_document(site), sort_keys=False))

    def _credential(self, name: str, token: str) -> dict[str, str]:
        """A token, and for those of sites the address where it may be shown."""
        return {
            "token": token,
            **({"address": self.address(name)} if name in self.settings else {}),
        }

    def _site_entry(self, site: str, user: str = "") -> dict[str, Any]:
        name = user or site
        return {
            "name": site,
            "address": self.address(site),
            "credentials": f"{name}-token",
            **({"certificate": str(self.certificate(site))} if self._tls else {}),
        }

    def _site_document(self, site: str) -> dict[str, Any]:
        settings = self.settings[site]
        knows = self._knows.get(site, [other for other in self.sites if other != site])
        bare = {str(store["site"]) for store in settings.stores if "site" in store}
        return {
            "site": {
                "name": site,
                "workers": settings.workers,
                "threads": settings.threads,
                "memory": settings.memory,
                **settings.more,
            },
            "listen": {
                "address": urlsplit(self._addresses[site]).netloc,
                **({"certificate": "own"} if self._tls else {}),
                "public": self.address(site),
            },
            "state": "./state",
            "stores": [
                {"name": "data", "url": "./data", "purpose": "data"},
                {"name": "results", "url": "./results"},
                *map(dict, settings.stores),
            ],
            "sites": [
                *(self._site_entry(other, site) for other in knows),
                *({"name": name, "workers": 0} for name in sorted(bare - set(self.sites))),
            ],
            **settings.sections,
        }

    def _launch(self, site: str) -> None:
        settings = self.settings[site]
        environment = {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            **settings.environment,
            CREDENTIALS_FILE: str(self._credentials),
            MARK: self._mark(site),
        }
        words = ("agent", "--config", str(self.root(site) / "site.yaml"))
        with open(self.root(site) / "agent.log", "ab") as log:
            log.write(f"--- start {time.time():.3f}\n".encode())
            log.flush()
            agent: subprocess.Popen[bytes] | Copy
            if self.copies is not None:
                agent = self.copies.start(
                    words, cwd=self.root(site), environment=environment, log=Path(log.name)
                )
            else:
                agent = subprocess.Popen(
                    [sys.executable, "-m", "dataflow", *words],
                    cwd=self.root(site),
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        self._agents[site] = agent
        self._sessions.setdefault(site, set()).add(agent.pid)

    def _wait_ready(self, sites: Iterable[str]) -> None:
        limit = time.monotonic() + self._ready_within
        for site in sites:
            agent = self._agents[site]
            while _LISTENING not in self.log(site).rpartition("--- start")[2]:
                if agent.poll() is not None or time.monotonic() > limit:
                    why = (
                        f"ended{_status(agent)}"
                        if agent.poll() is not None
                        else f"is not ready after {self._ready_within:g} s"
                    )
                    raise RuntimeError(f"the agent of {site} {why}:\n{self.log(site)[-4000:]}")
                time.sleep(0.05)

    def _wait_measured(self) -> None:
        """Until each has measured the road from each other, so that no test counts those bytes."""
        import httpx2

        limit = time.monotonic() + self._ready_within
        for site in self.sites:
            headers = {"authorization": f"Bearer {self._tokens[site]}"}
            verify = pinned_tls(self.certificate(site)) if self._tls else True
            known = self._knows.get(site, [other for other in self.sites if other != site])
            wanted = {f"{other}>{site}" for other in known if other in self.settings}
            while wanted and time.monotonic() < limit:
                url = f"{self._addresses[site]}/v1/records"
                answer = httpx2.get(url, headers=headers, timeout=60.0, verify=verify)
                rows = answer.json()["rows"]
                if wanted <= {row["id"] for row in rows if row["kind"] == "link"}:
                    break
                time.sleep(0.05)

    def _mark(self, site: str) -> str:
        return f"{self._id}/{site}"

    def _marked(self, site: str = "") -> list[psutil.Process]:
        found = []
        sessions = (
            self._sessions.get(site, set()) if site else set().union(*self._sessions.values())
        )
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if os.getsid(process.pid) in sessions:
                    found.append(process)
                    continue
                mark = process.environ().get(MARK, "")
                if mark == self._mark(site) or (not site and mark.startswith(self._id)):
                    found.append(process)
        return found


def _status(agent: subprocess.Popen[bytes] | Copy) -> str:
    return f" with status {agent.returncode}" if isinstance(agent, subprocess.Popen) else ""


def _end(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL, by pid, and wait until they are gone."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
    limit = time.monotonic() + 10
    while any(_lives(process) for process in processes):
        if time.monotonic() > limit:
            raise RuntimeError(f"these do not end: {[p.pid for p in processes if _lives(p)]}")
        time.sleep(0.01)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _high_water(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _write_secret(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text)


def _not_measured(session: Session, sites: Sequence[str]) -> list[str]:
    topology = session.topology()
    return [
        f"{source} → {target}"
        for source, target in permutations(sites, 2)
        if topology.link(source, target).origin != "measured"
    ]
