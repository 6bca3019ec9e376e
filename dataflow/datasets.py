"""Dataset, Replica, Extent, Lineage: what data means, and where its copies are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

from dataflow import _html
from dataflow._quantities import format_bytes

Kind = Literal["array", "dataset", "table", "files"]
Format = Literal["zarr", "hdf5", "netcdf", "npy", "csv", "parquet", "database", "files"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One named array, or one column of a table.

    ``shape`` has an entry per dimension, -1 where it is not known; ``nbytes`` is the size in
    memory, not on disk; ``chunks`` is the stored chunk shape, ``None`` if contiguous.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    chunks: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Shape and size of a dataset, or the best guess of it.

    ``nbytes`` counts bytes in memory. ``guessed`` tells how the figure was come by when it is not
    a measurement: the words appear in the plan's explanation; empty means measured.
    """

    nbytes: int
    variables: tuple[Variable, ...] = ()
    guessed: str = ""

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape, if there is exactly one variable."""
        return self.variables[0].shape if len(self.variables) == 1 else None

    @property
    def dims(self) -> tuple[str, ...] | None:
        """Dimension names, if there is exactly one variable."""
        return self.variables[0].dims if len(self.variables) == 1 else None

    @property
    def dtype(self) -> str | None:
        """Type of the elements, if there is exactly one variable."""
        return self.variables[0].dtype if len(self.variables) == 1 else None

    @property
    def rows(self) -> int | None:
        """Length of the first dimension of the first variable: rows of a table."""
        if not self.variables or not self.variables[0].shape:
            return None
        return self.variables[0].shape[0]

    @property
    def elements(self) -> int:
        """Number of elements over all variables."""
        return sum(prod(variable.shape) for variable in self.variables)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """What a second run of a result came to.

    Attributes
    ----------
    site
        Where the second run was.
    job
        Whose it was.
    equal
        Whether both runs wrote the same.
    differs
        Paths of the files that are not the same, or are at one of the two only.
    environment
        Versions in the second run.
    time
        When they were compared, in seconds since the epoch.
    """

    site: str
    job: str = ""
    equal: bool = False
    differs: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    time: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """How a result was made: enough to say it, and with the graph enough to make it again.

    ``inputs`` are keys in the order of the operation's arguments; ``environment`` maps package
    names to versions at the site that ran it. ``origins`` are keys of the registered data that it
    was made of, through all steps, and ``entered`` when that was at the latest (seconds since the
    epoch) of those that came by way of earlier results only; ``rows`` those of them whose rows it still carries, each with
    the number of services, forced by its owner, that they have been through, and ``services`` which
    these are: another user's relation may force others. ``temporary``: an
    owner does not let it be kept after the job. ``unproven``: an owner gives it out only after a
    second run has come to the same; ``reproduced`` is what such a run came to.
    """

    operation: str
    version: str
    kind: str
    inputs: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    site: str = ""
    job: str = ""
    plan: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    origins: tuple[str, ...] = ()
    entered: Mapping[str, float] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    services: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    temporary: bool = False
    unproven: bool = False
    reproduced: Reproduction | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Dataset:
    """What data means, wherever its copies are.

    Attributes
    ----------
    id
        Given by the system, unique in the federation.
    name
        Given by a person, unique at its site only; ``site/name`` is unique everywhere.
    key
        Identity of the content: for registered data a digest of the fingerprint, for a result the
        key of the operation that made it. Equal keys mean equal data.
    kind
        What an operation receives: ``array`` → DataArray, ``dataset`` → xarray Dataset,
        ``table`` → DataFrame, ``files`` → paths.
    owner
        Who decides about it.
    site
        The site whose record this is (its single writer).
    tags
        Free words of the users, for search.
    created
        Seconds since the epoch.
    """

    id: str
    name: str
    key: str
    kind: Kind
    extent: Extent
    site: str
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    lineage: Lineage | None = None
    created: float = 0.0

    def __repr__(self) -> str:
        return f"<Dataset {self.site}/{self.name}: {self._what()}>"

    def _what(self) -> str:
        extent = self.extent
        shape = f" ({', '.join(map(_length, extent.shape))})" if extent.shape is not None else ""
        words = f"{self.kind}{shape}{f' {extent.dtype}' if extent.dtype else ''}"
        guess = "about " if extent.guessed else ""
        return f"{words}, {guess}{format_bytes(extent.nbytes)}"

    def _repr_html_(self) -> str:
        made = self.lineage
        tags = " ".join(f"{name}={value}" for name, value in sorted(self.tags.items()))
        facts = [
            ("what", self._what()),
            ("record of", self.site),
            ("owner", self.owner),
            ("tags", tags),
            ("made by", f"{made.operation} at {made.site}" if made is not None else ""),
            ("guessed", self.extent.guessed),
            ("id", self.id),
            ("key", self.key),
        ]
        rows = [
            (
                one.name,
                ", ".join(
                    f"{name} {_length(length)}"
                    for name, length in zip(one.dims, one.shape, strict=False)
                ),
                one.dtype,
                format_bytes(one.nbytes),
                " × ".join(map(str, one.chunks)) if one.chunks else "contiguous",
            )
            for one in self.extent.variables[:SHOWN_VARIABLES]
        ]
        more = len(self.extent.variables) - len(rows)
        header = ("variable", "dimensions", "type", "size", "chunks")
        parts = [_html.Markup(f"<p><b>{_html.escape(self.name)}</b></p>"), _html.facts(facts)]
        if rows:
            count = f"{len(self.extent.variables)} variable{'s' if len(self.extent.variables) > 1 else ''}"
            table = _html.table(header, rows, numbers=(3,))
            rest = f"… and {more} more" if more > 0 else ""
            parts.append(_html.disclosure(count, table, rest))
        return _html.block(*parts).text


#: Variables (or columns) that a dataset shows; the others are counted.
SHOWN_VARIABLES = 60


def _length(length: int) -> str:
    return "?" if length < 0 else str(length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One copy of a dataset in a store.

    ``nbytes`` counts stored bytes: what a transfer moves. ``variable`` selects one array out of a
    file that holds several. ``fingerprint`` changes when the bytes do.
    """

    key: str
    site: str
    store: str
    url: str
    format: Format
    nbytes: int
    fingerprint: str = ""
    variable: str | None = None
    created: float = 0.0
