"""Every byte beside its digest: what is whole holds, and what is not is named."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from dataflow.datasets import Replica
from dataflow.errors import SiteUnreachable, StorageError
from dataflow.storage.manifest import FileEntry, digest_of
from dataflow.storage.transfer import StoreSource
from dataflow.storage.verify import chunk_of, verify


@dataclass
class Files:
    """A source: bytes by path, beside a list that was made of other bytes, maybe."""

    bodies: dict[str, bytes]
    noted: tuple[FileEntry, ...]

    async def listing(self) -> tuple[FileEntry, ...]:
        return self.noted

    async def read(self, path: str, start: int, end: int) -> bytes:
        if path not in self.bodies:
            raise StorageError(f"no {path}")
        return self.bodies[path][start:end]


def written(bodies: dict[str, bytes]) -> tuple[Files, Replica]:
    noted = tuple(
        FileEntry(path, len(body), checksum=xxhash.xxh3_128(body).hexdigest())
        for path, body in sorted(bodies.items())
    )
    copy = Replica(
        key="k",
        site="uva",
        store="s",
        url="file:///r",
        format="zarr",
        nbytes=sum(map(len, bodies.values())),
        fingerprint=f"manifest:{digest_of(noted)}",
    )
    return Files(dict(bodies), noted), copy


BODIES = st.dictionaries(st.sampled_from(["zarr.json", "v/c/0", "v/c/1", "c/2/3"]), st.binary())


@given(bodies=BODIES, part=st.integers(1, 7))
def test_what_was_written_holds(bodies: dict[str, bytes], part: int) -> None:
    source, copy = written(bodies)
    found = asyncio.run(verify(source, copy, part_nbytes=part))
    assert (found.files, found.nbytes) == (len(bodies), sum(map(len, bodies.values())))
    assert not found.wrong
    assert not found.bare


@given(bodies=BODIES, data=st.data())
def test_one_other_byte_is_found_and_named(bodies: dict[str, bytes], data: st.DataObject) -> None:
    source, copy = written(bodies)
    full = [path for path, body in bodies.items() if body]
    if not full:
        return
    path = data.draw(st.sampled_from(sorted(full)))
    place = data.draw(st.integers(0, len(bodies[path]) - 1))
    body = bytearray(bodies[path])
    body[place] ^= data.draw(st.integers(1, 255))
    source.bodies[path] = bytes(body)
    (wrong,) = asyncio.run(verify(source, copy, part_nbytes=5)).wrong
    assert wrong.path == path
    assert "noted was" in wrong.reason


def test_what_is_short_gone_or_noted_anew() -> None:
    source, copy = written({"v/c/0": b"abc", "v/c/1": b"def"})
    source.bodies = {"v/c/0": b"a"}
    short, gone = asyncio.run(verify(source, copy)).wrong
    assert str(short) == "chunk (0) of v: it ends after 1 of 3 bytes"
    assert "cannot be read" in gone.reason
    # Whoever changes the bytes and the list after them is found by the catalog's digest of the list.
    source, _ = written({"v/c/0": b"xyz", "v/c/1": b"def"})
    (wrong,) = asyncio.run(verify(source, copy)).wrong
    assert str(wrong) == "the list of files: it is not the one that the catalog knows"


@pytest.mark.parametrize("part", [1, 2, 3, 7])
def test_what_has_grown_does_not_hold(part: int) -> None:
    source, copy = written({"v/c/0": b"abc", "v/c/1": b""})
    source.bodies = {"v/c/0": b"abcd", "v/c/1": b"e"}
    found = asyncio.run(verify(source, copy, part_nbytes=part)).wrong
    assert [str(one) for one in found] == [
        "chunk (0) of v: it goes on after 3 bytes",
        "chunk (1) of v: it goes on after 0 bytes",
    ]


def test_a_store_has_no_more_than_the_list_says(tmp_path: Path) -> None:
    noted, copy = written({"v/c/0": b"abc", "v/c/1": b"", "v/c/2": b"ghi"})
    for path, body in noted.bodies.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(body)
    manifest: Any = SimpleNamespace(files=noted.noted)
    source = StoreSource(replica=replace(copy, url=tmp_path.as_uri()), manifest=manifest)
    assert not asyncio.run(verify(source, copy)).wrong
    (tmp_path / "v/c/1").write_bytes(b"def")
    (tmp_path / "v/c/2").write_bytes(b"GHIJ")
    (tmp_path / "v/c/3").write_bytes(b"")
    found = asyncio.run(verify(source, copy)).wrong
    said = {one.path: one.reason for one in found}
    assert len(said) == len(found) == 3
    assert said["v/c/1"] == "it goes on after 0 bytes"
    assert "noted was" in said["v/c/2"]
    assert said["v/c/3"] == "it is not in the list of files"


def test_registered_data_have_no_digests() -> None:
    source, copy = written({"run.h5": b"abc"})
    source.noted = (FileEntry("run.h5", 3),)
    found = asyncio.run(verify(source, replace(copy, fingerprint="size+time")))
    assert (found.files, found.bare, found.wrong) == (0, ("run.h5",), ())


def test_a_site_that_is_away_is_no_difference() -> None:
    class Away(Files):
        async def read(self, path: str, start: int, end: int) -> bytes:
            raise SiteUnreachable("uva", "no route")

    source, copy = written({"a": b"abc"})
    with pytest.raises(SiteUnreachable):
        asyncio.run(verify(Away(source.bodies, source.noted), copy))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("v/c/0/12", "chunk (0, 12) of v"),
        ("group/v/c/3", "chunk (3) of group/v"),
        ("c/1", "chunk (1)"),
        ("v/c", "the one chunk of v"),
        ("v/zarr.json", "v/zarr.json"),
        ("table.parquet", "table.parquet"),
    ],
)
def test_chunks_are_named(path: str, said: str) -> None:
    assert chunk_of(path) == said
