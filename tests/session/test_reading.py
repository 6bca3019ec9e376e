"""What another site says about its files is not believed further than it must be."""

from __future__ import annotations

import pytest

from dataflow.datasets import Replica
from dataflow.errors import UnreadableDataset
from dataflow.session.reading import SMALL_ARRAY, _must_be_inside
from dataflow.storage.manifest import FileEntry

REPLICA = Replica(key="k", site="elsewhere", store="r", url="x:k", format="zarr", nbytes=8)


@pytest.mark.parametrize(
    "path", ["../x", "a/../../x", "/etc/passwd", "a//b", "", ".", "a\\b", "a\0b", "a/.."]
)
def test_no_path_leads_out(path: str) -> None:
    with pytest.raises(UnreadableDataset, match="elsewhere lists"):
        _must_be_inside(REPLICA, [FileEntry(path, 1)])


def test_nothing_large_comes_as_small() -> None:
    with pytest.raises(UnreadableDataset, match="more bytes"):
        _must_be_inside(REPLICA, [FileEntry("c", 3 * SMALL_ARRAY)])


def test_what_is_in_order() -> None:
    _must_be_inside(REPLICA, [FileEntry("zarr.json", 10), FileEntry("data/c/0", 1000)])
