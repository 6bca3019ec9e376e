"""What another site sends as one of its replicas is looked at before it is written or believed."""

from __future__ import annotations

import asyncio
import io
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from dataflow.datasets import Replica
from dataflow.errors import CorruptResult, UnreadableDataset
from dataflow.execution.events import Errand
from dataflow.session.reading import SMALL_ARRAY, _small, unpacked

REPLICA = Replica(
    key="k", site="two", store="data", url="file:///data/a.zarr", format="zarr", nbytes=8
)


def packed(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return body.getvalue()


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a//b", "a/./b", "a\\b", "a/"])
def test_a_path_that_leaves_the_replica(path: str) -> None:
    with pytest.raises(UnreadableDataset, match="two lists"):
        unpacked(REPLICA, packed({path: b"1"}))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_nothing_large_comes_as_small(compression: int) -> None:
    with pytest.raises(UnreadableDataset, match="more than it has said"):
        unpacked(REPLICA, packed({"c": bytes(3 * SMALL_ARRAY)}, compression))


def test_what_is_no_archive() -> None:
    whole = packed({"zarr.json": b"{}", "data/c/0": b"12345678"})
    changed = whole.replace(b"12345678", b"12345679")
    for body in (b"", b"hello", whole[:-30], changed):
        with pytest.raises(UnreadableDataset, match="what two sends"):
            unpacked(REPLICA, body)


def test_ordinary_files() -> None:
    files = {"zarr.json": b"{}", "data/c/0": b"12345678"}
    assert unpacked(REPLICA, packed(files)) == files


def test_a_small_table_comes_in_one_piece(tmp_path: Path) -> None:
    frame = pd.DataFrame({"name": ["a", "b", None], "value": [1, 2, 3]})
    frame.to_parquet(tmp_path / "part-000000.parquet", write_page_checksum=True)
    body = (tmp_path / "part-000000.parquet").read_bytes()
    asked = []

    class Agent:
        async def archive(self, replica: str, **_: Any) -> bytes:
            asked.append(replica)
            return packed({"part-000000.parquet": body})

    there: Any = SimpleNamespace(
        ways=SimpleNamespace(to=lambda site: Agent()),
        opened=SimpleNamespace(server=lambda replica: replica.site),
        cache=tmp_path / "cache",
    )
    replica = replace(REPLICA, format="parquet", url="file:///data/table")
    dataset: Any = SimpleNamespace(kind="table")
    found = asyncio.run(_small(there, dataset, replica, Errand(), bear=False))
    pd.testing.assert_frame_equal(found, frame)
    assert len(asked) == 1
    assert not list((tmp_path / "cache").iterdir())
    body = body.replace(b"\x02", b"\x07")
    with pytest.raises(CorruptResult, match="what two sends"):
        asyncio.run(_small(there, dataset, replica, Errand(), bear=False))
