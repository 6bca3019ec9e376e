"""What the benchmark of wide-area links puts on hosts of the test bed: data, site files, programs."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dataflow.testing.bed import Bed

#: Where the forecasts are, where the observations are. The notebook is this machine's own namespace.
ENSEMBLE, OBSERVATIONS = "hpc", "third"
MEMBERS, TIMES = 18, 33
#: So many files of observations, each 1 K warmer than the last: a copy of one is of no use for another.
TURNS = 8

#: Written once a size; every value follows from the seed, so that the answer is known without reading.
_WRITE = """
import json, sys
from pathlib import Path
import h5netcdf, numpy as np
what, folder = sys.argv[1], Path(sys.argv[2])
lat, lon, members, times, turns = map(int, sys.argv[3:])
done = folder / "done"
if not done.exists():
    folder.mkdir(parents=True, exist_ok=True)
    def write(path, dims, values):
        with h5netcdf.File(path, "w") as file:
            file.dimensions = dims
            variable = file.create_variable("t", tuple(dims), "f4")
            for number, value in enumerate(values):
                if len(dims) == 3:
                    variable[number] = value
                else:
                    variable[...] = value
    rng = np.random.default_rng(11)
    ground = rng.random((lat, lon), dtype="f4") * 30 + 260
    if what == "observations":
        seen = ground + np.random.default_rng(12).random((lat, lon), dtype="f4")
        for turn in range(turns):
            write(folder / f"observed{turn}.nc", {"lat": lat, "lon": lon}, [seen + np.float32(turn)])
    else:
        for member in range(members):
            values = (ground + np.float32(member / 8 + hour / 16) for hour in range(times))
            write(folder / f"member{member:02}.nc", {"time": times, "lat": lat, "lon": lon}, values)
    done.touch()
print(json.dumps({path.name: path.stat().st_size for path in folder.glob("*.nc")}))
"""

#: A site's files by HTTP with ranges, as any web server would give them.
_SERVE = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
app = Starlette(routes=[Mount("/", StaticFiles(directory=sys.argv[2]))])
uvicorn.run(app, host=sys.argv[1], port=8123, log_level="error", lifespan="off")
"""


@dataclass(frozen=True)
class Data:
    """The files of both sites, as paths on their hosts."""

    ensemble: tuple[str, ...]
    observed: tuple[str, ...]
    nbytes: int
    field_nbytes: int
    with_first: np.ndarray[Any, Any]

    def answer(self, turn: int = 0) -> np.ndarray[Any, Any]:
        return self.with_first - turn


def make_data(bed: Bed, lat: int, lon: int) -> Data:
    """The ensemble and the observations, unless they are there."""
    found = {}
    for site, what in ((ENSEMBLE, "ensemble"), (OBSERVATIONS, "observations")):
        folder = f"/home/{bed.user}/wan-{what}-{lat}x{lon}x{TURNS}"
        numbers = [str(number) for number in (lat, lon, MEMBERS, TIMES, TURNS)]
        said = bed.host(site).run(
            [str(bed.python), "-c", _WRITE, what, folder, *numbers], timeout=600
        )
        files = json.loads(said.stdout)
        found[what] = {f"{folder}/{name}": nbytes for name, nbytes in sorted(files.items())}
    ground = np.random.default_rng(11).random((lat, lon), dtype="f4") * 30 + 260
    seen = ground + np.random.default_rng(12).random((lat, lon), dtype="f4")
    rise = (MEMBERS - 1) / 2 / 8 + (TIMES - 1) / 2 / 16
    return Data(
        ensemble=tuple(found["ensemble"]),
        observed=tuple(found["observations"]),
        nbytes=sum(found["ensemble"].values()),
        field_nbytes=4 * lat * lon,
        with_first=ground.astype("f8") + rise - seen,
    )


class Counters:
    """Bytes of whole frames that came out of each site's link since the last look, by the kernel."""

    def __init__(self, bed: Bed) -> None:
        self._bed = bed
        self.again()

    def again(self) -> None:
        self._before = self._now()

    def nbytes(self) -> dict[str, int]:
        """Both ways together, by site."""
        return {site: nbytes - self._before[site] for site, nbytes in self._now().items()}

    def _now(self) -> dict[str, int]:
        found = {site: self._bed.link(site).bytes for site in (ENSEMBLE, OBSERVATIONS)}
        return {site: crossed.to + crossed.from_ for site, crossed in found.items()}


class Sites:
    """Sites that a notebook with a site of its own reaches by SSH."""

    def __init__(
        self, bed: Bed, folder: Path, more: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        self.bed, self.names = bed, tuple(more or {ENSEMBLE: {}, OBSERVATIONS: {}})
        self.home = f"wan-{uuid.uuid4().hex[:8]}"
        sites = []
        for name in self.names:
            document: dict[str, Any] = {
                "site": {"name": name, "workers": 1, "memory": "2 GB"},
                "state": "./state",
                "stores": [
                    {"name": "data", "url": f"/home/{bed.user}", "purpose": "data"},
                    {"name": "results", "url": "./results"},
                ],
            }
            document |= (more or {}).get(name, {})
            host = bed.host(name)
            host.run(f"mkdir -p {self.home}")
            host.run(f"cat > {self.home}/site.yaml", stdin=yaml.safe_dump(document))
            ssh = {
                "python": str(bed.python),
                "config": str(bed.ssh_config),
                "site_file": f"{self.home}/site.yaml",
            }
            sites.append({"name": name, "address": f"ssh://{name}", "ssh": ssh})
        own = {
            "site": {"name": "notebook", "workers": 1, "memory": "2 GB"},
            "stores": [{"name": "results", "url": str(folder / "results")}],
        }
        self.file = folder / "sites.yaml"
        self.file.write_text(yaml.safe_dump({**own, "sites": sites}))

    def ready(self, session: Any) -> None:
        """Wait until all are there and all roads are measured: that is before a user's first job."""

        def known() -> bool:
            topology = session.topology()
            measured = {
                (link.source, link.target) for link in topology.links if link.origin == "measured"
            }
            return not topology.away and {(name, "notebook") for name in self.names} <= measured

        until(known, 600)  # nobody measures roads while the machine is busy with something else

    def end(self) -> None:
        for name in self.names:
            with contextlib.suppress(Exception):
                said = self.bed.host(name).run(f"cat {self.home}/state/agent.json").stdout
                self.bed.host(name).end(int(json.loads(said)["pid"]), signal.SIGTERM)


@contextlib.contextmanager
def serving(bed: Bed, site: str, folder: str) -> Iterator[str]:
    """A folder of a site by HTTP; its address."""
    address = bed.address(site)
    process = bed.host(site).start([str(bed.python), "-c", _SERVE, address, folder])
    try:
        _until_port(address, 8123)
        yield f"http://{address}:8123"
    finally:
        end(process)


def end(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.wait(20)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def until(holds: Callable[[], object], seconds: float = 120) -> None:
    limit = time.perf_counter() + seconds
    while not holds():
        if time.perf_counter() > limit:
            raise TimeoutError("it did not come about")
        time.sleep(0.05)


def _until_port(address: str, port: int) -> None:
    import socket

    def answers() -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection((address, port), 1).close()
            return True
        return False

    until(answers)
