"""Naming: all that a listing of another program names is registered, each line by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dataflow.catalog.exchange import Named, named_in
from dataflow.datasets import Dataset
from dataflow.errors import CatalogError

if TYPE_CHECKING:
    from dataflow.session.session import Session


def register_all(
    session: Session,
    listing: str | Path | Mapping[str, Any],
    *,
    site: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> list[Dataset]:
    """See :meth:`.Session.register_all`."""
    found = named(listing)
    return [
        session.register(one.url, name=one.name, tags={**one.tags, **(tags or {})}, site=site)
        for one in found
    ]


def named(listing: str | Path | Mapping[str, Any]) -> list[Named]:
    """The lines of a listing: a file of this machine, or what was read of one.

    Raises
    ------
    CatalogError
        If it cannot be read, or is no listing; names that come twice included.
    """
    if isinstance(listing, Mapping):
        found = named_in(listing, "")
    else:
        path = Path(listing).absolute()
        try:
            text = path.read_text(encoding="utf-8")
            document = (
                json.loads(text) if path.suffix in (".json", ".geojson") else yaml.safe_load(text)
            )
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise CatalogError(f"{path} cannot be read: {error}") from error
        found = named_in(document, path.as_uri())
    names = [one.name for one in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CatalogError(
            f"the listing names {', '.join(twice)} twice; names are unique at a site"
        )
    return found
