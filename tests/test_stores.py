"""Stores: which one a URL lies in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.stores import Store, opened_as, store_for


def store(url: str, name: str = "s") -> Store:
    return Store(name=name, site="ams", url=url)


@pytest.mark.parametrize("root", ["file:///a/b", "file:///a/b/", "s3://a/b", "s3://a/b/"])
def test_what_lies_in_a_store(root: str) -> None:
    made, bare = store(root), root.rstrip("/")
    for url in (bare, f"{bare}/", f"{bare}/c", f"{bare}/c/d.zarr"):
        assert made.holds(url)
    beside = (f"{bare}c", f"{bare}c/d", f"{bare}.zarr", bare[:-2], bare[:-1], "", "/a/b/c")
    for url in (*beside, f"x{bare}/c", bare.upper()):
        assert not made.holds(url)


def test_the_whole_disk_and_the_whole_bucket() -> None:
    assert store("file:///").holds("file:///a")
    assert not store("file:///").holds("s3://a")
    assert store("s3://bucket").holds("s3://bucket/x")
    assert not store("s3://bucket").holds("s3://bucket2/x")


def test_the_longest_root_wins() -> None:
    outer, inner, beside = store("file:///a", "z"), store("file:///a/b", "y"), store("file:///a/bc")
    for order in ([outer, inner, beside], [beside, inner, outer]):
        assert store_for("file:///a/b/x", order) is inner
        assert store_for("file:///a/b", order) is inner
        assert store_for("file:///a/bc/x", order) is beside
        assert store_for("file:///a/bcd", order) is outer
        assert store_for("file:///a/x", iter(order)) is outer
        assert store_for("file:///b/x", order) is None
    assert store_for("file:///a", []) is None


def test_one_root_of_two_stores() -> None:
    first, second = store("file:///a", "first"), store("file:///a", "second")
    assert store_for("file:///a/x", [first, second]) is store_for("file:///a/x", [second, first])


PATHS = st.lists(st.sampled_from(["a", "b", "bc"]), max_size=4).map(lambda parts: tuple(parts))


@given(PATHS, st.lists(PATHS, unique=True))
def test_as_paths_say(path: tuple[str, ...], roots: list[tuple[str, ...]]) -> None:
    stores = {root: store("/".join(("s3://bucket", *root))) for root in roots}
    above = [root for root in roots if path[: len(root)] == root]
    expected = stores[max(above, key=len)] if above else None
    assert store_for("/".join(("s3://bucket", *path)), stores.values()) is expected


def test_another_site_opens_a_store_by_its_name_or_by_its_service() -> None:
    home = Store(name="bucket", site="cloud", url="s3://b", options=(("endpoint", "http://a"),))
    mine = Store(name="bucket", site="cloud", url="s3://b", credentials="mine")
    elsewhere = Store(name="results", site="uva", url="s3://b/x", options=home.options)
    other = Store(name="results", site="uva", url="s3://b", options=(("endpoint", "http://z"),))
    where: dict[str, Any] = {"site": "cloud", "name": "bucket", "home": home}
    assert opened_as([mine, other], "s3://b/x/y", **where) == mine
    assert opened_as([elsewhere, mine], "s3://b/x/y", **where) == elsewhere, "the longer root"
    assert opened_as([elsewhere], "s3://b/y", **where) is None, "outside of its root"
    assert opened_as([other], "s3://b/x/y", **where) is None, "another service"
    assert opened_as([other], "s3://b/x/y", site="cloud", name="bucket") is None


def test_a_path_means_something_on_its_own_machine_only() -> None:
    home = Store(name="data", site="ams", url="file:///data")
    mine = Store(name="data", site="uva", url="file:///data")
    shared = Store(name="data", site="ams", url="file:///data")
    where: dict[str, Any] = {"site": "ams", "name": "data", "home": home}
    assert opened_as([mine], "file:///data/x", **where) is None
    assert opened_as([shared], "file:///data/x", **where) == shared, "its owner says that it is one"
