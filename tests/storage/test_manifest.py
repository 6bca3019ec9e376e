"""The manifest on its way to the store and back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.datasets import Dataset, Extent, Variable
from dataflow.errors import CorruptResult
from dataflow.storage.manifest import (
    FileEntry,
    Manifest,
    dataset_of,
    from_bytes,
    opened_url,
    replica_of,
    to_bytes,
)

words = st.text("abcdefghij-_.0123", min_size=1, max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
variables = st.builds(
    Variable,
    name=st.text(min_size=1),
    dims=st.lists(words, max_size=3).map(tuple),
    shape=st.lists(st.integers(-1, 10**9), max_size=3).map(tuple),
    dtype=words,
    nbytes=st.integers(0, 2**60),
    chunks=st.none() | st.lists(st.integers(1, 100), max_size=3).map(tuple),
)
files = st.builds(
    FileEntry,
    path=st.text(min_size=1),
    size=st.integers(0, 2**60),
    etag=st.none() | st.text(),
    checksum=st.none() | words,
)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    entries = tuple(draw(st.lists(files, max_size=5)))
    key, attempt = draw(words), draw(words)
    format = draw(st.sampled_from(["zarr", "parquet", "files", "csv", "hdf5"]))
    prefix = f"s3://bucket/results/{key}/{attempt}"
    return Manifest(
        key=key,
        attempt=attempt,
        kind=draw(st.sampled_from(["array", "dataset", "table", "files"])),
        format=format,
        files=entries,
        nbytes=draw(st.integers(0, 2**60)),
        extent=Extent(nbytes=3, variables=tuple(draw(st.lists(variables, max_size=3)))),
        provenance=draw(st.dictionaries(st.text(), json_values, max_size=3)),
        variable=draw(st.none() | words),
        prefix=prefix,
        url=opened_url(prefix, format, entries),
    )


@given(manifests())
def test_round_trip(manifest: Manifest) -> None:
    assert from_bytes(to_bytes(manifest), f"s3://bucket/results/{manifest.key}") == manifest


@given(manifests())
def test_moves_with_its_store(manifest: Manifest) -> None:
    moved = from_bytes(to_bytes(manifest), f"file:///other/results/{manifest.key}")
    assert moved.prefix == f"file:///other/results/{manifest.key}/{manifest.attempt}"
    assert replace(moved, url=manifest.url, prefix=manifest.prefix) == manifest


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"\xff", b'{"version": 1}', b'{"version": 99}']
)
def test_anything_else_is_corrupt(body: bytes) -> None:
    with pytest.raises(CorruptResult):
        from_bytes(body, "file:///x")


def test_later_version_says_so() -> None:
    with pytest.raises(CorruptResult, match="newer"):
        from_bytes(json.dumps({"version": 2}).encode(), "file:///x")


def test_records() -> None:
    manifest = Manifest(
        key="k",
        attempt="a",
        kind="array",
        format="zarr",
        files=(FileEntry("x", 3, None, "aa"),),
        nbytes=3,
        extent=Extent(nbytes=8),
        prefix="file:///r/a",
        url="file:///r/a",
    )
    replica = replica_of(manifest, "here", "main", created=5.0)
    assert (replica.key, replica.site, replica.store, replica.nbytes) == ("k", "here", "main", 3)
    changed = replace(manifest, files=(FileEntry("x", 3, None, "ab"),))
    assert replica_of(changed, "here", "main").fingerprint != replica.fingerprint
    dataset = dataset_of(manifest, id="1", name="n", site="here", tags={"a": "b"})
    assert isinstance(dataset, Dataset)
    assert dataset.extent == manifest.extent
    assert "1 files" in repr(manifest)
