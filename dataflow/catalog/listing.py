"""Listing: datasets as a person wants to see them, in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

from dataflow import _html
from dataflow._quantities import format_bytes
from dataflow.catalog.snapshot import Snapshot
from dataflow.datasets import Dataset

#: Rows that are shown; the rest is counted. A notebook file must not grow by what nobody reads.
SHOWN = 60
_COLUMNS = ("name", "sites", "kind", "shape", "dtype", "size", "owner", "tags", "copies")
_NUMBERS = (5, 8)
_WIDEST = 40


class Listing(Sequence[Dataset]):
    """What ``session.datasets()`` gives: a sequence of datasets that shows itself as a table.

    Parameters
    ----------
    datasets
        What to list, in this order.
    snapshot
        Knows where the copies are and what users wrote on them.

    Examples
    --------
    >>> Listing([], Snapshot())
    <Listing no datasets>
    """

    def __init__(self, datasets: Iterable[Dataset], snapshot: Snapshot) -> None:
        self._datasets = tuple(datasets)
        self._snapshot = snapshot

    def __len__(self) -> int:
        return len(self._datasets)

    def __iter__(self) -> Iterator[Dataset]:
        return iter(self._datasets)

    @overload
    def __getitem__(self, index: int | str) -> Dataset: ...
    @overload
    def __getitem__(self, index: slice) -> Listing: ...
    def __getitem__(self, index: int | str | slice) -> Dataset | Listing:
        """A dataset by number or by any name that is clear among these; a part by slice.

        Raises
        ------
        UnknownDataset, AmbiguousDataset
            As `Snapshot.resolve`, for a name.
        """
        if isinstance(index, slice):
            return Listing(self._datasets[index], self._snapshot)
        if isinstance(index, str):
            return self._alone().resolve(index)
        return self._datasets[index]

    def _alone(self) -> Snapshot:
        return Snapshot(datasets=self._datasets, topology=self._snapshot.topology)

    def _ipython_key_completions_(self) -> list[str]:
        return self._alone().names()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Listing) and self._datasets == other._datasets

    def __hash__(self) -> int:
        return hash(tuple(dataset.id for dataset in self._datasets))

    def stac(self) -> dict[str, Any]:
        """These datasets as a STAC item collection: plain JSON, with the address of every copy."""
        from dataflow.catalog.exchange import stac_items

        return stac_items(self, self._snapshot)

    def __repr__(self) -> str:
        count, sites = len(self), len({site for one in self for site in self._sites(one)})
        if not count:
            return "<Listing no datasets>"
        size = format_bytes(sum(dataset.extent.nbytes for dataset in self))
        return f"<Listing {_plural(count, 'dataset')} at {_plural(sites, 'site')}, {size}>"

    def __str__(self) -> str:
        if not self:
            return "no datasets"
        rows = [[_short(cell) for cell in self._row(one)] for one in self._datasets[:SHOWN]]
        return "\n".join([_html.plain_table(_COLUMNS, rows), *self._rest()])

    def _repr_pretty_(self, printer: object, cycle: bool) -> None:
        printer.text(str(self))  # type: ignore[attr-defined]

    def _repr_html_(self) -> str:
        if not self:
            return _html.block("no datasets").text
        away = self._snapshot.topology.away
        shown = self._datasets[:SHOWN]
        gone = [i for i, one in enumerate(shown) if away.issuperset(self._sites(one))]
        rows = [self._row(one) for one in shown]
        table = _html.table(_COLUMNS, rows, numbers=_NUMBERS, faint=gone)
        return _html.block(table, *self._rest()).text

    def _row(self, dataset: Dataset) -> tuple[str, ...]:
        variables, away = dataset.extent.variables, self._snapshot.topology.away
        if len(variables) == 1:
            lengths = ("?" if length < 0 else str(length) for length in variables[0].shape)
            shape, dtype = f"({', '.join(lengths)})", variables[0].dtype
        else:
            shape, dtype = (_plural(len(variables), "variable") if variables else ""), ""
        guess = "about " if dataset.extent.guessed else ""
        sites = (f"{site} (away)" if site in away else site for site in self._sites(dataset))
        return (
            dataset.name,
            ", ".join(sites),
            dataset.kind,
            shape,
            dtype,
            guess + format_bytes(dataset.extent.nbytes),
            dataset.owner,
            self._tags(dataset),
            str(len(self._snapshot.replicas_of(dataset))),
        )

    def _sites(self, dataset: Dataset) -> tuple[str, ...]:
        """Sites with a copy; the site of the record if no copy is known."""
        return self._snapshot.sites_of(dataset) or (dataset.site,)

    def _tags(self, dataset: Dataset) -> str:
        """The owner's tags plain, those of others with who gave them."""
        parts = []
        for user, tags in sorted(self._snapshot.tags_of(dataset).items()):
            by = "" if user == dataset.owner else f" ({user})"
            parts += [f"{name}={value}{by}" for name, value in sorted(tags.items())]
        return " ".join(parts)

    def _rest(self) -> list[str]:
        more = len(self) - SHOWN
        return [f"… and {_plural(more, 'more dataset')}"] if more > 0 else []


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDEST else line[: _WIDEST - 1] + "…"
