"""Transfers alone: beside a bare stream over the same link, and a bare put of the same bytes to S3.

Part of `wan.py`. Bytes per second are those of the ledger (payload, from the order's beginning to the
commit at the target), the baseline is one TCP connection that carries the same number of bytes over
the same links right before, from its first byte to the last. The links' nominal rate holds for whole
frames; what a stream can carry is 95.6 % of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from wan_sites import ENSEMBLE, OBSERVATIONS, Sites, end, until

import dataflow as flow
from dataflow.testing.bed import Bed

#: Bytes per second on the wire, and seconds one way.
RATE, LATENCY = 50e6 / 8, 0.010
GOAL_LINK, GOAL_S3 = 0.9, 0.8

_SEND = """
import socket, sys
listener = socket.create_server((sys.argv[1], 8124))
print("ready", flush=True)
while True:
    end, _ = listener.accept()
    with end:
        left = int(sys.argv[2])
        while left:
            left -= end.send(bytes(min(left, 2**18)))
"""
_RECEIVE = """
import socket, sys, time
end = socket.create_connection((sys.argv[1], 8124))
begun = time.perf_counter()
while end.recv(2**18):
    pass
print(time.perf_counter() - begun)
"""


def of_transfers(bed: Bed, quick: bool, rounds: int) -> Iterator[dict[str, Any]]:
    nbytes = (48 if quick else 128) * 2**20
    for site in (ENSEMBLE, OBSERVATIONS):
        bed.link(site).shape(rate=RATE, latency=LATENCY)
    streams = {
        target: statistics.median(stream(bed, target, nbytes) for _ in range(rounds))
        for target in ("notebook", OBSERVATIONS)
    }
    ways: tuple[tuple[str, str, bool], ...] = (
        ("site to notebook by SSH", "notebook", False),
        ("site to site by SSH, relayed by the notebook", OBSERVATIONS, False),
        ("site to site directly, https", OBSERVATIONS, True),
    )
    for name, target, direct in ways:
        with tempfile.TemporaryDirectory(prefix="wan-") as folder:
            found = ours(bed, Path(folder), target, nbytes, rounds, direct=direct)
        value, baseline = statistics.median(found), streams[target]
        yield _line(name, value, baseline, "bare TCP stream", GOAL_LINK, found)
    bed.preset("unshaped")
    with tempfile.TemporaryDirectory(prefix="wan-") as folder:
        yield from to_s3(bed, Path(folder), 2 * nbytes, max(rounds, 3))


def _line(
    name: str, value: float, baseline: float, what: str, goal: float, found: list[float]
) -> dict[str, Any]:
    return {
        "figure": f"transfer, {name}",
        "value": round(value / 1e6, 3),
        "unit": "MB/s",
        "baseline": round(baseline / 1e6, 3),
        "baseline_is": what,
        "ratio": round(value / baseline, 3),
        "goal": f">= {goal:g}",
        "holds": value >= goal * baseline,
        "of_nominal_rate": round(value / RATE, 3),
        "rounds": [round(one / 1e6, 3) for one in found],
    }


def stream(bed: Bed, target: str, nbytes: int) -> float:
    """Bytes per second of one TCP connection from the ensemble's site."""
    import subprocess

    address = bed.address(ENSEMBLE)
    sender = bed.host(ENSEMBLE).start([str(bed.python), "-c", _SEND, address, str(nbytes)])
    try:
        assert sender.stdout is not None
        assert sender.stdout.readline().strip() == "ready"
        if target == "notebook":
            command = [str(bed.python), "-c", _RECEIVE, address]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        else:
            said = bed.host(target).run([str(bed.python), "-c", _RECEIVE, address]).stdout
    finally:
        end(sender)
    return nbytes / float(said)


def ours(
    bed: Bed, folder: Path, target: str, nbytes: int, rounds: int, *, direct: bool
) -> list[float]:
    """Bytes per second of jobs that do nothing but copy, by the ledger; fresh bytes each time."""
    sites = DirectSites(bed, folder) if direct else Sites(bed, folder)
    found = []
    try:
        with flow.connect(sites.file, state=folder / "state") as session:
            sites.ready(session)
            for number in range(rounds + 1):  # the first is not counted, and small
                size = nbytes if number else 2**20
                path = f"/home/{bed.user}/{sites.home}/copy{number}.npy"
                write = (
                    "import numpy as np; rng = np.random.default_rng(); "
                    f"np.save({path!r}, rng.integers(0, 2**62, {size // 8}))"
                )
                bed.host(ENSEMBLE).run([str(bed.python), "-c", write])
                session.register(path, name=f"copy{number}", site=ENSEMBLE)
                plan = session.plan(session[f"copy{number}"], result_at=target)
                (transfer,) = plan.transfers
                relayed = "notebook" if target != "notebook" and not direct else ""
                assert (transfer.source, transfer.via) == (ENSEMBLE, relayed), transfer
                job = session.submit(plan)
                job.wait(600)
                entry = next(iter(job.ledger()))
                assert entry.nbytes >= size, entry
                if number:
                    found.append(entry.nbytes / entry.seconds)
    finally:
        sites.end()
    return found


class DirectSites(Sites):
    """Sites that answer by https, with a certificate that both of them and the notebook trust."""

    def __init__(self, bed: Bed, folder: Path) -> None:
        import subprocess

        import yaml

        self.bed, self.names = bed, (ENSEMBLE, OBSERVATIONS)
        self.home = f"wan-{uuid.uuid4().hex[:8]}"
        self._agents = []
        certificate, key = folder / "c.pem", folder / "k.pem"
        names = ",".join(f"IP:{bed.address(name)}" for name in self.names)
        options = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=flow"
        subprocess.run(
            [
                *("openssl", "req", *options.split(), "-addext", f"subjectAltName={names}"),
                *("-keyout", str(key), "-out", str(certificate)),
            ],
            check=True,
            capture_output=True,
        )
        os.environ["SSL_CERT_FILE"] = str(certificate)
        token = uuid.uuid4().hex
        address = {name: f"https://{bed.address(name)}:8850" for name in self.names}
        secret = {name: {"token": token, "address": address[name]} for name in self.names}
        for name in self.names:
            (other,) = set(self.names) - {name}
            home = f"/home/{bed.user}/{self.home}"
            document = {
                "site": {"name": name, "workers": 1, "memory": "2 GB"},
                "listen": {
                    "address": f"{bed.address(name)}:8850",
                    "certificate": "./c.pem",
                    "key": "./k.pem",
                },
                "state": "./state",
                "stores": [
                    {"name": "data", "url": f"/home/{bed.user}", "purpose": "data"},
                    {"name": "results", "url": "./results"},
                ],
                "sites": [{"name": other, "address": address[other], "credentials": other}],
            }
            host = bed.host(name)
            host.run(f"umask 077; mkdir -p {self.home}/state")
            for file, text in (
                ("site.yaml", yaml.safe_dump(document)),
                ("c.pem", certificate.read_text()),
                ("k.pem", key.read_text()),
                ("credentials.yaml", yaml.safe_dump(secret)),
                ("state/tokens", f"{token} site{name} site\n"),
            ):
                host.run(f"umask 077; cat > {self.home}/{file}", stdin=text)
            environment = [f"SSL_CERT_FILE={home}/c.pem"]
            for place, found in secret.items():
                environment.append(f"DATAFLOW_CREDENTIALS_{place.upper()}={json.dumps(found)}")
            command = [str(bed.python), "-m", "dataflow", "agent", "--config", f"{home}/site.yaml"]
            agent = host.start(["env", *environment, *command])
            self._agents.append(agent)
            assert agent.stdout is not None
            line = ""
            while "listening" not in line:
                line, before = agent.stdout.readline(), line
                assert line, f"the agent ended: {before}"
        for name in self.names:
            os.environ[f"DATAFLOW_CREDENTIALS_{name.upper()}"] = json.dumps(secret[name])
        own = {
            "site": {"name": "notebook", "workers": 1, "memory": "2 GB"},
            "stores": [{"name": "results", "url": str(folder / "results")}],
            "sites": [
                {"name": name, "address": address[name], "credentials": name} for name in self.names
            ],
        }
        self.file = folder / "sites.yaml"
        self.file.write_text(yaml.safe_dump(own))

    def ready(self, session: Any) -> None:
        super().ready(session)

        def known() -> bool:
            roads = {(link.source, link.target): link for link in session.topology().links}
            road = roads.get((ENSEMBLE, OBSERVATIONS))
            return road is not None and road.origin == "measured"

        until(known, 600)

    def end(self) -> None:
        for agent in self._agents:
            end(agent)
        del os.environ["SSL_CERT_FILE"]


def to_s3(bed: Bed, folder: Path, nbytes: int, rounds: int) -> Iterator[dict[str, Any]]:
    """A copy of local files into a results store in S3, beside bare puts of the same files."""
    import obstore

    from dataflow.datasets import Extent, Replica
    from dataflow.storage.open import object_store
    from dataflow.storage.transfer import StoreSource, copy

    client = bed.s3.client(seconds=60.0)
    bucket = f"wan-{uuid.uuid4().hex[:8]}"
    client.create_bucket(Bucket=bucket)
    options = (
        ("endpoint", bed.s3.endpoint),
        ("region", bed.s3.region),
        ("path_style", "true"),
    )
    opening: dict[str, Any] = {"credentials": bed.s3.credentials, "options": options}
    root = f"s3://{bucket}/flow"
    store = object_store(root, **opening)
    for count in (1, 32):
        data = folder / f"files{count}"
        data.mkdir()
        for number in range(count):
            (data / f"f{number}").write_bytes(np.random.default_rng(number).bytes(nbytes // count))

        def by_obstore(turn: int, data: Path = data) -> None:
            for path in data.iterdir():
                obstore.put(store, f"raw/{turn}/{path.name}", path)

        def by_boto(turn: int, data: Path = data) -> None:
            for path in data.iterdir():
                with path.open("rb") as file:
                    client.put_object(Bucket=bucket, Key=f"boto/{turn}/{path.name}", Body=file)

        def by_us(turn: int, data: Path = data) -> None:
            key = f"{data.name}-{turn}"
            url = data.as_uri()
            replica = Replica(key=key, site="s", store="s", url=url, format="files", nbytes=nbytes)
            work = copy(
                StoreSource(replica=replica),
                root=root,
                key=key,
                attempt="a",
                provenance={},
                kind="files",
                format="files",
                extent=Extent(nbytes=nbytes),
                **opening,
            )
            asyncio.run(work)

        speeds: dict[str, list[float]] = {"obstore": [], "boto": [], "ours": []}
        for turn in range(rounds + 1):  # the first is not counted
            for name, work in (("obstore", by_obstore), ("boto", by_boto), ("ours", by_us)):
                begun = time.perf_counter()
                work(turn)
                if turn:
                    speeds[name].append(nbytes / (time.perf_counter() - begun))
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
                for item in page.get("Contents", ()):
                    client.delete_object(Bucket=bucket, Key=item["Key"])
        # Round by round, since the machine's own load changes in between.
        for name in ("obstore", "boto"):
            ratios = [a / b for a, b in zip(speeds["ours"], speeds[name], strict=True)]
            value, baseline = statistics.median(speeds["ours"]), statistics.median(speeds[name])
            what = f"put by {name}"
            figure = f"into S3, {count} file{'s' if count > 1 else ''}, against a {what}"
            line = _line(figure, value, baseline, what, GOAL_S3, speeds["ours"])
            line["ratio"] = round(statistics.median(ratios), 3)
            line["holds"] = line["ratio"] >= GOAL_S3
            del line["of_nominal_rate"]
            yield line
