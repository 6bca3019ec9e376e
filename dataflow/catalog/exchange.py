"""Exchange: listings of other programs. Datasets as STAC items, and back; sources of an intake catalog. Pure.

A STAC item (https://stacspec.org) says what data are and where their copies lie, in JSON that many
programs read. Ours have no place on Earth, so their geometry is null; what STAC has no word for
stands under ``dataflow:``. Neither way carries credentials.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from posixpath import normpath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from dataflow.catalog.snapshot import Snapshot
from dataflow.datasets import Dataset
from dataflow.errors import CatalogError

STAC_VERSION = "1.1.0"
_MEDIA = {
    "zarr": "application/vnd.zarr",
    "hdf5": "application/x-hdf5",
    "netcdf": "application/netcdf",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}
#: Roles of assets that are no data.
_BESIDE = {"thumbnail", "overview", "metadata"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """One line of somebody's listing: a name, an address, and words."""

    name: str
    url: str
    tags: Mapping[str, str] = field(default_factory=dict)


def plain_url(url: str) -> str:
    """A URL without user, password, query and fragment: where those are, secrets may be."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def stac_items(datasets: Iterable[Dataset], snapshot: Snapshot) -> dict[str, Any]:
    """A STAC item collection: an item for each dataset, an asset for each copy."""
    features = [_item(dataset, snapshot) for dataset in datasets]
    return {"type": "FeatureCollection", "features": features}


def _item(dataset: Dataset, snapshot: Snapshot) -> dict[str, Any]:
    extent = dataset.extent
    moment = datetime.fromtimestamp(dataset.created, UTC).isoformat().replace("+00:00", "Z")
    own = {
        "key": dataset.key,
        "kind": dataset.kind,
        "site": dataset.site,
        "owner": dataset.owner,
        "nbytes": extent.nbytes,
        "shape": list(extent.shape) if extent.shape is not None else None,
        "dims": list(extent.dims) if extent.dims is not None else None,
        "dtype": extent.dtype,
    }
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [],
        "id": dataset.id,
        "geometry": None,
        "properties": {
            "datetime": moment,
            "title": dataset.name,
            "keywords": [f"{name}={value}" for name, value in sorted(dataset.tags.items())],
            **{f"dataflow:{name}": value for name, value in own.items() if value not in ("", None)},
        },
        "links": [],
        "assets": {
            f"{copy.site}/{copy.store or number}": {
                "href": plain_url(copy.url),
                "title": f"copy at {copy.site}",
                "roles": ["data"],
                **({"type": _MEDIA[copy.format]} if copy.format in _MEDIA else {}),
                "dataflow:format": copy.format,
                "dataflow:nbytes": copy.nbytes,
                **({"dataflow:variable": copy.variable} if copy.variable else {}),
            }
            for number, copy in enumerate(snapshot.replicas_of(dataset.key))
        },
    }


def named_in(document: Any, base: str) -> list[Named]:
    """What a listing names: STAC items and collections of them, or an intake catalog.

    Parameters
    ----------
    document
        As JSON or YAML gives it.
    base
        URL of the listing; what is written relative to it counts from there.

    Raises
    ------
    CatalogError
        If it is no listing that we know, or an entry cannot be understood.
    """
    if isinstance(document, Mapping):
        if document.get("type") == "Feature" and "assets" in document:
            return list(_of_item(document, base))
        if isinstance(document.get("features"), list):
            return [one for item in document["features"] for one in named_in(item, base)]
        if isinstance(document.get("sources"), Mapping):
            return [_of_intake(str(n), one, base) for n, one in document["sources"].items()]
    raise CatalogError(
        f"{base} is no listing. What you can do: give a STAC item, a STAC item collection, or an intake "
        "catalog with sources; of a STAC catalog with links, its items"
    )


def _of_item(item: Mapping[str, Any], base: str) -> Iterator[Named]:
    what = f"{base}: item {item.get('id')!r}"
    about = _mapping(item.get("properties"), f"{what}, properties")
    name = str(about.get("title") or item.get("id") or "")
    links = [_mapping(one, f"{what}, link") for one in _list(item.get("links"), f"{what}, links")]
    own = next((str(one.get("href")) for one in links if one.get("rel") == "self"), base)
    if "://" not in own and not own.startswith("/"):
        own = base
    data: dict[str, Any] = {}
    for asset_name, asset in _mapping(item["assets"], f"{what}, assets").items():
        roles = _list(_mapping(asset, f"{what}, asset").get("roles"), f"{what}, roles")
        if not any(role in _BESIDE for role in map(str, roles)):
            data[asset_name] = asset
    if not name or not data:
        raise CatalogError(f"{what} has no name, or no data")
    words = [str(one).partition("=") for one in _list(about.get("keywords"), f"{what}, keywords")]
    tags = {key: value for key, mark, value in words if mark}
    if item.get("collection"):
        tags["collection"] = str(item["collection"])
    if about.get("datetime"):
        tags.setdefault("datetime", str(about["datetime"]))
    copies = "dataflow:key" in about  # ours: assets are copies of one thing, and one is enough
    for asset_name, asset in list(data.items())[: 1 if copies else None]:
        alone = copies or len(data) == 1
        yield Named(
            name=name if alone else f"{name}-{asset_name}",
            url=_joined(own, _href(asset, f"{what}, asset {asset_name!r}"), what),
            tags=tags,
        )


def _of_intake(name: str, source: Any, base: str) -> Named:
    what = f"{base}: source {name!r}"
    source = _mapping(source, what)
    arguments = _mapping(source.get("args"), f"{what}, args")
    url = next(
        (arguments[word] for word in ("urlpath", "url", "path", "store") if arguments.get(word)),
        None,
    )
    if not isinstance(url, str):
        raise CatalogError(f"{what} has no single address; name one file or group")
    folder = base.rpartition("/")[0]
    url = re.sub(r"\{\{\s*CATALOG_DIR\s*\}\}", folder, url)
    if "{{" in url or "*" in url:
        raise CatalogError(
            f"{what} has the address {url!r}. What you can do: write it out; templates "
            "and patterns are not followed"
        )
    tags = {
        str(key): str(value)
        for key, value in _mapping(source.get("metadata"), f"{what}, metadata").items()
        if isinstance(value, str | int | float)
    }
    if source.get("driver"):
        tags.setdefault("driver", str(source["driver"]))
    return Named(name=name, url=_joined(base, url, what), tags=tags)


def _joined(base: str, url: str, what: str) -> str:
    """An address that counts from a listing; ``urljoin`` knows only the schemes of the web."""
    try:
        if "://" not in url:
            if not base and not url.startswith("/"):
                raise CatalogError(
                    f"{what} has the address {url!r}, and nobody knows from where it counts\n"
                    "What you can do: give the listing as a file, or whole addresses"
                )
            parts = urlsplit(base)
            below = url if url.startswith("/") else f"{parts.path.rpartition('/')[0]}/{url}"
            url = urlunsplit((parts.scheme, parts.netloc, normpath(below), "", ""))
        parts = urlsplit(url)
    except ValueError as error:
        raise CatalogError(f"{what} has an address that is none: {error}") from error
    if (
        parts.query or "@" in parts.netloc
    ):  # every site reads the catalog; so the address is not said
        raise CatalogError(
            f"{what} has an address with a user or a query, which may be secret, and every site would "
            "read it in the catalog\n"
            "What you can do: declare a store and the name of a credential, and list the plain address"
        )
    return url


def _href(asset: Mapping[str, Any], what: str) -> str:
    href = asset.get("href")
    if not isinstance(href, str) or not href:
        raise CatalogError(f"{what} has no href")
    return href


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise CatalogError(f"{what}: a mapping is needed, this is a {type(value).__name__}")
    return value or {}


def _list(value: Any, what: str) -> Sequence[Any]:
    if value is not None and not isinstance(value, list | tuple):
        raise CatalogError(f"{what}: a list is needed, this is a {type(value).__name__}")
    return value or ()
