"""Listings of other programs: ours is one by the word of pystac, theirs are read, and secrets go neither way."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.catalog.exchange import Named, named_in, plain_url, stac_items
from dataflow.catalog.listing import Listing
from dataflow.catalog.snapshot import Snapshot
from dataflow.datasets import Dataset, Extent, Replica, Variable
from dataflow.errors import CatalogError

BASE = "file:///srv/data/catalog.yaml"
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="="), min_size=1, max_size=8)


def dataset(**other: Any) -> Dataset:
    variable = Variable(name="v", dims=("t",), shape=(500,), dtype="float32", nbytes=2000)
    known: dict[str, Any] = {
        "id": "d1",
        "name": "run1",
        "key": "k1",
        "kind": "array",
        "extent": Extent(nbytes=2000, variables=(variable,)),
        "site": "amc",
        "owner": "ann",
        "tags": {"system": "adk"},
        "created": 1.6e9,
    }
    return Dataset(**{**known, **other})


def snapshot(one: Dataset) -> Snapshot:
    urls = {"amc": "s3://ann:secret@bucket/run1.zarr?token=secret", "uva": "file:///data/run1.zarr"}
    copies = tuple(
        Replica(key=one.key, site=site, store="s", url=url, format="zarr", nbytes=2000)
        for site, url in urls.items()
    )
    return Snapshot(datasets=(one,), replicas={one.key: copies})


def test_others_take_our_items() -> None:
    pystac = pytest.importorskip("pystac", reason="pystac is not installed")
    one = dataset()
    found = Listing([one], snapshot(one)).stac()
    assert json.loads(json.dumps(found)) == found
    (item,) = pystac.ItemCollection.from_dict(found).items
    item.validate()
    assert (item.id, item.properties["title"]) == ("d1", "run1")
    assert item.datetime.year == 2020
    assert {asset.href for asset in item.assets.values()} == {
        "s3://bucket/run1.zarr",
        "file:///data/run1.zarr",
    }
    assert "secret" not in json.dumps(found)


@given(
    name=WORDS, tags=st.dictionaries(WORDS, WORDS, max_size=3), created=st.floats(0, 4e9, width=32)
)
def test_there_and_back(name: str, tags: dict[str, str], created: float) -> None:
    one = dataset(name=name, tags=tags, created=created)
    (back,) = named_in(stac_items([one], snapshot(one)), BASE)
    assert (back.name, back.url) == (name, "s3://bucket/run1.zarr")
    assert {key: value for key, value in back.tags.items() if key != "datetime"} == {
        key: value for key, value in tags.items() if key != "datetime"
    }


def test_items_of_others() -> None:
    item = {
        "type": "Feature",
        "id": "S2",
        "collection": "sentinel",
        "properties": {"datetime": "2020-01-01T00:00:00Z"},
        "assets": {
            "B01": {"href": "./b01.zarr", "roles": ["data"]},
            "B02": {"href": "s3://eo/b02.zarr"},
            "small": {"href": "small.png", "roles": ["thumbnail"]},
        },
    }
    found = named_in({"type": "FeatureCollection", "features": [item]}, BASE)
    tags = {"collection": "sentinel", "datetime": "2020-01-01T00:00:00Z"}
    assert found == [
        Named(name="S2-B01", url="file:///srv/data/b01.zarr", tags=tags),
        Named(name="S2-B02", url="s3://eo/b02.zarr", tags=tags),
    ]


def test_sources_of_intake() -> None:
    sources = {
        "sea": {
            "driver": "zarr",
            "args": {"urlpath": "{{ CATALOG_DIR }}/sea.zarr"},
            "metadata": {"year": 2020, "plots": {}},
        },
        "air": {"driver": "netcdf", "args": {"urlpath": "../air.nc"}},
        "far": {"args": {"url": "https://data.test/far.csv"}},
    }
    assert named_in({"sources": sources}, BASE) == [
        Named(name="sea", url="file:///srv/data/sea.zarr", tags={"year": "2020", "driver": "zarr"}),
        Named(name="air", url="file:///srv/air.nc", tags={"driver": "netcdf"}),
        Named(name="far", url="https://data.test/far.csv"),
    ]


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {"type": "Catalog", "links": []},
        {"type": "Feature", "id": "a", "properties": {}, "assets": {}},
        {"sources": {"a": {"args": {"urlpath": ["a.nc", "b.nc"]}}}},
        {"sources": {"a": {"args": {"urlpath": "{{ env(HOME) }}/a.nc"}}}},
        {"sources": {"a": {"args": {"urlpath": "s3://b/*.nc"}}}},
        {"sources": {"a": None}},
        {"sources": {"a": {"args": ["a.nc"]}}},
        {"sources": {"a": {"args": {"urlpath": "a.nc"}, "metadata": ["b"]}}},
        {"type": "Feature", "id": "a", "properties": {}, "assets": []},
        {"type": "Feature", "id": "a", "properties": {}, "assets": {"x": {}}},
        {"type": "Feature", "id": "a", "properties": {}, "assets": {"x": "a.nc"}},
        {"type": "Feature", "id": "a", "properties": {}, "assets": {"x": {"href": ["a.nc"]}}},
        {"type": "Feature", "id": "a", "properties": ["b"], "assets": {"x": {"href": "a.nc"}}},
        {"type": "Feature", "id": "a", "links": ["b"], "assets": {"x": {"href": "a.nc"}}},
        {"type": "Feature", "id": "a", "assets": {"x": {"href": "https://[a/b.nc"}}},
        {"type": "Feature", "id": "a", "assets": {"x": {"href": "a.nc", "roles": 1}}},
        {"features": [1]},
    ],
)
def test_what_is_no_listing_is_refused(document: Any) -> None:
    with pytest.raises(CatalogError):
        named_in(document, BASE)


@pytest.mark.parametrize(
    "url",
    ["https://data.test/a.nc?sig=secret", "https://ann:secret@data.test/a.nc", "a.nc?t=secret"],
)
def test_secrets_of_others_are_refused_and_not_said(url: str) -> None:
    item = {"type": "Feature", "id": "S2", "assets": {"B01": {"href": url}}}
    for document, name in (
        (item, "S2"),
        ({"sources": {"sea": {"args": {"urlpath": url}}}}, "sea"),
    ):
        with pytest.raises(CatalogError, match="declare a store") as refused:
            named_in(document, BASE)
        assert name in str(refused.value)
        assert "secret@" not in str(refused.value)
        assert "=secret" not in str(refused.value)


def test_what_counts_from_nowhere() -> None:
    item: dict[str, Any] = {"type": "Feature", "id": "S2", "assets": {"B01": {"href": "x.csv"}}}
    with pytest.raises(CatalogError, match="from where it counts"):
        named_in(item, "")
    linked = {**item, "links": [{"rel": "self", "href": "https://data.test/s2/item.json"}]}
    assert [one.url for one in named_in(linked, "")] == ["https://data.test/s2/x.csv"]
    whole = {**item, "assets": {"B01": {"href": "/srv/x.csv"}}}
    assert [one.url for one in named_in(whole, "")] == ["/srv/x.csv"]


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        ("https://anna:secret@data.test:8443/a?token=secret#x", "https://data.test:8443/a"),
        ("file:///data/run%201.h5", "file:///data/run%201.h5"),
        ("sftp://anna@login.test/srv", "sftp://login.test/srv"),
    ],
)
def test_urls_lose_what_may_be_secret(url: str, plain: str) -> None:
    assert plain_url(url) == plain
