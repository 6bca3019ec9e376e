"""Three sites on this machine, for the notebooks; with sites of your own you need none of this."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import adk

from dataflow.testing.federation import Federation


def three_sites(folder: str | Path = "", *, megabits: float = 100) -> Federation:
    """Start three sites: each a process with its own folder, Dask workers and token.

    The first simulation lies at amsterdam as HDF5, with a table of residues; the second at delft
    as Zarr; groningen has computers only. What goes in or out of a site goes through a proxy of
    ``megabits`` per second, which counts (``federation.wires``). They end with this process, or by
    ``federation.stop()``.
    """
    folder = Path(folder or tempfile.mkdtemp(prefix="three-sites-"))
    sites = ["amsterdam", "delft", "groningen"]
    federation = Federation(folder, sites, rate=megabits * 1e6 / 8, ready_within=60)
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(federation.start)
        adk.prepare(federation.data("amsterdam"), federation.data("delft"))  # meanwhile
        starting.result()
    return federation
