"""An ensemble at one site, observations at another, the notebook at a third, links of 50 Mbit/s.

    python benchmarks/wan.py [--quick] [--json] [--rounds N] [--only plan|transfers]

Needs root and the test bed (``make bed``). The question: the mean over 18 members (and 33 hours) of a
2.8 GiB NetCDF ensemble minus 4.8 MiB of observations, as a field in the notebook's memory.

- **ours**: `session.plan` and `session.submit` over sites that are reached by SSH, `job.result()` loaded.
- **dask**: one cluster over all three places, as ``dask-ssh`` would make it: scheduler at the notebook,
  a worker at each place, `xarray.open_mfdataset` over files that each site's own web server gives
  (ranges, headers cached; a worker at the site itself does not cross the link for them).
- **fetch**: `scp` of all files at once, then `xarray.open_mfdataset` on the copies.

Bytes are the kernel's counters of both sites' links, whole frames, both ways. All start warm:
processes run and have imported what they need, and our links are measured. Each round of ours has
another operation version and other observations, so that nothing is reused. The baselines are bound by the link and run
once.

Then transfers alone, against what a bare TCP stream carries over the same link in the same run, and
against a bare put of the same bytes to S3: see `wan_transfers.py`.
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
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from wan_sites import (  # noqa: E402
    ENSEMBLE,
    MEMBERS,
    OBSERVATIONS,
    Counters,
    Data,
    Sites,
    end,
    make_data,
    serving,
)

import dataflow as flow  # noqa: E402
from dataflow.testing.bed import Bed  # noqa: E402
from dataflow.testing.bed.commands import BedError  # noqa: E402

#: Bytes per second on the wire, and seconds one way: 50 Mbit/s, 20 ms from the notebook and back.
RATE, LATENCY = 50e6 / 8, 0.010


@dataclass(frozen=True)
class Measured:
    """One run of one contender."""

    seconds: float
    nbytes: int


def measured(
    counters: Counters, work: Callable[[], Any], data: Data, name: str, turn: int = 0
) -> Measured:
    counters.again()
    begun = time.perf_counter()
    found = np.asarray(work())
    seconds = time.perf_counter() - begun
    by_site = counters.nbytes()
    np.testing.assert_allclose(found, data.answer(turn), atol=2e-3, err_msg=name)
    print(
        f"{name:6} {seconds:8.2f} s  "
        + "  ".join(f"{site} {nbytes / 1e6:9.2f} MB" for site, nbytes in by_site.items()),
        file=sys.stderr,
    )
    return Measured(seconds, sum(by_site.values()))


# --- ours ----------------------------------------------------------------------------------------


def ours(bed: Bed, data: Data, rounds: int, folder: Path) -> list[Measured]:
    """The plan of `session.plan`, run and read."""
    counters, found = Counters(bed), []
    sites = Sites(bed, folder)
    try:
        with flow.connect(sites.file, state=folder / "state") as session:
            sites.ready(session)
            members = []
            for number, path in enumerate(data.ensemble):
                session.register(path, name=f"member{number}", site=ENSEMBLE, variable="t")
                members.append(session[f"member{number}"])
            for number, path in enumerate(data.observed):
                session.register(path, name=f"observed{number}", site=OBSERVATIONS, variable="t")
            for number in range(rounds + 1):  # the first finds workers that have imported nothing

                @flow.operation(kind="linear", version=str(number), output=data.field_nbytes)
                def mean_of_hours(member: Any) -> Any:
                    return member.mean("time")

                def run() -> Any:
                    parts = [mean_of_hours(member) for member in members]
                    mean = sum(parts[1:], parts[0]) / MEMBERS
                    job = session.submit(session.plan(mean - session[f"observed{number}"]))  # noqa: B023
                    return job.result(600).load()

                one = measured(counters, run, data, "ours" if number else "(warm)", number)
                if number:
                    found.append(one)
    finally:
        sites.end()
    return found


# --- one Dask cluster over three places ----------------------------------------------------------


@contextlib.contextmanager
def dask_cluster(bed: Bed) -> Iterator[Any]:
    """Scheduler and a worker at the notebook, a worker at each site, all ports open to all."""
    from distributed import Client

    program = "from distributed.cli.dask_{0} import main; main()"
    quiet = {**os.environ, "DASK_LOGGING__DISTRIBUTED": "error"}
    address = f"tcp://{bed.notebook}:8786"
    worker = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "2GB"]
    with contextlib.ExitStack() as stack:

        def started(process: subprocess.Popen[Any]) -> None:
            stack.callback(end, process)

        here = [sys.executable, "-c"]
        scheduler = ["--host", bed.notebook, "--port", "8786", "--no-dashboard"]
        nothing = subprocess.DEVNULL
        started(
            subprocess.Popen(
                [*here, program.format("scheduler"), *scheduler], env=quiet, stderr=nothing
            )
        )
        at_notebook = [address, "--host", bed.notebook, *worker]
        started(
            subprocess.Popen(
                [*here, program.format("worker"), *at_notebook], env=quiet, stderr=nothing
            )
        )
        for site in (ENSEMBLE, OBSERVATIONS):
            words = [address, "--host", bed.address(site), "--local-directory", "/tmp", *worker]
            started(bed.host(site).start([str(bed.python), "-c", program.format("worker"), *words]))
        client = stack.enter_context(Client(address, set_as_default=True, timeout=60))
        client.wait_for_workers(3, timeout=60)
        client.run(_warm)
        yield client


def _warm() -> None:
    import aiohttp  # noqa: F401
    import dask.array  # noqa: F401
    import fsspec.implementations.http  # noqa: F401
    import h5netcdf  # noqa: F401
    import xarray  # noqa: F401


def by_dask(bed: Bed, data: Data) -> Measured:
    import fsspec
    import xarray as xr

    def at(base: str, path: str) -> Any:
        # Headers are read once and whole pieces of data as they are asked for: nothing is read twice.
        url = f"{base}/{Path(path).name}"
        return fsspec.open(url, cache_type="first", block_size=2**16).open()

    def run() -> Any:
        ensemble = xr.open_mfdataset(
            [at(bases[ENSEMBLE], path) for path in data.ensemble],
            engine="h5netcdf",
            combine="nested",
            concat_dim="member",
            chunks={"time": 3},
        )
        seen = xr.open_dataset(
            at(bases[OBSERVATIONS], data.observed[0]), engine="h5netcdf", chunks={}
        )
        return (ensemble["t"].mean(("member", "time")) - seen["t"]).compute()

    with contextlib.ExitStack() as stack:
        bases = {
            site: stack.enter_context(serving(bed, site, str(Path(path).parent)))
            for site, path in ((ENSEMBLE, data.ensemble[0]), (OBSERVATIONS, data.observed[0]))
        }
        stack.enter_context(dask_cluster(bed))
        return measured(Counters(bed), run, data, "dask")


# --- fetch everything ----------------------------------------------------------------------------


def by_fetching(bed: Bed, data: Data, folder: Path) -> Measured:
    import xarray as xr

    def run() -> Any:
        copies = [
            subprocess.Popen(
                [
                    "scp",
                    "-q",
                    "-F",
                    str(bed.ssh_config),
                    *(f"{site}:{path}" for path in paths),
                    ".",
                ],
                cwd=folder,
                stdin=subprocess.DEVNULL,
            )
            for site, paths in ((ENSEMBLE, data.ensemble), (OBSERVATIONS, [data.observed[0]]))
        ]
        assert not any(copy.wait() for copy in copies)
        names = [folder / Path(path).name for path in data.ensemble]
        with (
            xr.open_mfdataset(
                names, engine="h5netcdf", combine="nested", concat_dim="member", chunks={"time": 3}
            ) as ensemble,
            xr.open_dataset(folder / Path(data.observed[0]).name, engine="h5netcdf") as seen,
        ):
            mean = ensemble["t"].mean(("member", "time"))
            return (mean - seen["t"]).compute(scheduler="threads")

    return measured(Counters(bed), run, data, "fetch")


# --- the comparison ------------------------------------------------------------------------------


def of_plan(bed: Bed, quick: bool, rounds: int) -> Iterator[dict[str, Any]]:
    data = make_data(bed, *((256, 307) if quick else (1024, 1228)))
    for site in (ENSEMBLE, OBSERVATIONS):
        bed.link(site).shape(rate=RATE, latency=LATENCY)
    with tempfile.TemporaryDirectory(prefix="wan-") as name:
        folder = Path(name)
        mine = ours(bed, data, rounds, folder)
        theirs = {"one Dask cluster": by_dask(bed, data)}
        (folder / "fetched").mkdir()
        theirs["fetching everything"] = by_fetching(bed, data, folder / "fetched")
    seconds = statistics.median(one.seconds for one in mine)
    nbytes = statistics.median(one.nbytes for one in mine)
    about = {"ensemble": data.nbytes, "observations": data.field_nbytes, "rounds": rounds}
    for against, one in theirs.items():
        for unit, value, baseline in (
            ("s", seconds, one.seconds),
            ("bytes", nbytes, one.nbytes),
        ):
            yield {
                "figure": f"ensemble mean minus observations, against {against}",
                "value": round(value, 2),
                "unit": unit,
                "baseline": round(baseline, 2),
                "ratio": round(baseline / value, 2),
                "goal": "> 1" if quick else ">= 10",
                "holds": baseline / value >= (1 if quick else 10),
                **about,
            }


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="an ensemble of 187 MB")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument(
        "--rounds", type=int, default=3, choices=range(1, 8), help="rounds of ours and of transfers"
    )
    parser.add_argument("--only", choices=["plan", "transfers"])
    arguments = parser.parse_args()
    try:
        bed = Bed.of_this_python()
    except BedError as error:
        print(f"cannot run: {error}", file=sys.stderr)
        return 2
    from wan_transfers import of_transfers

    bed.restore()
    held = True
    parts = {
        "plan": lambda: of_plan(bed, arguments.quick, arguments.rounds),
        "transfers": lambda: of_transfers(bed, arguments.quick, arguments.rounds),
    }
    try:
        for name, part in parts.items():
            if arguments.only not in (None, name):
                continue
            for line in part():
                held = held and line["holds"] is not False
                if arguments.json:
                    print(json.dumps(line), flush=True)
                else:
                    verdict = {True: "holds", False: "FAILS", None: ""}[line["holds"]]
                    print(
                        f"{line['figure']:64} {line['value']:>14} {line['unit']:6} baseline "
                        f"{line['baseline']:>14}  ratio {line['ratio']:>7}  {line['goal']:8} {verdict}",
                        flush=True,
                    )
    finally:
        bed.restore()
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
