"""Results against raw puts: ``write_result`` to radosgw beside obstore alone, in the same run.

    python benchmarks/results_throughput.py [--quick] [--json]

The array lies in the memory of Dask workers, the raw bytes in that of processes beside them; both
are put to the same radosgw on this machine, unsigned, in objects of the same size and number, with
the same number of bytes in flight. The raw put is the best of three ways to do it (threads, event
loop, several processes), each measured as often as ours, in shuffled turns. Speeds are medians; the
ratio is the median over the rounds, against the way that looks best then. Our time runs from the
call to the committed result: scheduling, checksums, the proof by listing and the commit included.
With a compression the baseline puts bytes that somebody has compressed beforehand, so that figure
says what compressing costs; "in_memory_MB/s" says what it brings. Only figures without compression
decide the exit code.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from dataflow.storage.arrays import PUTS_IN_FLIGHT
from dataflow.storage.open import object_store
from dataflow.storage.results import write_result
from tests.servers import S3Server, radosgw, why_no_radosgw

GOAL = 0.9


@dataclass(frozen=True)
class Place:
    """Where a round writes."""

    root: str
    server: S3Server

    @property
    def store(self) -> Any:
        return object_store(
            self.root, credentials=self.server.credentials, options=self.server.options
        )


def smooth(block_info: Any = None) -> np.ndarray:
    """One block of a smooth field of full doubles, 64 MiB: what simulations write."""
    shape = block_info[None]["chunk-shape"]
    row = np.arange(shape[0])[:, None] + block_info[None]["array-location"][0][0]
    column = np.arange(shape[1])[None, :]
    return np.sin(row * 0.03) * np.cos(column * 0.002) + 1e-6 * row * column


def raw_threads(place: Place, bodies: list[bytes], in_flight: int) -> float:
    """Seconds to put all bodies from threads of this process."""
    store, name = place.store, uuid.uuid4().hex
    with ThreadPoolExecutor(in_flight) as pool:
        started = time.perf_counter()
        futures = [
            pool.submit(store.put, f"raw/{name}/{number}", body, use_multipart=False)
            for number, body in enumerate(bodies)
        ]
        for future in futures:
            future.result()
        return time.perf_counter() - started


def clear(place: Place) -> None:
    """Delete everything that was written."""
    for batch in place.store.list():
        place.store.delete([meta["path"] for meta in batch])


def raw_loop(place: Place, bodies: list[bytes], in_flight: int) -> float:
    """Seconds to put all bodies from an event loop of this process."""
    store, name = place.store, uuid.uuid4().hex

    async def put_all() -> float:
        free = asyncio.Semaphore(in_flight)

        async def put(number: int, body: bytes) -> None:
            async with free:
                await store.put_async(f"raw/{name}/{number}", body, use_multipart=False)

        started = time.perf_counter()
        await asyncio.gather(*(put(number, body) for number, body in enumerate(bodies)))
        return time.perf_counter() - started

    return asyncio.run(put_all())


_shared: dict[str, Any] = {}


def _prepare(count: int, lengths: list[int]) -> None:
    _shared["bodies"] = [np.random.default_rng(n).bytes(length) for n, length in enumerate(lengths)]


def _put_share(place: Place, share: int, shares: int, in_flight: int, start_at: float) -> float:
    time.sleep(max(0.0, start_at - time.time()))
    raw_threads_keep(place, _shared["bodies"][share::shares], in_flight)
    return time.time()


def raw_threads_keep(place: Place, bodies: list[bytes], in_flight: int) -> None:
    store, name = place.store, uuid.uuid4().hex
    with ThreadPoolExecutor(in_flight) as pool:
        list(
            pool.map(
                lambda pair: store.put(f"raw/{name}/{pair[0]}", pair[1], use_multipart=False),
                enumerate(bodies),
            )
        )


@contextmanager
def raw_processes(
    place: Place, lengths: list[int], processes: int
) -> Iterator[Callable[[int], float]]:
    """A function that puts all bodies from several processes at a time."""
    with ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_prepare,
        initargs=(processes, lengths),
    ) as pool:

        def run(in_flight: int) -> float:
            start_at = time.time() + 0.2
            ends = [
                pool.submit(_put_share, place, share, processes, in_flight // processes, start_at)
                for share in range(processes)
            ]
            return max(end.result() for end in ends) - start_at

        yield run


def compare(
    server: S3Server, *, workers: int, threads: int, compression: str, nbytes: int, rounds: int
) -> dict[str, Any]:
    """One figure: ours and the baselines, in turns."""
    import dask.array as da
    from distributed import Client, LocalCluster, wait

    place = Place(server.bucket(f"bench-{uuid.uuid4().hex[:12]}"), server)
    rows = nbytes // (8 * 2**17)  # of 1 MiB each
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=threads,
            processes=True,
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
        ) as cluster,
        Client(cluster) as client,
    ):
        chunks = ((64,) * (rows // 64), (2**17,))
        array = da.map_blocks(smooth, chunks=chunks, dtype="f8").persist()
        wait(array)

        def run_tasks(*tasks: Any) -> list[Any]:
            return client.gather(client.compute(list(tasks)))

        def ours() -> tuple[float, list[int]]:
            key = uuid.uuid4().hex
            started = time.perf_counter()
            manifest = write_result(
                array,
                root=place.root,
                key=key,
                attempt="bench",
                provenance={},
                credentials=server.credentials,
                options=server.options,
                compression=compression,  # type: ignore[arg-type]
                compute=run_tasks,
            )
            seconds = time.perf_counter() - started
            sizes = [file.size for file in manifest.files if "/c/" in file.path]
            return seconds, sizes

        _, sizes = ours()
        bodies = [np.random.default_rng(n).bytes(size) for n, size in enumerate(sizes)]
        in_flight = PUTS_IN_FLIGHT * workers
        found: dict[str, list[float]] = {"ours": [], "threads": [], "loop": [], "processes": []}
        with raw_processes(place, sizes, max(workers, 2)) as processes:
            ways: list[tuple[str, Callable[[], float]]] = [
                ("ours", lambda: ours()[0]),
                ("threads", lambda: raw_threads(place, bodies, in_flight)),
                ("loop", lambda: raw_loop(place, bodies, in_flight)),
                ("processes", lambda: processes(in_flight)),
            ]
            for turn in range(-1, rounds):
                random.Random(turn).shuffle(ways)
                for name, way in ways:
                    seconds = way()
                    if turn >= 0:  # the first round opens connections
                        found[name].append(seconds)
                # Only between rounds, and the server gets time to free what was deleted: nobody
                # is measured while another's bytes are cleared away.
                clear(place)
                time.sleep(8)
    stored = sum(sizes)
    speed = {name: stored / statistics.median(seconds) / 1e6 for name, seconds in found.items()}
    # Per round, because the machine's load drifts: neighbours in time are compared, then the median.
    ratios = {
        name: statistics.median(b / a for a, b in zip(found["ours"], found[name], strict=True))
        for name in ("threads", "loop", "processes")
    }
    best = min(ratios, key=lambda name: ratios[name])
    ratio = ratios[best]
    return {
        "figure": f"write_result, {compression}, {workers} worker(s) x {threads} threads",
        "value": round(speed["ours"], 1),
        "unit": "MB/s stored",
        "baseline": round(speed[best], 1),
        "ratio": round(ratio, 3),
        "goal": GOAL,
        "holds": ratio >= GOAL,
        "baseline_way": best,
        "others": {name: round(value, 1) for name, value in speed.items() if name != "ours"},
        "ratios": {name: round(value, 3) for name, value in ratios.items()},
        "in_memory_MB/s": round(nbytes / statistics.median(found["ours"]) / 1e6, 1),
        "stored_bytes": stored,
        "objects": len(sizes),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a third of the data, three rounds")
    parser.add_argument("--json", action="store_true", help="JSON lines only")
    parser.add_argument("--compression", nargs="+", default=["none", "lz4", "zstd"])
    chosen = parser.parse_args()
    reason = why_no_radosgw()
    if reason:
        print(f"cannot run: {reason}", file=sys.stderr)
        return 2
    nbytes, rounds = (2**28, 3) if chosen.quick else (3 * 2**28, 9)
    holds = True
    with radosgw(16 * 2**30) as server:
        for compression in chosen.compression:
            for workers, threads in ((1, 4), (2, 2)):
                figure = compare(
                    server,
                    workers=workers,
                    threads=threads,
                    compression=compression,
                    nbytes=nbytes,
                    rounds=rounds,
                )
                holds &= figure["holds"] or compression != "none"
                print(json.dumps(figure), flush=True)
                if not chosen.json:
                    print(f"  {figure['value']} of {figure['baseline']} MB/s", file=sys.stderr)
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
