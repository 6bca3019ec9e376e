"""Scene: the federation on the test bed that all cells share, and the notebook that works with it.

``edge`` has the data and is reached by SSH; ``hpc`` has Grid Engine, whose hosts reach the S3 server
through a relay on the login host, as they would through an institute's proxy. Jobs are kept by the
notebook, over which copies between the two go; or (``kept_by="third"``) by the agent of a site of its
own, which reaches both by SSH, as ``hpc`` then reaches ``edge``. Workers go two seconds after their
job, or (``warm``) stay for the next one.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from dataflow.testing.bed import GRID_ENGINE, Bed
from dataflow.testing.bed.commands import BedError
from dataflow.testing.bed.hosts import site_folder
from dataflow.testing.faults.cells import STARTING
from dataflow.testing.faults.kernel import SEED, SHAPE

#: Where compute hosts of ``hpc`` find the S3 server.
RELAY_PORT = 8000
#: Workers that ``hpc`` may have, each a batch job.
WORKERS = 2
_RELAY = """
import asyncio, sys
async def carry(source, target):
    try:
        while piece := await source.read(1 << 18):
            target.write(piece)
            await target.drain()
    except OSError:
        pass
    finally:
        target.close()
async def serve(reader, writer):
    try:
        there = await asyncio.open_connection(sys.argv[2], int(sys.argv[3]))
    except OSError:
        writer.transport.abort()
        return
    await asyncio.gather(carry(reader, there[1]), carry(there[0], writer))
async def main():
    server = await asyncio.start_server(serve, sys.argv[1], int(sys.argv[4]))
    print("listening", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def until(holds: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Look again and again until it is so.

    Raises
    ------
    TimeoutError
        Saying ``what`` did not come about.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)


class Kernel:
    """A running notebook; what it says is read by a thread."""

    def __init__(self, scene: Scene) -> None:
        data = f"/home/{scene.bed.user}/{scene.home}/data/edge.npy"
        self.log = (scene.folder / "kernel.log").open("ab")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-W", "ignore", "-m", "dataflow.testing.faults.kernel"),
                *(str(scene.file), str(scene.folder / "notebook"), data),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, "DATAFLOW_STATE_DIR": str(scene.folder / "state")},
        )
        self.said: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.hear("connected", None, 90)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError):
            for line in self.process.stdout:
                if line.startswith("{"):
                    self.said.put(json.loads(line))

    @property
    def lives(self) -> bool:
        """Whether the process is there."""
        return self.process.poll() is None

    def ask(self, **facts: Any) -> None:
        """Have it do something."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(facts) + "\n")
        self.process.stdin.flush()

    def hear(self, word: str, number: int | None, seconds: float) -> dict[str, Any]:
        """The next thing of that kind said of a job; "ended" instead is an answer too.

        Raises
        ------
        TimeoutError
            If it is not said in time.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                found = self.said.get(timeout=max(deadline - time.monotonic(), 0.01))
            except queue.Empty:
                raise TimeoutError(f"the notebook did not say {word!r}") from None
            if found["said"] in (word, "ended") and found.get("number") == number:
                return found

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it, and wait for the end."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
            if number == signal.SIGKILL:
                self.process.kill()
            else:
                assert self.process.stdin is not None
                with contextlib.suppress(OSError):
                    self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout, self.log):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class Scene:
    """Sites, bucket and notebook; a context that leaves nothing behind."""

    def __init__(
        self, bed: Bed, folder: Path, *, kept_by: str | None = None, warm: bool = False
    ) -> None:
        self.bed, self.kept_by, self.warm = bed, kept_by, warm
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.home = f"faults-{uuid.uuid4().hex[:8]}"
        self.bucket = f"faults-{uuid.uuid4().hex[:8]}"
        self.names = ["edge", "hpc", *([kept_by] if kept_by else [])]
        self._relay: subprocess.Popen[str] | None = None
        self._kernel: Kernel | None = None
        self._count = 0
        self.file = folder / "sites.yaml"

    # --- making ---------------------------------------------------------------------------------

    def __enter__(self) -> Scene:
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make(self) -> None:
        s3 = self.s3()
        s3.create_bucket(Bucket=self.bucket)
        self.relay()
        for name in self.names:
            self._site(name)
        make = (
            f"import numpy as np; np.save('{self.home}/data/edge.npy', "
            f"np.random.default_rng({SEED}).random({SHAPE}))"
        )
        self.bed.host("edge").run([self.bed.python, "-c", make])
        self.file.write_text(
            yaml.safe_dump({"sites": [self._way(n, str(self.bed.ssh_config)) for n in self.names]})
        )
        _ = self.kernel

    def _site(self, name: str) -> None:
        host = self.bed.host(name)
        host.run(f"mkdir -p {self.home}/data")
        results: dict[str, Any] = {"name": "results", "url": "./results"}
        document: dict[str, Any] = {
            "site": {"name": name},
            "state": "./state",
            "stores": [{"name": "data", "url": "./data", "purpose": "data"}, results],
        }
        if name == "hpc":
            results |= {
                "url": f"s3://{self.bucket}/flow",
                "credentials": "bucket",
                "options": {
                    "endpoint": f"http://10.78.0.1:{RELAY_PORT}",
                    "region": self.bed.s3.region,
                    "path_style": "true",
                },
            }
            document["backend"] = {
                "workers": WORKERS,
                "memory": "500 MB",
                "sge": {
                    **GRID_ENGINE,
                    "worth": "1 s",
                    "starting": f"{STARTING:g} s",
                    "idle": "5 min" if self.warm else GRID_ENGINE["idle"],
                },
            }
            path = "~/.config/dataflow/credentials.yaml"
            host.run(
                f"mkdir -p ~/.config/dataflow; umask 077; cat > {path}",
                stdin=yaml.safe_dump({"bucket": self.bed.s3.credentials}),
            )
        else:
            document["backend"] = {"workers": 1, "memory": "500 MB"}
        if self.kept_by and name != "edge":
            others = ["edge"] if name == "hpc" else ["edge", "hpc"]
            config = self._keys(name)
            document["sites"] = [self._way(other, config) for other in others]
        host.run(f"cat > {self.home}/site.yaml", stdin=yaml.safe_dump(document))

    def _keys(self, name: str) -> str:
        """Have the account at a site hold the key to the others; the SSH configuration for it."""
        folder = f"/home/{self.bed.user}/{self.home}/ssh"
        host = self.bed.host(name)
        host.run(f"mkdir -p {folder}; umask 077; cat > {folder}/key", stdin=_text(self.bed.ssh_key))
        host.run(f"cat > {folder}/known_hosts", stdin=_text(self.bed.known_hosts))
        config = _text(self.bed.ssh_config)
        config = config.replace(str(self.bed.ssh_key), f"{folder}/key")
        config = config.replace(str(self.bed.known_hosts), f"{folder}/known_hosts")
        host.run(f"cat > {folder}/config", stdin=config)
        return f"{folder}/config"

    def _way(self, name: str, config: str) -> dict[str, Any]:
        ssh = {
            "python": str(self.bed.python),
            "config": config,
            "site_file": f"{self.home}/site.yaml",
        }
        return {"name": name, "address": f"ssh://{name}", "ssh": ssh}

    # --- parts ----------------------------------------------------------------------------------

    def s3(self) -> Any:
        """A client of its own for the S3 server, which gives up soon."""
        return self.bed.s3.client(attempts=1)

    @property
    def kernel(self) -> Kernel:
        """The notebook; a new one if there is none."""
        if self._kernel is None or not self._kernel.lives:
            if self._kernel is not None:
                self._kernel.end()
            self._kernel = Kernel(self)
        return self._kernel

    @property
    def kernel_lives(self) -> bool:
        """Whether there is a notebook."""
        return self._kernel is not None and self._kernel.lives

    def relay(self) -> None:
        """The way from compute hosts to the S3 server, unless it is there."""
        if self._relay is not None and self._relay.poll() is None:
            return
        host, _, port = self.bed.s3.endpoint.removeprefix("http://").partition(":")
        program = ["/usr/bin/python3", "-c", _RELAY, "10.78.0.1", host, port, str(RELAY_PORT)]
        self._relay = self.bed.host("hpc").start(program, user="root")
        assert self._relay.stdout is not None
        if self._relay.stdout.readline().strip() != "listening":
            raise BedError("the relay to the S3 server did not start")

    def disk(self, site: str) -> Path:
        """The site's folder, as this machine sees it."""
        return site_folder(site) / "home" / self.home

    def journal(self) -> Path:
        """Where the jobs are kept."""
        folder = self.disk(self.kept_by) / "state" if self.kept_by else self.folder / "notebook"
        return folder / "journal.db"

    def agent(self, name: str) -> int | None:
        """The number of a site's agent, as its host knows it; ``None`` if there is none."""
        try:
            number = int(json.loads((self.disk(name) / "state/agent.json").read_text())["pid"])
        except (OSError, ValueError, KeyError):
            return None
        there = {process.pid for process in self.bed.host(name).processes()}
        return number if number in there else None

    @property
    def begun(self) -> int:
        """Jobs that were begun here."""
        return self._count

    def next_number(self) -> int:
        """A number for a job that no other has."""
        self._count += 1
        return self._count

    # --- the end --------------------------------------------------------------------------------

    def close(self) -> None:
        """End the notebook, the agents in order, and the relay."""
        if self._kernel is not None:
            self._kernel.end()
        # Who reaches others by SSH comes before them: it would have them started again.
        for name in reversed(self.names):
            pid = self.agent(name)
            if pid is not None:
                with contextlib.suppress(KeyError, ProcessLookupError):
                    self.bed.host(name).end(pid, signal.SIGTERM)
                with contextlib.suppress(TimeoutError):
                    until(lambda n=name: self.agent(n) is None, f"the end of the agent of {name}")  # type: ignore[misc]
        if self._relay is not None:
            self._relay.kill()
            self._relay.wait(10)
            for pipe in (self._relay.stdin, self._relay.stdout):
                if pipe is not None:
                    pipe.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _text(path: Path) -> str:
    return path.read_text()
