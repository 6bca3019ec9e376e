"""Judge: what a reader sees all the time, and what is there at the end; by other tools than ours.

The S3 server is asked by botocore, results are opened by ``xr.open_zarr``, journals are read as the
SQLite files that they are, values are compared with NumPy.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from dataflow.testing.bed.processes import Process
from dataflow.testing.faults.injure import HOSTS
from dataflow.testing.faults.kernel import expected, source
from dataflow.testing.faults.scene import WORKERS, Scene

_COMMIT = "COMMIT.json"
#: Seconds that the queue, and the hosts, get to be empty after a job's end.
EMPTY_SECONDS = 60.0


def events(journal: Path, job: str) -> list[dict[str, Any]]:
    """The journal's entries of a job; none while it cannot be read."""
    try:
        with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=5)) as db:
            rows = db.execute("SELECT body FROM event WHERE job = ? ORDER BY seq", [job])
            return [json.loads(body) for (body,) in rows]
    except sqlite3.Error:
        return []


def jobs(journal: Path) -> list[str]:
    """Ids of all jobs in a journal."""
    try:
        with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=5)) as db:
            return [job for (job,) in db.execute("SELECT id FROM job ORDER BY created")]
    except sqlite3.Error:
        return []


class Reader:
    """Somebody who knows nothing of jobs, and reads whatever is committed in the bucket.

    ``faults`` says what was wrong with it; ``seen`` holds what was read whole, by the path of its
    commit.
    """

    def __init__(self, scene: Scene, number: int) -> None:
        self._scene, self._number = scene, number
        self._s3 = scene.s3()
        self.seen: dict[str, dict[str, Any]] = {}
        self.faults: list[str] = []
        self.looks = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._known = {path for path, _ in self._objects("") if path.endswith(_COMMIT)}

    def start(self) -> None:
        """Read, from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and look a last time, with patience."""
        self._done.set()
        self._thread.join(30)
        for _ in range(20):
            if self._look():
                return
            time.sleep(0.5)
        self.faults.append("the store did not answer after the fault was over")

    def _poll(self) -> None:
        while not self._done.wait(0.3):
            self._look()

    def _look(self) -> bool:
        """Open every commit that is new; whether the store answered."""
        import botocore.exceptions

        try:
            paths = [path for path, _ in self._objects("") if path.endswith(_COMMIT)]
            for path in paths:
                if path not in self._known and path not in self.seen:
                    body = self._s3.get_object(Bucket=self._scene.bucket, Key=path)["Body"].read()
                    if self._opened(path, json.loads(body)):
                        self.seen[path] = json.loads(body)
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, OSError):
            return False
        self.looks += 1
        return True

    def _objects(self, prefix: str) -> Iterator[tuple[str, int]]:
        pages = self._s3.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._scene.bucket, Prefix=prefix):
            for item in page.get("Contents", ()):
                yield item["Key"], item["Size"]

    def _opened(self, path: str, manifest: dict[str, Any]) -> bool:
        """Whether it could be read; what is read must be one of the two arrays that there are."""
        import xarray as xr

        bed = self._scene.bed
        options = {
            "key": bed.s3.access_key,
            "secret": bed.s3.secret_key,
            "endpoint_url": bed.s3.endpoint,
            "use_listings_cache": False,
            "config_kwargs": {
                "connect_timeout": 2,
                "read_timeout": 10,
                "retries": {"max_attempts": 1},
            },
        }
        folder, attempt = path.removesuffix(f"/{_COMMIT}"), manifest["attempt"]
        there = dict(self._objects(f"{folder}/{attempt}/"))
        try:
            with xr.open_zarr(
                f"s3://{self._scene.bucket}/{folder}/{attempt}",
                storage_options=options,
                consolidated=False,
                chunks=None,
            ) as opened:
                values = [np.asarray(variable) for variable in opened.data_vars.values()]
        except Exception as error:
            if self._answers():
                self.faults.append(f"half visible: {path}: {type(error).__name__}: {error}"[:300])
                return True
            return False
        for name, size in _files(manifest):
            if there.get(f"{folder}/{attempt}/{name}") != size:
                self.faults.append(f"half visible: {path} lacks {name}")
                break
        right = expected(self._number) if "/results/" in path else source() + self._number
        if not any(np.array_equal(value, right) for value in values):
            self.faults.append(f"half visible: {path} has other values")
        return True

    def _answers(self) -> bool:
        try:
            self._s3.head_bucket(Bucket=self._scene.bucket)
        except Exception:
            return False
        return True


def kept(scene: Scene, reader: Reader, job: str, key: str, *, ended_right: bool) -> list[str]:
    """What is lost or doubled of what the journal calls stored, and of the result."""
    wrong = []
    stored: dict[tuple[str, str], set[str]] = {}
    for event in events(scene.journal(), job):
        report = event.get("report") or {}
        if event["type"] == "unit-reported" and report.get("type") == "stored":
            replica = report["replica"]
            stored.setdefault((report["key"], replica["site"]), set()).add(replica["url"])
    made = False
    commits: dict[str, dict[str, Any]] = {}
    for path, manifest in reader.seen.items():
        commits[f"{manifest['key']}:{'results' if '/results/' in path else 'copies'}"] = manifest
    for (what, site), urls in stored.items():
        if len(urls) > 1:
            wrong.append(f"doubled: {what[:8]} at {site}: {sorted(urls)}")
        made = made or what == key
        if site != "hpc":
            wrong += _on_disk(scene, site, what)
        elif not any(f"{what}:{area}" in commits for area in ("results", "copies")):
            wrong.append(f"lost: {what[:8]} is stored by the journal, and not in the store")
    if ended_right and not made and f"{key}:results" not in commits:
        wrong.append("lost: the job is done, and its result is in no store")
    return wrong


def _on_disk(scene: Scene, site: str, key: str) -> list[str]:
    found = []
    for area in ("results", "copies"):
        folder = scene.disk(site) / "results" / area / key[:2] / key
        if (folder / _COMMIT).exists():
            manifest = json.loads((folder / _COMMIT).read_text())
            lacking = [
                name
                for name, size in _files(manifest)
                if not (path := folder / manifest["attempt"] / name).exists()
                or path.stat().st_size != size
            ]
            found.append(f"lost: {lacking[0]} of {key[:8]} at {site}" if lacking else "")
    return [text for text in found if text] if found else [f"lost: {key[:8]} at {site}"]


def _of_a_job(process: Process, processes: Mapping[int, Process]) -> bool:
    """Whether the batch system watches over it, by one of those that began it."""
    seen: Process | None = process
    for _ in range(50):
        if seen is None:
            return False
        if seen.name.startswith("sge_shepherd"):
            return True
        seen = processes.get(seen.parent)
    return False


def _files(manifest: dict[str, Any]) -> list[tuple[str, int]]:
    """Names and sizes in a manifest, as it lies in the store."""
    return [(file[0], file[1]) for file in manifest["files"]]


def left(scene: Scene, *, warm: bool = False) -> list[str]:
    """What still runs a while after the end: batch jobs, workers, processes that belong to nobody.

    With ``warm`` there may be as many jobs as the site may have workers, and what they run.
    """
    deadline = time.monotonic() + EMPTY_SECONDS
    while found := _running(scene, warm):
        if time.monotonic() > deadline:
            return [f"left after {EMPTY_SECONDS:g} s: {'; '.join(found)[:300]}"]
        time.sleep(0.25)
    return []


def _running(scene: Scene, warm: bool) -> list[str]:
    bed = scene.bed
    said = bed.host("hpc").run("timeout 5 qstat", check=False)
    jobs = said.stdout.splitlines()[2:]
    found = [f"qstat: {line}" for line in jobs[WORKERS if warm else 0 :]]
    if said.returncode:
        found.append(f"qstat says {said.stderr.strip()}")
    for name in HOSTS:
        everybody = {process.pid: process for process in bed.host(name).processes()}
        for process in bed.host(name).processes(user=bed.user):
            if not (warm and jobs and _of_a_job(process, everybody)):
                found.append(f"{name}: {process.command[:80]}")
    for name in scene.names:
        processes = bed.host(name).processes(user=bed.user)
        parents = {process.pid: process.parent for process in processes}
        agent = scene.agent(name)
        for process in processes:
            if str(bed.python.parent) not in process.command and "python" not in process.name:
                continue
            ancestor, steps = process.pid, 0
            while ancestor != agent and parents.get(ancestor) and steps < 50:
                ancestor, steps = parents[ancestor], steps + 1
            if ancestor != agent:
                found.append(f"{name}: {process.command[:80]} is nobody's")
    return found
