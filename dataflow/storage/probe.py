"""Probe: what lies at a URL - shape, types, chunks, size, fingerprint - found out in place.

Nothing is copied and no array is loaded. HDF5, NetCDF and Zarr say it in their metadata, ``.npy`` in
its header, Parquet in its footers; a CSV file is read through once, a piece at a time, because
nothing in it says how many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dataflow.datasets import Extent, Format, Kind, Variable
from dataflow.errors import UnreadableDataset
from dataflow.storage import probe_arrays, probe_tables
from dataflow.storage.fingerprints import current_fingerprint, fingerprint_of, stored_files
from dataflow.storage.manifest import PARQUET
from dataflow.storage.open import Options
from dataflow.storage.source import Source
from dataflow.stores import in_database

__all__ = ["Probe", "current_fingerprint", "probe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What was found at a URL.

    ``nbytes`` counts stored bytes; ``extent`` those in memory. ``variable`` is the one that was
    asked for, or ``None``.
    """

    kind: Kind
    format: Format
    extent: Extent
    nbytes: int
    fingerprint: str
    variable: str | None = None


Variables = Callable[[Source], tuple[Variable, ...]]

_ARRAYS: dict[str, Variables] = {
    "hdf5": probe_arrays.hdf5,
    "netcdf": probe_arrays.netcdf,
    "zarr": probe_arrays.zarr_variables,
    "npy": probe_arrays.npy,
}
_TABLES: dict[str, Variables] = {"csv": probe_tables.csv, "parquet": probe_tables.parquet}

_SUFFIXES: dict[str, Format] = {
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".hdf": "hdf5",
    ".nc": "netcdf",
    ".nc4": "netcdf",
    ".cdf": "netcdf",
    ".zarr": "zarr",
    ".npy": "npy",
    ".csv": "csv",
    **dict.fromkeys(PARQUET, "parquet"),
}

_SIGNATURES: tuple[tuple[bytes, frozenset[Format]], ...] = (
    (b"\x89HDF\r\n\x1a\n", frozenset({"hdf5", "netcdf"})),
    (b"CDF\x01", frozenset({"netcdf"})),
    (b"CDF\x02", frozenset({"netcdf"})),
    (b"CDF\x05", frozenset({"netcdf"})),
    (b"\x93NUMPY", frozenset({"npy"})),
    (b"PAR1", frozenset({"parquet"})),
)


def probe(
    url: str,
    *,
    variable: str | None = None,
    credentials: Mapping[str, str] | None = None,
    options: Options = (),
) -> Probe:
    """Find out what lies at ``url``.

    Parameters
    ----------
    variable
        Take this one array out of a file or group that holds several (its full path in HDF5).

    Returns
    -------
    Probe
        Kind ``"array"`` for one variable, ``"dataset"`` for several, ``"table"`` for CSV and Parquet,
        whose columns are the variables, ``"files"`` for what has no name or first bytes that we know. HDF5 dimensions have the names of their scales, else
        ``dim_0`` and so on.

    Raises
    ------
    UnreadableDataset
        If nothing is there, or it is not what its name or its first bytes claim, with the reason.
    """
    source = Source(url, credentials=dict(credentials or {}), options=tuple(options))
    if in_database(url):
        return _database(source, variable)
    try:
        files = stored_files(url, credentials=credentials, options=options)
        format = format_of(source, files)
        if format == "files" and variable is None:
            return _files(
                files, fingerprint_of(url, files, credentials=credentials, options=options)
            )
        if format == "files":
            raise UnreadableDataset(
                url, f"it has no variable {variable!r}: its format is not known"
            )
        variables = (_ARRAYS | _TABLES)[format](source)
        fingerprint = fingerprint_of(url, files, credentials=credentials, options=options)
    except UnreadableDataset:
        raise
    except ImportError as error:
        raise UnreadableDataset(
            url, f"this needs a package that is not installed: {error}"
        ) from error
    except Exception as error:
        # Whatever a format library makes of damaged bytes, and it is many types, is one thing here.
        reason = str(error).strip().partition("\n")[0]
        raise UnreadableDataset(url, f"{type(error).__name__}: {reason}") from error
    variables = _selected(url, variables, variable)
    kind: Kind = "table" if format in _TABLES else "array" if len(variables) == 1 else "dataset"
    return Probe(
        kind=kind,
        format=format,
        extent=Extent(nbytes=sum(v.nbytes for v in variables), variables=variables),
        nbytes=sum(size for _, size in files),
        fingerprint=fingerprint,
        variable=variable,
    )


def _database(source: Source, variable: str | None) -> Probe:
    from dataflow.storage import databases

    if variable is not None:
        raise UnreadableDataset(source.url, "a column of a table is chosen by a query, not here")
    columns, nbytes, fingerprint = databases.probe(source)
    extent = Extent(nbytes=sum(column.nbytes for column in columns), variables=columns)
    return Probe(
        kind="table", format="database", extent=extent, nbytes=nbytes, fingerprint=fingerprint
    )


def _files(files: tuple[tuple[str, int], ...], fingerprint: str) -> Probe:
    """Something for programs to read, of which we know no more than its size."""
    nbytes = sum(size for _, size in files)
    extent = Extent(nbytes=nbytes)
    return Probe(
        kind="files", format="files", extent=extent, nbytes=nbytes, fingerprint=fingerprint
    )


def _selected(
    url: str, variables: tuple[Variable, ...], wanted: str | None
) -> tuple[Variable, ...]:
    if not variables:
        raise UnreadableDataset(url, "it holds no arrays")
    if wanted is None:
        return variables
    found = tuple(v for v in variables if v.name == wanted.strip("/"))
    if not found:
        there = ", ".join(v.name for v in variables[:20])
        raise UnreadableDataset(url, f"it has no variable {wanted!r}; there are {there}")
    return found


def format_of(source: Source, files: tuple[tuple[str, int], ...]) -> Format:
    """The format at a URL: by its name, confirmed by its first bytes.

    Raises
    ------
    UnreadableDataset
        If the two disagree. Where neither says anything it is just files.
    """
    if files[0][0] != "":
        return _directory_format(files)
    if files[0][1] == 0:
        raise UnreadableDataset(source.url, "the file is empty")
    with source.file() as file:
        head = file.read(16)
    signed = next((formats for magic, formats in _SIGNATURES if head.startswith(magic)), None)
    suffix = "." + source.url.rpartition("/")[2].rpartition(".")[2].lower()
    named = _SUFFIXES.get(suffix)
    if named is None:
        if signed is None:
            return "files"
        return "hdf5" if "hdf5" in signed else next(iter(signed))
    if signed is not None and named not in signed:
        raise UnreadableDataset(
            source.url, f"it is called {suffix} and holds {'/'.join(sorted(signed))}"
        )
    if signed is None and named != "csv":
        raise UnreadableDataset(source.url, f"it is called {suffix} and does not begin like one")
    return named


def _directory_format(files: tuple[tuple[str, int], ...]) -> Format:
    names = {path for path, _ in files}
    if names & {"zarr.json", ".zgroup", ".zarray", ".zmetadata"}:
        return "zarr"
    if any(name.endswith(PARQUET) for name in names):
        return "parquet"
    return "files"
