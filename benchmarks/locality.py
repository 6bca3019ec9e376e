"""Two datasets at two sites: our plan beside fetching everything, and beside one Dask cluster.

    python benchmarks/locality.py [--quick] [--json] [--megabits 20] [--megabytes 100]

The question is the one of the example notebooks: how much does each residue of adenylate kinase
move, over all frames of two long runs (RMSF, a reduction)? One run lies at site one as HDF5, the
other at site two as Zarr. Whatever enters or leaves a site does so through a proxy that limits
the rate and counts the bytes (`dataflow.testing.wire`); the same proxies' counters give the bytes
of all contenders.

- **ours**: submit → result in hand, planning included, on two site agents.
- **fetch**: both files are downloaded at once by plain HTTP, then NumPy does the work.
- **dask**: one scheduler (at site one), a worker at each site. Each task reads the file from the
  local disk if it runs where the file is, else over the link; the scheduler knows nothing of
  sites. Chunks and threads as in our plan, and the tree reduction by dask.array itself.
- **dask pinned**: the same with each read tied to the right worker by hand: what an expert who
  knows where everything lies can make of Dask. No goal is set against it; it is shown because it
  bounds what is to be had.

All start warm (processes up, libraries imported, links probed) and each run has fresh data.
Medians of the rounds; every contender's answer is compared with NumPy's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

import adk  # noqa: E402

from dataflow.testing.federation import Federation, SiteSettings  # noqa: E402
from dataflow.testing.ports import free_port  # noqa: E402
from dataflow.testing.wire import Wire  # noqa: E402

FRAMES_PER_CHUNK = 256
CHUNKS_PER_TASK = 8


@dataclass(frozen=True)
class Measured:
    """One run of one contender."""

    seconds: float
    nbytes: int
    rmsf: np.ndarray


@dataclass(frozen=True)
class Data:
    """The two files of one round."""

    one: Path
    two: Path

    def rmsf(self) -> np.ndarray:
        """The answer, by NumPy, in double precision."""
        return _rmsf([_read_h5(self.one), _read_zarr(self.two)])


def make_data(one: Path, two: Path, number: int, nbytes: int) -> Data:
    return Data(
        adk.synthetic(
            one / f"long{number}.h5",
            nbytes=nbytes,
            seed=2 * number,
            frames_per_chunk=FRAMES_PER_CHUNK,
        ),
        adk.synthetic(
            two / f"long{number}.zarr",
            nbytes=nbytes,
            seed=2 * number + 1,
            frames_per_chunk=FRAMES_PER_CHUNK,
        ),
    )


def _read_h5(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        return np.asarray(file["positions"])


def _read_zarr(path: Path) -> np.ndarray:
    import zarr

    return np.asarray(zarr.open_group(path, mode="r")["positions"])


def _rmsf(runs: list[np.ndarray]) -> np.ndarray:
    frames = sum(len(run) for run in runs)
    mean = sum(run.sum(axis=0, dtype="float64") for run in runs) / frames
    spread = sum(((run - mean) ** 2).sum(axis=0) for run in runs)
    return np.sqrt(np.asarray(spread).sum(axis=-1) / frames)


# --- fetch everything --------------------------------------------------------------------------


@contextlib.contextmanager
def file_server(folder: Path) -> Iterator[int]:
    """A site's files by plain HTTP with ranges, as any web server would give them."""
    import asyncio

    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import Mount
    from starlette.staticfiles import StaticFiles

    app = Starlette(routes=[Mount("/", StaticFiles(directory=folder))])
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)


def fetch(data: Data, wires: list[Wire], folder: Path) -> Measured:
    """Download both at once, every file over one of four connections per site, and compute."""
    before = _crossed(wires)
    begun = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        one = pool.submit(_download, wires[0], data.one, [data.one.name], folder)
        names = [
            str(path.relative_to(data.two.parent)) for path in data.two.rglob("*") if path.is_file()
        ]
        many = [pool.submit(_download, wires[1], data.two, names[i::4], folder) for i in range(4)]
        for future in (one, *many):
            future.result()
    rmsf = _rmsf([_read_h5(folder / data.one.name), _read_zarr(folder / data.two.name)])
    return Measured(time.perf_counter() - begun, _crossed(wires) - before, rmsf)


def _download(wire: Wire, source: Path, names: list[str], folder: Path) -> None:
    import http.client
    from urllib.parse import quote

    connection = http.client.HTTPConnection("127.0.0.1", wire.port)
    for name in names:
        connection.request("GET", "/" + quote(name))
        response = connection.getresponse()
        assert response.status == 200, (name, response.status)
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            while piece := response.read(1 << 18):
                file.write(piece)
    connection.close()


def _crossed(wires: list[Wire]) -> int:
    return sum(wire.bytes_in + wire.bytes_out for wire in wires)


# --- one Dask cluster over both sites ------------------------------------------------------------


class DaskCluster:
    """Scheduler and worker at site one, a worker at site two, the client elsewhere.

    Whoever talks to another place does so over that place's wire: what enters or leaves a site
    shares one link, as it does for the agents.
    """

    def __init__(self, folders: tuple[Path, Path], rate: float | None, logs: Path) -> None:
        from distributed import Client

        self.stack = contextlib.ExitStack()
        try:
            ports = [free_port() for _ in range(3)]
            self.wires = [self.stack.enter_context(Wire(port)) for port in ports]
            scheduler, one, two = self.wires
            self._start(logs, "scheduler", ["scheduler", "--port", str(ports[0])])
            _wait_port(ports[0])
            for name, wire, port, to in (
                ("one", one, ports[1], f"127.0.0.1:{ports[0]}"),
                ("two", two, ports[2], scheduler.address),
            ):
                self._start(
                    logs,
                    name,
                    [
                        *("worker", f"tcp://{to}", "--name", name),
                        *("--listen-address", f"tcp://127.0.0.1:{port}"),
                        *("--contact-address", f"tcp://{wire.address}"),
                        *("--nthreads", "1", "--no-nanny", "--memory-limit", "1GB"),
                    ],
                )
            files = [self.stack.enter_context(file_server(folder)) for folder in folders]
            self.files = [self.stack.enter_context(Wire(port)) for port in files]
            self.client = self.stack.enter_context(
                Client(f"tcp://{scheduler.address}", set_as_default=False, timeout=30)
            )
            self.client.wait_for_workers(2, timeout=30)
            self.client.run(_warm)
            for wire in (*self.wires, *self.files):
                wire.rate = rate
        except BaseException:
            self.stack.close()
            raise

    def _start(self, logs: Path, name: str, command: list[str]) -> None:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parent),
        }
        program = f"from distributed.cli.dask_{command[0]} import main; main()"
        log = self.stack.enter_context((logs / f"dask-{name}.log").open("wb"))
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", program, *command[1:]),
                *("--no-dashboard", *(() if name != "scheduler" else ("--host", "127.0.0.1"))),
            ],
            cwd=logs,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)

    @property
    def all_wires(self) -> list[Wire]:
        return [*self.wires, *self.files]

    def rmsf(self, data: Data) -> Measured:
        """As anybody would write it: a dask.array over both files."""
        import dask.array as da
        from dask import delayed

        def blocks() -> Iterator[Any]:
            for path, url, home, first, last in self._blocks(data):
                block = delayed(read_block)(path, url, home, first, last)
                shape = (last - first, *_shape(Path(path))[1:])
                yield da.from_delayed(block, shape=shape, dtype="float32")

        def compute() -> np.ndarray:
            # var makes count, mean and spread of each block in one pass, merged in a tree.
            spread = da.concatenate(list(blocks())).astype("float64").var(axis=0).sum(axis=-1)
            return np.sqrt(self.client.compute(spread, sync=True))

        return self._measured(compute)

    def rmsf_pinned(self, data: Data) -> Measured:
        """As an expert would who knows where each file is: partial results tied to workers."""

        def compute() -> np.ndarray:
            submit = self.client.submit
            at: dict[str, list[Any]] = {"one": [], "two": []}
            for block in self._blocks(data):
                home = block[2]
                at[home].append(submit(block_moments, *block, workers=[home], pure=False))
            merged = [
                submit(merge_moments, parts, workers=[home], pure=False)
                for home, parts in at.items()
            ]
            frames, _, spread = submit(merge_moments, merged, pure=False).result()
            return np.sqrt(spread.sum(axis=-1) / frames)

        return self._measured(compute)

    def _measured(self, compute: Callable[[], np.ndarray]) -> Measured:
        before = _crossed(self.all_wires)
        begun = time.perf_counter()
        rmsf = compute()
        seconds = time.perf_counter() - begun
        return Measured(seconds, _crossed(self.all_wires) - before, rmsf)

    def _blocks(self, data: Data) -> Iterator[tuple[str, str, str, int, int]]:
        step = FRAMES_PER_CHUNK * CHUNKS_PER_TASK
        for path, wire, home in (
            (data.one, self.files[0], "one"),
            (data.two, self.files[1], "two"),
        ):
            frames = _shape(path)[0]
            for first in range(0, frames, step):
                last = min(first + step, frames)
                yield str(path), f"http://{wire.address}/{path.name}", home, first, last

    def close(self) -> None:
        self.stack.close()


def _warm() -> None:
    import fsspec.implementations.http  # noqa: F401
    import h5py  # noqa: F401
    import zarr  # noqa: F401


def _shape(path: Path) -> tuple[int, ...]:
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            return tuple(file["positions"].shape)
    import zarr

    return tuple(zarr.open_group(path, mode="r")["positions"].shape)


def read_block(path: str, url: str, home: str, first: int, last: int) -> Any:
    """Frames of a run: from the disk if this worker is where the file is, else over the link."""
    import fsspec
    import h5py
    import zarr
    from distributed import get_worker

    here = get_worker().name == home
    if path.endswith(".h5"):
        if here:
            with h5py.File(path) as file:
                return file["positions"][first:last]
        options = {"cache_type": "readahead", "block_size": 2**18}
        with fsspec.open(url, **options) as remote, h5py.File(remote) as file:
            return file["positions"][first:last]
    if here:
        return zarr.open_group(path, mode="r")["positions"][first:last]
    store = zarr.storage.FsspecStore.from_url(url, read_only=True)
    return zarr.open_group(store, mode="r")["positions"][first:last]


def block_moments(path: str, url: str, home: str, first: int, last: int) -> Any:
    """Count, mean and spread of a block."""
    block = read_block(path, url, home, first, last).astype("float64")
    mean = block.mean(axis=0)
    return len(block), mean, ((block - mean) ** 2).sum(axis=0)


def merge_moments(parts: list[Any]) -> Any:
    """Those of the union."""
    frames, mean, spread = parts[0]
    for more, other, added in parts[1:]:
        total, shift = frames + more, other - mean
        spread = spread + added + shift**2 * (frames * more / total)
        mean = mean + shift * (more / total)
        frames = total
    return frames, mean, spread


def _wait_port(port: int) -> None:
    import socket

    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"nothing listens on {port}")


# --- ours ----------------------------------------------------------------------------------------


class Ours:
    """Two site agents and a session elsewhere."""

    def __init__(self, folder: Path, rate: float) -> None:
        import dataflow as flow

        self.stack = contextlib.ExitStack()
        try:
            sites = {name: SiteSettings(workers=1, memory="1 GB") for name in ("one", "two")}
            self.federation = self.stack.enter_context(
                Federation(folder, sites, rate=rate, ready_within=60)
            )
            self.session = self.stack.enter_context(
                flow.connect(self.federation.sites_file, state=folder / "notebook")
            )
        except BaseException:
            self.stack.close()
            raise

    @property
    def folders(self) -> tuple[Path, Path]:
        return self.federation.data("one"), self.federation.data("two")

    def register(self, data: Data) -> None:
        for site, path in (("one", data.one), ("two", data.two)):
            self.session.register(path.as_uri(), name=f"{site}-{path.stem}", site=site)

    def rmsf(self, data: Data) -> Measured:
        wires = list(self.federation.wires.values())
        before = _crossed(wires)
        begun = time.perf_counter()
        runs = [
            self.session[f"{site}-{path.stem}"]
            for site, path in (("one", data.one), ("two", data.two))
        ]
        job = self.session.submit(adk.fluctuation(*runs))
        job.wait(600)
        rmsf = np.asarray(job.result())
        seconds = time.perf_counter() - begun
        return Measured(seconds, _crossed(wires) - before, rmsf)

    def close(self) -> None:
        self.stack.close()


# --- the comparison ------------------------------------------------------------------------------

NAMES = ("ours", "fetch", "dask", "dask pinned")


def compare(megabits: float, megabytes: float, rounds: int) -> dict[str, list[Measured]]:
    """Every contender on the same files, round by round; a first round on small files is not kept."""
    rate = megabits * 1e6 / 8
    found: dict[str, list[Measured]] = {name: [] for name in NAMES}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="locality-")))
        ours = Ours(folder / "sites", rate)
        stack.callback(ours.close)
        cluster = DaskCluster(ours.folders, rate, folder)
        stack.callback(cluster.close)
        for number in range(rounds + 1):
            nbytes = int(megabytes * 1e6) if number else 6_000_000
            data = make_data(*ours.folders, number, nbytes)
            ours.register(data)
            contenders: dict[str, Callable[[], Measured]] = {
                "ours": lambda data=data: ours.rmsf(data),
                "fetch": lambda data=data: fetch(
                    data, cluster.files, folder / f"fetched{data.one.stem}"
                ),
                "dask": lambda data=data: cluster.rmsf(data),
                "dask pinned": lambda data=data: cluster.rmsf_pinned(data),
            }
            expected = data.rmsf()
            for name, run in contenders.items():
                measured = run()
                np.testing.assert_allclose(measured.rmsf, expected, rtol=1e-9, err_msg=name)
                if number:
                    found[name].append(measured)
                    print(
                        f"round {number} {name:12} {measured.seconds:8.2f} s "
                        f"{measured.nbytes / 1e6:8.3f} MB",
                        file=sys.stderr,
                    )
    return found


def figures(found: dict[str, list[Measured]]) -> Iterator[dict[str, Any]]:
    """One line per figure and baseline; the ratio is baseline / ours."""
    goals = {"fetch": (2.0, 10.0), "dask": (1.5, 10.0), "dask pinned": (None, None)}
    for quantity, unit, which in (("seconds", "s", 0), ("nbytes", "bytes", 1)):
        ours = statistics.median(getattr(m, quantity) for m in found["ours"])
        for name, goal in goals.items():
            theirs = statistics.median(getattr(m, quantity) for m in found[name])
            ratio = theirs / ours
            wanted = goal[which]
            yield {
                "figure": f"two-dataset RMSF, {quantity}, against {name}",
                "value": round(ours, 3),
                "unit": unit,
                "baseline": round(theirs, 3),
                "ratio": round(ratio, 3),
                "goal": None if wanted is None else f">= {wanted:g}",
                "holds": None if wanted is None else ratio >= wanted,
            }


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="20 MB a site, two rounds")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument("--megabits", type=float, default=20.0, help="rate of each link")
    parser.add_argument("--megabytes", type=float, help="size of each run (default 100)")
    arguments = parser.parse_args()
    megabytes = arguments.megabytes or (20.0 if arguments.quick else 100.0)
    found = compare(arguments.megabits, megabytes, 2 if arguments.quick else 3)
    lines = list(figures(found))
    for line in lines:
        line |= {"megabits": arguments.megabits, "megabytes": megabytes}
        if arguments.json:
            print(json.dumps(line))
        else:
            verdict = {True: "holds", False: "FAILS", None: ""}[line["holds"]]
            print(
                f"{line['figure']:50} {line['value']:12} {line['unit']:6} baseline "
                f"{line['baseline']:12}  ratio {line['ratio']:9}  {line['goal'] or '':8} {verdict}"
            )
    return 0 if all(line["holds"] is not False for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
