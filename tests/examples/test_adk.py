"""The domain code of the examples against MDAnalysis, before any site is involved."""

from __future__ import annotations

import importlib
import itertools
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

pytest.importorskip("MDAnalysisTests", reason="the extra 'demo' is not installed")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def adk() -> ModuleType:
    """As a notebook in that folder imports it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "examples")
        return importlib.import_module("adk")


@pytest.fixture(scope="module")
def reference(adk: ModuleType) -> Any:
    return adk.reference()


@pytest.fixture(scope="module")
def run1(adk: ModuleType) -> xr.DataArray:
    return xr.DataArray(adk.positions(1), dims=adk.DIMS)


@pytest.fixture(scope="module")
def run2(adk: ModuleType) -> xr.DataArray:
    return xr.DataArray(adk.positions(2), dims=adk.DIMS)


def reduction(operation: Any, *pieces: xr.DataArray) -> Any:
    functions = operation.functions
    partial = reduce(functions.combine, [functions.function(piece) for piece in pieces])
    return functions.finish(partial)


def test_the_data_is_what_it_is_said_to_be(adk: ModuleType) -> None:
    assert adk.positions(1).shape == (98, 214, 3)
    assert adk.positions(2).shape == (102, 214, 3)
    assert adk.positions(1).dtype == "float32"
    assert adk.residues()["domain"].value_counts().to_dict() == {"CORE": 146, "LID": 38, "NMP": 30}


def test_pairwise_rmsd(adk: Any, reference: Any, run1: Any, run2: Any) -> None:
    ours = adk.pairwise_rmsd.function(run1, run2)
    np.testing.assert_allclose(ours, reference["pairwise_rmsd"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("number", [1, 2])
def test_one_run(adk: Any, reference: Any, run1: Any, run2: Any, number: int) -> None:
    run, target = (run1, run2)[number - 1], adk.frame.function(run1)
    distances = adk.rmsd_to.function(run, target)
    np.testing.assert_allclose(distances, reference[f"rmsd_to{number}"], atol=1e-6)
    radii = adk.radius_of_gyration.function(run)
    np.testing.assert_allclose(radii, reference[f"radius_of_gyration{number}"], rtol=1e-12)
    mean = reduction(adk.mean_structure, run)
    np.testing.assert_allclose(mean, reference[f"mean_structure{number}"], rtol=1e-12)


def test_both_runs(adk: Any, reference: Any, run1: Any, run2: Any) -> None:
    mean = reduction(adk.mean_structure, run1, run2)
    np.testing.assert_allclose(mean, reference["mean_structure"], rtol=1e-12)
    total = adk.sum_of_frames.function(run1) + adk.sum_of_frames.function(run2)
    np.testing.assert_allclose(total, reference["sum_of_frames"], rtol=1e-12)


def test_superposition_and_what_moves(adk: Any, reference: Any, run1: Any, run2: Any) -> None:
    target = adk.frame.function(run1)
    laid = [adk.superpose.function(run, target) for run in (run1, run2)]
    # MDAnalysis keeps coordinates as float32: that is the difference.
    np.testing.assert_allclose(np.concatenate(laid), reference["superpose"], atol=2e-5)
    moved = reduction(adk.fluctuation, *laid)
    np.testing.assert_allclose(moved, reference["fluctuation"], atol=2e-5)
    table = adk.most_flexible.function(moved, adk.residues(), number=12)
    assert set(table["domain"]) == {"LID", "NMP"}, "it is the lids that move"
    assert table["rmsf"].is_monotonic_decreasing


@pytest.mark.parametrize("pieces", [1, 2, 3, 7])
@pytest.mark.parametrize("name", ["mean_structure", "fluctuation"])
def test_reductions_do_not_see_the_seams(adk: Any, run1: Any, name: str, pieces: int) -> None:
    operation = getattr(adk, name)
    edges = np.linspace(0, run1.sizes["frame"], pieces + 1).astype(int)
    parts = [run1[a:b] for a, b in itertools.pairwise(edges)]
    whole = reduction(operation, run1)
    np.testing.assert_allclose(reduction(operation, *parts), whole, rtol=1e-10)


def test_operations_keep_to_their_promises_on_chunks(adk: Any, run1: Any) -> None:
    chunked = run1.chunk(frame=13)
    for name in ("radius_of_gyration", "sum_of_frames", "frame"):
        function = getattr(adk, name).function
        lazy = function(chunked)
        assert lazy.chunks is not None, f"{name} loaded its input"
        np.testing.assert_allclose(lazy, function(run1), rtol=1e-10)


def test_dimension_names_of_the_file_do_not_matter(adk: Any, run1: Any) -> None:
    anonymous = xr.DataArray(run1.data, dims=("dim_0", "dim_1", "dim_2"))
    same = adk.radius_of_gyration.function(anonymous)
    xr.testing.assert_identical(same, adk.radius_of_gyration.function(run1))


def test_declared_sizes_are_right(adk: Any, run1: Any, run2: Any) -> None:
    """Plans are priced by them."""
    target = adk.frame.function(run1)
    results = {
        "pairwise_rmsd": adk.pairwise_rmsd.function(run1, run2),
        "frame": target,
        "rmsd_to": adk.rmsd_to.function(run1, target),
        "radius_of_gyration": adk.radius_of_gyration.function(run1),
        "superpose": adk.superpose.function(run2, target),
        "sum_of_frames": adk.sum_of_frames.function(run1),
        "mean_structure": reduction(adk.mean_structure, run1),
        "fluctuation": reduction(adk.fluctuation, run1),
    }
    for name, result in results.items():
        declared = int(getattr(adk, name).operation.output)
        assert result.nbytes <= declared * 1.05, name
        assert result.nbytes >= declared * 0.7, name


def test_path_distances_by_their_definition(adk: Any, reference: Any) -> None:
    matrix = reference["pairwise_rmsd"]
    nearest = [min(row) for row in matrix] + [min(column) for column in matrix.T]
    assert adk.hausdorff.function(xr.DataArray(matrix)).item() == max(nearest)

    reach: dict[tuple[int, int], float] = {}
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            ways = [reach[k] for k in ((i - 1, j), (i, j - 1), (i - 1, j - 1)) if k in reach]
            reach[i, j] = max(matrix[i, j], min(ways, default=0.0))
    assert adk.frechet.function(xr.DataArray(matrix)).item() == reach[97, 101]


def test_path_distances_against_path_simulation_analysis(adk: Any, run1: Any, run2: Any) -> None:
    """Without superposition, as PathSimAnalysis 1.0 (its float32) gave them for these runs."""
    offsets = run1.values[:, None].astype("float64") - run2.values[None]
    matrix = xr.DataArray(np.sqrt((offsets**2).sum(axis=-1).mean(axis=-1)))
    assert adk.hausdorff.function(matrix).item() == pytest.approx(60.79026717595976, rel=1e-7)
    assert adk.frechet.function(matrix).item() == pytest.approx(60.86920537966141, rel=1e-7)


def test_prepare_writes_both_formats(adk: Any, tmp_path: Path) -> None:
    import h5py

    made = adk.prepare(tmp_path / "one", tmp_path / "two")
    with h5py.File(made.run1) as file:
        assert file["positions"].chunks == (16, 214, 3)
        assert [d.label for d in file["positions"].dims] == list(adk.DIMS)
        np.testing.assert_array_equal(file["positions"], adk.positions(1))
    run2 = xr.open_zarr(made.run2, consolidated=False)["positions"]
    assert run2.dims == adk.DIMS
    np.testing.assert_array_equal(run2, adk.positions(2))
    pd.testing.assert_frame_equal(
        pd.read_csv(made.residues).astype(str), adk.residues().astype(str)
    )
    before = made.run1.stat().st_mtime_ns
    assert adk.prepare(tmp_path / "one", tmp_path / "two") == made
    assert made.run1.stat().st_mtime_ns == before, "what is there stays"


def test_prepare_in_double_precision(adk: Any, tmp_path: Path) -> None:
    made = adk.prepare(tmp_path, dtype="float64")
    assert xr.open_zarr(made.run2, consolidated=False)["positions"].dtype == "float64"


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
def test_synthetic_runs_are_large_and_repeatable(adk: Any, tmp_path: Path, suffix: str) -> None:
    import h5py

    one = adk.synthetic(tmp_path / f"one{suffix}", nbytes=3_000_000, seed=4)
    two = adk.synthetic(tmp_path / f"two{suffix}", nbytes=3_000_000, seed=4)
    if suffix == ".h5":
        with h5py.File(one) as a, h5py.File(two) as b:
            left, right = a["positions"][:], b["positions"][:]
    else:
        left = xr.open_zarr(one, consolidated=False)["positions"].values
        right = xr.open_zarr(two, consolidated=False)["positions"].values
    np.testing.assert_array_equal(left, right)
    assert left.nbytes == pytest.approx(3_000_000, rel=0.01)
    assert left.shape[1:] == (214, 3)


def test_unknown_format_is_refused(adk: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.h5 or \.zarr"):
        adk.write(tmp_path / "run.npy", adk.positions(1))
