"""Serving and copying: what may be read, and what a broken source does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.datasets import Extent, Replica
from dataflow.errors import TransferFailed, UnreadableDataset
from dataflow.storage.manifest import FileEntry
from dataflow.storage.results import find_result, verify_result
from dataflow.storage.transfer import StoreSource, copy, listing_of, read_range


@pytest.fixture
def replica(tmp_path: Path) -> Replica:
    inside = tmp_path / "data"
    (inside / "sub").mkdir(parents=True)
    (inside / "a.bin").write_bytes(b"0123456789")
    (inside / "sub" / "b.bin").write_bytes(b"x")
    (tmp_path / "secret.txt").write_text("secret")
    (inside / "out").symlink_to(tmp_path / "secret.txt")
    (inside / "up").symlink_to(tmp_path)
    (inside / "in").symlink_to(inside / "a.bin")
    return Replica(key="k", site="s", store="s", url=inside.as_uri(), format="files", nbytes=11)


@given(st.integers(0, 12), st.integers(0, 12))
def test_ranges(tmp_path_factory: pytest.TempPathFactory, start: int, end: int) -> None:
    path = tmp_path_factory.getbasetemp() / "ten.bin"
    path.write_bytes(b"0123456789")
    ten = Replica(key="k", site="s", store="s", url=path.as_uri(), format="npy", nbytes=10)
    if start == end or start < end <= 10:
        assert read_range(ten, "ten.bin", start, end) == b"0123456789"[start:end]
    else:
        with pytest.raises(UnreadableDataset):
            read_range(ten, "ten.bin", start, end)


def test_inside(replica: Replica) -> None:
    assert read_range(replica, "sub/b.bin", 0, 1) == b"x"
    assert read_range(replica, "in", 0, 3) == b"012"


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "sub/../../secret.txt",
        "./a.bin",
        "sub//b.bin",
        "/etc/passwd",
        "",
        "out",
        "up/secret.txt",
        "sub",
        "a.bin\0",
        "..\\secret.txt",
        "none",
    ],
)
def test_nothing_outside_is_served(replica: Replica, path: str) -> None:
    with pytest.raises(UnreadableDataset):
        read_range(replica, path, 0, 1)


def test_single_file_serves_no_neighbours(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"a")
    (tmp_path / "b.npy").write_bytes(b"b")
    one = Replica(
        key="k", site="s", store="s", url=(tmp_path / "a.npy").as_uri(), format="npy", nbytes=1
    )
    assert listing_of(one) == (FileEntry("a.npy", 1),)
    assert read_range(one, "a.npy", 0, 1) == b"a"
    with pytest.raises(UnreadableDataset):
        read_range(one, "b.npy", 0, 1)


def test_listing_of_nothing(tmp_path: Path) -> None:
    none = Replica(
        key="k", site="s", store="s", url=(tmp_path / "no").as_uri(), format="npy", nbytes=1
    )
    with pytest.raises(UnreadableDataset):
        listing_of(none)


class Bodies:
    """A source in memory; records what was read at a time."""

    def __init__(self, bodies: dict[str, bytes], checksums: bool = True) -> None:
        self.bodies, self.checksums = bodies, checksums
        self.running = self.most = 0
        self.reads: list[tuple[str, int, int]] = []

    async def listing(self) -> Sequence[FileEntry]:
        return [
            FileEntry(
                path,
                len(body),
                None,
                xxhash.xxh3_128_hexdigest(body) if self.checksums else None,
            )
            for path, body in self.bodies.items()
        ]

    async def read(self, path: str, start: int, end: int) -> bytes:
        self.running += 1
        self.most = max(self.most, self.running)
        self.reads.append((path, start, end))
        await asyncio.sleep(0.001)
        self.running -= 1
        return self.bodies[path][start:end]


def bring(source: Any, root: Path, **more: Any) -> Any:
    return asyncio.run(
        copy(
            source,
            root=root.as_uri(),
            key="k",
            attempt=more.pop("attempt", "a"),
            provenance={},
            kind="files",
            format="files",
            extent=Extent(nbytes=0),
            **more,
        )
    )


@settings(max_examples=30)
@given(
    sizes=st.lists(st.integers(0, 300), min_size=1, max_size=6),
    part=st.integers(1, 120),
    concurrency=st.integers(1, 5),
    checksums=st.booleans(),
)
def test_every_byte_once(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    part: int,
    concurrency: int,
    checksums: bool,
) -> None:
    root = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(5)
    bodies = {f"d{n % 2}/f{n}": rng.bytes(size) for n, size in enumerate(sizes)}
    source, counted = Bodies(bodies, checksums), []
    manifest = bring(
        source, root, part_nbytes=part, concurrency=concurrency, on_bytes=counted.append
    )
    assert sum(counted) == sum(sizes) == manifest.nbytes
    assert source.most <= concurrency
    assert len(set(source.reads)) == len(source.reads)
    verify_result(manifest, deep=True)
    place = root / "copies" / "k" / "k" / "a"
    found = {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}
    assert found == bodies


class Lying(Bodies):
    def __init__(self, bodies: dict[str, bytes], lie: Any) -> None:
        super().__init__(bodies)
        self.lie = lie

    async def read(self, path: str, start: int, end: int) -> bytes:
        body: bytes = self.lie(await super().read(path, start, end))
        return body


@pytest.mark.parametrize("size", [50, 500])
@pytest.mark.parametrize(
    "lie",
    [lambda b: b[:-1], lambda b: b + b"x", lambda b: b"", lambda b: bytes([b[0] ^ 1]) + b[1:]],
    ids=["short", "long", "empty", "flipped"],
)
def test_bytes_that_are_not_those_promised(tmp_path: Path, lie: Any, size: int) -> None:
    root = tmp_path / "store"
    with pytest.raises(TransferFailed):
        bring(Lying({"f": bytes(range(50)) * (size // 50)}, lie), root, part_nbytes=100)
    assert find_result(root.as_uri(), "k", area="copies") is None
    good = bring(Bodies({"f": bytes(range(50)) * (size // 50)}), root, part_nbytes=100)
    verify_result(good, deep=True)


def test_continues_where_it_stopped(tmp_path: Path) -> None:
    bodies = {f"f{n}": bytes([n]) * 100 for n in range(10)} | {"large": bytes(range(250)) * 8}
    source = Bodies(bodies)
    reads = 0

    async def breaking(path: str, start: int, end: int) -> bytes:
        nonlocal reads
        reads += 1
        if reads % 4 == 0:
            raise ConnectionError("cut off")
        return await Bodies.read(source, path, start, end)

    source.read = breaking  # type: ignore[method-assign]
    counted: list[int] = []
    failures = 0
    manifest = None
    while manifest is None and failures < 20:
        try:
            manifest = bring(
                source,
                tmp_path / "store",
                part_nbytes=200,
                concurrency=1,
                on_bytes=counted.append,
            )
        except TransferFailed:
            failures += 1
    assert manifest is not None
    assert failures > 2
    assert sum(counted) == manifest.nbytes == 3000
    verify_result(manifest, deep=True)


def test_staged_part_that_changed_is_fetched_again(tmp_path: Path) -> None:
    source = Bodies({"f": bytes(range(200))})
    root = tmp_path / "store"

    async def cut_off(path: str, start: int, end: int) -> bytes:
        if start >= 100:
            raise ConnectionError("cut off")
        return await Bodies.read(source, path, start, end)

    source.read = cut_off  # type: ignore[method-assign]
    with pytest.raises(TransferFailed):
        bring(source, root, part_nbytes=50, concurrency=1)
    (staged,) = (root / "copies").rglob("whole")
    staged.write_bytes(b"z" * 50 + staged.read_bytes()[50:])
    del source.read  # type: ignore[method-assign]
    with pytest.raises(TransferFailed, match="have changed"):
        bring(source, root, part_nbytes=50, concurrency=1)
    manifest = bring(source, root, part_nbytes=50, concurrency=1)
    verify_result(manifest, deep=True)


def test_a_name_that_a_store_writes_otherwise(tmp_path: Path) -> None:
    """Parts of such a file wait as files of their own; what is there in the end is the same."""
    bodies = {"a#1%20 é": bytes(range(200)), "plain": bytes(range(200))}
    source = Bodies(bodies)

    async def cut_off(path: str, start: int, end: int) -> bytes:
        if start >= 100:
            raise ConnectionError("cut off")
        return await Bodies.read(source, path, start, end)

    source.read = cut_off  # type: ignore[method-assign]
    with pytest.raises(TransferFailed, match="cut off"):
        bring(source, tmp_path / "store", part_nbytes=50, concurrency=4)
    del source.read  # type: ignore[method-assign]
    manifest = bring(source, tmp_path / "store", part_nbytes=50, concurrency=4)
    verify_result(manifest, deep=True)
    assert {file.path: file.size for file in manifest.files} == dict.fromkeys(bodies, 200)


@pytest.mark.parametrize("path", ["../f", "a/../../f", "/f", "a//f", ".parts/f/whole"])
def test_nothing_is_written_outside(tmp_path: Path, path: str) -> None:
    with contextlib.suppress(TransferFailed):
        bring(Bodies({path: bytes(200)}), tmp_path / "store", part_nbytes=50)
    place = tmp_path / "store" / "copies" / "k" / "k"
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert all(file.is_relative_to(place) for file in files), files


def test_cancelled_copy_publishes_nothing(tmp_path: Path) -> None:
    source = Bodies({"f": bytes(10_000)})

    async def scenario() -> None:
        task = asyncio.ensure_future(
            copy(
                source,
                root=(tmp_path / "store").as_uri(),
                key="k",
                attempt="a",
                provenance={},
                kind="files",
                format="files",
                extent=Extent(nbytes=0),
                part_nbytes=10,
                concurrency=1,
            )
        )
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert find_result((tmp_path / "store").as_uri(), "k", area="copies") is None


def test_source_does_not_show_its_secrets(replica: Replica) -> None:
    source = StoreSource(replica=replica, credentials={"secret_access_key": "s3cr3t"})
    assert "s3cr3t" not in repr(source)


def test_empty_source(tmp_path: Path) -> None:
    manifest = bring(Bodies({"empty": b""}), tmp_path / "store")
    assert [(f.path, f.size) for f in manifest.files] == [("empty", 0)]
