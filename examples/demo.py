"""The main job in one go: three sites on this machine, one mixed graph over real simulations.

    python examples/demo.py [--out demo-out] [--megabits 20]

Three site agents are started as processes of their own, each with its own folder, Dask worker and
token, behind a proxy that limits the rate and counts bytes. Two of them own a simulation of
adenylate kinase. The graph asks how alike the two paths are and which residues move most. Printed
are the plan with its price, the ledger beside the prediction, the counters of the proxies, and the
answer, which is checked against MDAnalysis; the picture goes to ``demo-out``.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import adk
from three_sites import three_sites

import dataflow as flow
from dataflow._quantities import format_bytes, format_seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="for the picture")
    parser.add_argument("--megabits", type=float, default=20, help="speed of the links, Mbit/s")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="dataflow-demo-") as folder:
        federation = three_sites(folder, megabits=arguments.megabits)
        try:
            with flow.connect(federation.sites_file, state=Path(folder, "notebook")) as session:
                picture = run(session, federation, arguments.out)
        finally:
            federation.stop()
    print(f"\nThe picture is in {picture}; all took {time.perf_counter() - begun:.1f} s.")
    return 0


def run(session: Any, federation: Any, out: Path) -> Path:
    for site, name, file in (
        ("amsterdam", "run1", "run1.h5"),
        ("amsterdam", "residues", "residues.csv"),
        ("delft", "run2", "run2.zarr"),
    ):
        url = (federation.data(site) / file).as_uri()
        session.register(url, name=name, site=site, tags={"system": "adk"})
    say("Three sites; what there is, anywhere", session.datasets(tags={"system": "adk"}))

    run1, run2, residues = session["run1"], session["run2"], session["residues"]
    structure = adk.frame(run1, number=0)
    distances = adk.pairwise_rmsd(run1, run2)
    moves = adk.fluctuation(adk.superpose(run1, structure), adk.superpose(run2, structure))
    walkers = adk.most_flexible(moves, residues, number=8)
    leash = adk.frechet(distances)
    plan = session.plan([distances, leash, moves, walkers])
    say("The plan, before anything runs", plan.table())

    before = federation.crossed()
    begun = time.perf_counter()
    job = session.submit(plan, tags={"demo": "adk"})
    print(f"\nsubmitted in {(time.perf_counter() - begun) * 1e3:.0f} ms: job {job.id}")
    status = job.wait(120)
    seconds = time.perf_counter() - begun
    say("What crossed the links, by the job's ledger", job.ledger())
    print(
        f"{status} after {format_seconds(round(seconds, 3))}, predicted "
        f"{format_seconds(round(plan.seconds, 3))}"
    )
    after = federation.crossed()
    rows = [
        f"  {site:10} {format_bytes((after[site] - before[site]).outward):>9} left, "
        f"{format_bytes((after[site] - before[site]).inward):>9} came"
        for site in after
    ]
    say("The same by the proxies, every header and heartbeat counted", "\n".join(rows))

    distances, leash, moves, walkers = job.result()
    matrix, rmsf = np.asarray(distances), np.asarray(moves)
    say("The residues that move most", walkers.to_string(index=False))
    print(f"\nthe two paths, walked side by side, are never more than {float(leash):.2f} Å apart")
    reference = adk.reference()
    np.testing.assert_allclose(matrix, reference["pairwise_rmsd"], atol=1e-10)
    np.testing.assert_allclose(rmsf, reference["fluctuation"], atol=2e-5)  # MDAnalysis: float32
    print("equal to MDAnalysis on gathered data")
    return draw(matrix, rmsf, out)


def say(title: str, what: object) -> None:
    print(f"\n{title}\n{'-' * len(title)}\n{what}")


def draw(matrix: np.ndarray, rmsf: np.ndarray, out: Path) -> Path:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), width_ratios=[1, 1.3])
    image = left.imshow(matrix, origin="lower", cmap="viridis")
    left.plot(matrix.argmin(axis=1), range(len(matrix)), color="white", linewidth=1)
    left.set_xlabel("frame of run 2 (delft)")
    left.set_ylabel("frame of run 1 (amsterdam)")
    left.set_title("distance of every pair; white: the nearest")
    fig.colorbar(image, ax=left, label="Å", shrink=0.85)
    table = adk.residues()
    right.plot(table["residue"], rmsf, color="black", linewidth=1.2)
    for domain, colour in (("LID", "tab:orange"), ("NMP", "tab:blue")):
        numbers = table.loc[table["domain"] == domain, "residue"]
        right.axvspan(numbers.min(), numbers.max(), color=colour, alpha=0.25, label=domain)
    right.set_xlabel("residue")
    right.set_ylabel("fluctuation (Å)")
    right.set_xlim(1, 214)
    right.legend()
    fig.tight_layout()
    out.mkdir(parents=True, exist_ok=True)
    picture = out / "adk.png"
    fig.savefig(picture, dpi=120)
    return picture.resolve()


if __name__ == "__main__":
    sys.exit(main())
