"""``.flow`` of xarray objects: where they come from, for those that a session has opened.

The mark stands in the ``encoding``, which computations drop: what was computed since is no longer what is
stored, and says so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from dataflow.datasets import Dataset, Lineage
from dataflow.errors import UnknownDataset

if TYPE_CHECKING:
    from dataflow.session.session import Session

#: In the encoding of what was opened: the key of the dataset.
MARK = "dataflow"


def marked(opened: Any, dataset: Dataset) -> Any:
    """What was opened, with its origin written on it; tables and files as they are."""
    if isinstance(opened, xr.Dataset | xr.DataArray):
        opened.encoding[MARK] = dataset.key
    return opened


class Flow:
    """What is known of an xarray object that a session has opened.

    Raises
    ------
    UnknownDataset
        By everything but :meth:`register`, if it was computed here since, or never opened by us.
    """

    def __init__(self, opened: xr.Dataset | xr.DataArray) -> None:
        self._opened = opened

    @property
    def key(self) -> str:
        """The key of the dataset; equal keys are equal data."""
        found = self._opened.encoding.get(MARK)
        if not found:
            raise UnknownDataset(
                "this object: it was computed here, or not opened by a session; "
                ".flow.register(path) makes a dataset of it"
            )
        return str(found)

    @property
    def dataset(self) -> Dataset:
        """Its record in the catalog."""
        return _session().participant.snapshot().resolve(self.key)

    @property
    def provenance(self) -> Lineage | None:
        """How it was made: operation, version, parameters, keys of the inputs, packages; ``None`` of
        data that were registered.
        """
        return self.dataset.lineage

    @property
    def where(self) -> tuple[str, ...]:
        """Sites that have a copy of it."""
        copies = _session().participant.snapshot().replicas_of(self.key)
        return tuple(dict.fromkeys(copy.site for copy in copies))

    @property
    def bytes(self) -> int:
        """Bytes in memory if all of it is loaded."""
        return self.dataset.extent.nbytes

    def register(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Dataset:
        """Write it as Zarr to a path of this machine, which must be free, and make a dataset of it.

        Raises
        ------
        FileExistsError
            If something is there.
        """
        target = Path(path).absolute()
        if target.exists():
            raise FileExistsError(f"{target} is there already; nothing was written")
        opened = self._opened
        if isinstance(opened, xr.DataArray):
            opened = opened.to_dataset(name=opened.name or name or target.stem)
        opened.drop_encoding().to_zarr(target, mode="w-", consolidated=False)
        return _session().register(target, name=name, tags=tags)

    def __repr__(self) -> str:
        found = self._opened.encoding.get(MARK)
        return f"<flow of {found[:12]}>" if found else "<flow: computed here>"


def _session() -> Session:
    from dataflow.session.connecting import current

    return current()


xr.register_dataset_accessor("flow")(Flow)  # type: ignore[no-untyped-call]
xr.register_dataarray_accessor("flow")(Flow)  # type: ignore[no-untyped-call]
