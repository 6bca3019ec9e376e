"""Adenylate kinase closes: two simulated paths, and what one asks of them.

Adenylate kinase (AdK) is an enzyme of 214 residues whose lid closes over its substrate. The
package MDAnalysisTests carries two simulated transitions from the open form (PDB 4AKE) towards
the closed one (1AKE). Here they play the part of data that two institutes own: :func:`prepare`
writes the first run as HDF5 for one site and the second as Zarr for another.

The operations are ordinary functions of xarray objects with dimensions ``frame``, ``atom`` (one
C-alpha per residue) and ``axis`` (x, y, z in Å), made into operations by one decorator line.
Everything after superposition means the best one, by rotation and translation (Kabsch).

:func:`reference` computes the same figures with MDAnalysis and nothing of this file: a check.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

import dataflow as flow

DIMS = ("frame", "atom", "axis")

# --- operations --------------------------------------------------------------------------------


@flow.operation(kind="opaque", lazy=False, output=80_000)
def pairwise_rmsd(first: xr.DataArray, second: xr.DataArray) -> xr.DataArray:
    """RMSD (Å) of every frame of one run to every frame of another, after superposition."""
    distances = _rmsd(_points(first), _points(second))
    return xr.DataArray(distances, dims=("first", "second"), name="rmsd")


@flow.operation(kind="opaque", lazy=False, output=1_000)
def rmsd_to(run: xr.DataArray, structure: xr.DataArray) -> xr.DataArray:
    """RMSD (Å) of every frame to one structure, after superposition."""
    distances = _rmsd(_points(run), _points(structure)[None])[:, 0]
    return xr.DataArray(distances, dims="frame", name="rmsd")


@flow.operation(kind="opaque", output=1_000)
def radius_of_gyration(run: xr.DataArray) -> xr.DataArray:
    """How far the chain spreads around its centre (Å), frame by frame."""
    run = _named(run).astype("float64")
    offsets = run - run.mean("atom")
    return np.sqrt((offsets**2).sum("axis").mean("atom")).rename("radius_of_gyration")


@flow.operation(kind="opaque", output=5_136)
def frame(run: xr.DataArray, *, number: int = 0) -> xr.DataArray:
    """One structure out of a run."""
    return _named(run).isel(frame=number).astype("float64").rename("structure")


@flow.operation(kind="opaque", lazy=False, output=520_000)
def superpose(run: xr.DataArray, structure: xr.DataArray) -> xr.DataArray:
    """Every frame turned and moved so that it lies best on one structure."""
    mobile, target = _points(run), _points(structure)
    centre = target.mean(axis=0)
    offsets = mobile - mobile.mean(axis=1, keepdims=True)
    turned = np.einsum("nij,nai->naj", _rotations(offsets, target - centre), offsets)
    return xr.DataArray(turned + centre, dims=DIMS, name="positions")


@flow.operation(kind="linear", output=5_136)
def sum_of_frames(run: xr.DataArray) -> xr.DataArray:
    """All frames added up; over several runs the sums are added."""
    return _named(run).astype("float64").sum("frame").rename("sum")


def _merge_means(left: xr.Dataset, right: xr.Dataset) -> xr.Dataset:
    return left + right


def _mean(partial: xr.Dataset) -> xr.DataArray:
    return (partial["total"] / partial["frames"]).rename("structure")


@flow.operation(kind="reduction", combine=_merge_means, finish=_mean, output=5_136)
def mean_structure(run: xr.DataArray) -> xr.Dataset:
    """Mean position of every atom over all frames of all runs."""
    run = _named(run).astype("float64")
    return xr.Dataset({"total": run.sum("frame"), "frames": float(run.sizes["frame"])})


def _merge_spreads(left: xr.Dataset, right: xr.Dataset) -> xr.Dataset:
    """Chan's rule for two sets of samples: no large numbers are subtracted."""
    frames = left["frames"] + right["frames"]
    shift = right["mean"] - left["mean"]
    between = shift**2 * left["frames"] * right["frames"] / frames
    return xr.Dataset(
        {
            "frames": frames,
            "mean": left["mean"] + shift * right["frames"] / frames,
            "spread": left["spread"] + right["spread"] + between,
        }
    )


def _root_mean_square(partial: xr.Dataset) -> xr.DataArray:
    return np.sqrt(partial["spread"].sum("axis") / partial["frames"]).rename("rmsf")


@flow.operation(kind="reduction", combine=_merge_spreads, finish=_root_mean_square, output=1_712)
def fluctuation(run: xr.DataArray) -> xr.Dataset:
    """RMSF: root-mean-square distance (Å) of each atom from its mean, over all runs."""
    run = _named(run).astype("float64")
    mean = run.mean("frame")
    return xr.Dataset(
        {
            "frames": float(run.sizes["frame"]),
            "mean": mean,
            "spread": ((run - mean) ** 2).sum("frame"),
        }
    )


@flow.operation(kind="opaque", lazy=False, output="scalar")
def hausdorff(distances: xr.DataArray) -> xr.DataArray:
    """Distance of two paths: from the worst frame of either to the nearest of the other (Å)."""
    matrix = np.asarray(distances)
    worst = max(matrix.min(axis=1).max(), matrix.min(axis=0).max())
    return xr.DataArray(worst, name="hausdorff")


@flow.operation(kind="opaque", lazy=False, output="scalar")
def frechet(distances: xr.DataArray) -> xr.DataArray:
    """Discrete Fréchet distance (Å): both paths walked forward, the leash as short as may be."""
    matrix = np.asarray(distances)
    leash = np.empty_like(matrix)
    leash[0] = np.maximum.accumulate(matrix[0])
    leash[:, 0] = np.maximum.accumulate(matrix[:, 0])
    for i in range(1, matrix.shape[0]):
        for j in range(1, matrix.shape[1]):
            before = min(leash[i - 1, j], leash[i, j - 1], leash[i - 1, j - 1])
            leash[i, j] = max(matrix[i, j], before)
    return xr.DataArray(leash[-1, -1], name="frechet")


@flow.operation(kind="opaque", lazy=False, output=2_000)
def most_flexible(rmsf: xr.DataArray, residues: pd.DataFrame, *, number: int = 10) -> pd.DataFrame:
    """The residues that move most, with what the table says about them."""
    table = residues.reset_index(drop=True).assign(rmsf=np.asarray(rmsf))
    return table.nlargest(number, "rmsf").reset_index(drop=True)


# --- geometry ----------------------------------------------------------------------------------


def _named(run: xr.DataArray) -> xr.DataArray:
    """The run with the dimension names of this file, whatever its file calls them."""
    wanted = DIMS[-run.ndim :]
    return run if run.dims == wanted else run.rename(dict(zip(run.dims, wanted, strict=True)))


def _points(run: xr.DataArray) -> np.ndarray:
    return np.asarray(run, dtype="float64")


def _rmsd(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """All pairs at once: what the best rotation gains is in the singular values.

    With centred structures P, Q and H = PᵀQ, the smallest sum of squares is
    |P|² + |Q|² - 2 (s₁ + s₂ ± s₃); the sign is that of det H and keeps mirror images out.
    """
    first = first - first.mean(axis=1, keepdims=True)
    second = second - second.mean(axis=1, keepdims=True)
    covariance = np.tensordot(first, second, axes=([1], [1])).transpose(0, 2, 1, 3)
    s = np.linalg.svd(covariance, compute_uv=False)
    gained = s[..., 0] + s[..., 1] + np.sign(np.linalg.det(covariance)) * s[..., 2]
    squares = (first**2).sum(axis=(1, 2))[:, None] + (second**2).sum(axis=(1, 2))
    return np.sqrt(np.maximum(squares - 2 * gained, 0) / first.shape[1])


def _rotations(mobile: np.ndarray, target: np.ndarray) -> np.ndarray:
    """For each centred frame the rotation that lays it best on the centred target."""
    u, _, vt = np.linalg.svd(np.einsum("nai,aj->nij", mobile, target))
    u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    return u @ vt


# --- data --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """Where :func:`prepare` put things."""

    run1: Path
    run2: Path
    residues: Path


def prepare(
    first: str | Path, second: str | Path | None = None, *, dtype: str = "float32"
) -> Prepared:
    """Write the two runs and the table of residues.

    ``first`` gets ``run1.h5`` (98 frames) and ``residues.csv``, ``second`` (default the same
    folder) ``run2.zarr`` (102 frames). What is there already stays.
    """
    one, two = Path(first), Path(second or first)
    made = Prepared(one / "run1.h5", two / "run2.zarr", one / "residues.csv")
    for folder in (one, two):
        folder.mkdir(parents=True, exist_ok=True)
    if not made.run1.exists():
        write(made.run1, positions(1).astype(dtype))
    if not made.run2.exists():
        write(made.run2, positions(2).astype(dtype))
    if not made.residues.exists():
        residues().to_csv(made.residues, index=False)
    return made


def write(path: str | Path, run: np.ndarray, *, frames_per_chunk: int = 16) -> Path:
    """Store a run (frame × atom × axis) in chunks; ``.h5`` and ``.zarr`` are known."""
    path = Path(path)
    pieces = (run[i : i + frames_per_chunk] for i in range(0, len(run), frames_per_chunk))
    _write(path, pieces, run.shape, run.dtype, frames_per_chunk)
    return path


def synthetic(path: str | Path, *, nbytes: int, seed: int = 0, frames_per_chunk: int = 256) -> Path:
    """A long made-up run of about ``nbytes`` bytes: the first frame of run 1, shaken.

    Written piece by piece: it may be larger than memory. Equal seeds give equal bytes.
    """
    start = positions(1)[0].astype("float32")
    frames = max(1, round(nbytes / start.nbytes))
    rng = np.random.default_rng(seed)

    def pieces() -> Iterator[np.ndarray]:
        for first in range(0, frames, frames_per_chunk):
            count = min(frames_per_chunk, frames - first)
            yield start + rng.standard_normal((count, *start.shape), dtype="float32")

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, pieces(), (frames, *start.shape), np.dtype("float32"), frames_per_chunk)
    return path


def _write(
    path: Path, pieces: Iterator[np.ndarray], shape: tuple[int, ...], dtype: Any, step: int
) -> None:
    chunks = (min(step, shape[0]), *shape[1:])
    attributes = {"units": "Å", "long_name": "C-alpha positions of adenylate kinase"}
    if path.suffix == ".h5":
        import h5py

        with h5py.File(path, "w") as file:
            array = file.create_dataset("positions", shape, dtype, chunks=chunks)
            array.attrs.update(attributes)
            for number, name in enumerate(DIMS):
                array.dims[number].label = name
            _fill(array, pieces)
    elif path.suffix == ".zarr":
        import zarr

        group = zarr.create_group(path)
        array = group.create_array(
            "positions",
            shape=shape,
            dtype=dtype,
            chunks=chunks,
            dimension_names=DIMS,
            attributes=attributes,
        )
        _fill(array, pieces)
    else:
        raise ValueError(f"{path.name}: a run is written to .h5 or .zarr")


def _fill(array: Any, pieces: Iterator[np.ndarray]) -> None:
    first = 0
    for piece in pieces:
        array[first : first + len(piece)] = piece
        first += len(piece)


@cache
def positions(run: Literal[1, 2]) -> np.ndarray:
    """C-alpha positions of one run as MDAnalysis reads them, float32."""
    with _quiet():
        universe = _universe(run)
        atoms = universe.select_atoms("name CA")
        return np.array([atoms.positions.copy() for _ in universe.trajectory])


@cache
def residues() -> pd.DataFrame:
    """One row per residue: number, name, and the domain it belongs to."""
    with _quiet():
        chain = _universe(1).select_atoms("name CA").residues
    numbers = chain.resids.astype("int64")
    # The moving parts as in Beckstein et al., J. Mol. Biol. 394 (2009) 160.
    moving = [(numbers >= 122) & (numbers <= 159), (numbers >= 30) & (numbers <= 59)]
    domain = np.select(moving, ["LID", "NMP"], "CORE")
    return pd.DataFrame({"residue": numbers, "name": chain.resnames.astype(str), "domain": domain})


# --- the same by MDAnalysis --------------------------------------------------------------------


def reference() -> Mapping[str, np.ndarray]:
    """What the operations must give, computed by MDAnalysis from its own files.

    Keys are the operations' names, with ``1`` or ``2`` where they concern one run; the target
    of all superpositions is the first frame of run 1.
    """
    import MDAnalysis
    from MDAnalysis.analysis import align, rms
    from MDAnalysisTests.datafiles import DCD, DCD2, PSF

    found: dict[str, np.ndarray] = {}
    with _quiet():
        runs = {number: positions(number).astype("float64") for number in (1, 2)}
        target = _universe(1)
        for number in (1, 2):
            universe = _universe(number)
            atoms = universe.select_atoms("name CA")
            found[f"radius_of_gyration{number}"] = np.array(
                [atoms.radius_of_gyration() for _ in universe.trajectory]
            )
            found[f"mean_structure{number}"] = runs[number].mean(axis=0)
            distances = rms.RMSD(universe, target, select="name CA", ref_frame=0).run()
            found[f"rmsd_to{number}"] = distances.results.rmsd[:, 2]
        found["pairwise_rmsd"] = np.array(
            [[rms.rmsd(p, q, center=True, superposition=True) for q in runs[2]] for p in runs[1]]
        )
        both = MDAnalysis.Universe(PSF, [DCD, DCD2], in_memory=True)
        align.AlignTraj(both, target, select="name CA", in_memory=True).run()
        chain = both.select_atoms("name CA")
        found["superpose"] = both.trajectory.timeseries(chain, order="fac").astype("float64")
        found["fluctuation"] = rms.RMSF(chain).run().results.rmsf
    found["mean_structure"] = np.concatenate([runs[1], runs[2]]).mean(axis=0)
    found["sum_of_frames"] = runs[1].sum(axis=0) + runs[2].sum(axis=0)
    return found


def _universe(run: Literal[1, 2]) -> Any:
    import MDAnalysis
    from MDAnalysisTests.datafiles import DCD, DCD2, PSF

    return MDAnalysis.Universe(PSF, DCD if run == 1 else DCD2)


class _quiet(warnings.catch_warnings):  # noqa: N801
    """MDAnalysis announces changes of its next version on every open of a DCD file."""

    def __enter__(self) -> Any:
        import MDAnalysis  # noqa: F401  its import sets filters of its own

        entered = super().__enter__()
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*MDAnalysis.*")
        return entered
