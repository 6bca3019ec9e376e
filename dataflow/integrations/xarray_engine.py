"""``xr.open_dataset("dataflow://run1", engine="dataflow")``: the nearest copy that you may read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

import xarray as xr
from xarray.backends import BackendEntrypoint

from dataflow.errors import UnreadableDataset

#: What the address of a dataset begins with.
SCHEME = "dataflow://"


class DataflowEntrypoint(BackendEntrypoint):
    """Datasets of the catalog for xarray, by name, ``site/name``, id or key.

    Opened by the latest session of this process; one is connected if there is none.
    """

    description = "Open datasets of a dataflow federation"
    open_dataset_parameters = ("filename_or_obj", "drop_variables")

    def open_dataset(
        self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None
    ) -> xr.Dataset:
        """The dataset, lazily; an array is the one variable of its dataset.

        Raises
        ------
        UnknownDataset, AmbiguousDataset
            With what to do about it.
        UnreadableDataset
            If it is no array: tables and files are for ``session.open``.
        """
        from dataflow.session.connecting import current

        name = unquote(os.fspath(filename_or_obj).removeprefix(SCHEME))
        opened = current().open(name)
        if isinstance(opened, xr.DataArray):
            encoding = dict(opened.encoding)
            opened = opened.to_dataset(name=opened.name or "data")
            opened.encoding.update(encoding)
        if not isinstance(opened, xr.Dataset):
            raise UnreadableDataset(
                f"{SCHEME}{name}", "it is no array; session.open() reads tables and files"
            )
        dropped = (
            [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        )
        return opened.drop_vars(dropped, errors="ignore")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether it is the address of a dataset of a federation."""
        return isinstance(filename_or_obj, str) and filename_or_obj.startswith(SCHEME)
