"""Bodies of catalog rows to records and back: parsed once, found by SQL where SQL can."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

import structlog
from pydantic import ValidationError

from dataflow.catalog.entries import TYPES, TagSet
from dataflow.catalog.search import UserTags, matches, tag_pattern
from dataflow.catalog.snapshot import merge_tags
from dataflow.datasets import Dataset, Replica
from dataflow.documents import adapter, from_json

log = structlog.get_logger(__name__)

#: Kinds whose record names its writer; a row that names another site is left out.
_SIGNED: Mapping[str, str] = {"dataset": "site", "peer": "site", "agreement": "site"}


def parse(kind: str, body: str) -> Any:
    """The record in a body, or ``None`` if it cannot be read: from a newer version, say."""
    cls = TYPES.get(kind)
    try:
        return json.loads(body) if cls is None else from_json(cls, body)
    except (ValidationError, ValueError) as error:
        log.warning("record_unreadable", kind=kind, body=body[:200], reason=str(error)[:200])
        return None


def parse_all(kind: str, bodies: list[str]) -> list[Any]:
    """Records of many bodies, in one go where all are sound; ``None`` for what is not."""
    cls = TYPES.get(kind)
    try:
        text = f"[{','.join(bodies)}]"
        found = json.loads(text) if cls is None else adapter(list[cls]).validate_json(text)  # type: ignore[valid-type]
    except (ValidationError, ValueError):
        found = []
    if len(found) != len(bodies):
        return [parse(kind, body) for body in bodies]
    return list(found)


#: Site → epoch and last ``seq`` of its log.
Origins = Mapping[str, tuple[str, int]]


class Cache:
    """Parsed records of one kind; reads of the file only what changed since the last time.

    ``changes`` grows whenever a reading found something new.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.changes = 0
        self._seen: dict[str, tuple[str, int]] = {}
        self._records: dict[str, dict[str, Any]] = {}

    def read(self, db: sqlite3.Connection, origins: Origins) -> list[tuple[str, Any]]:
        """All records with their writers, by site and then in the order of writing."""
        self.refresh(db, origins)
        return [
            (site, record)
            for site in sorted(self._records)
            for record in self._records[site].values()
        ]

    def refresh(self, db: sqlite3.Connection, origins: Origins) -> int:
        """Read what is new by ``origins``, which is how far the file is; ``changes`` after that."""
        if origins == self._seen:
            return self.changes
        for site in self._seen.keys() - origins.keys():
            del self._seen[site], self._records[site]
            self.changes += 1
        for site, (epoch, seq) in origins.items():
            seen = self._seen.get(site, ("", 0))
            if seen != (epoch, seq):
                start = seen[1] if seen[0] == epoch else 0
                self._follow(db, site, start)
                self._seen[site] = (epoch, seq)
        return self.changes

    def _follow(self, db: sqlite3.Connection, site: str, since: int) -> None:
        known = self._records.setdefault(site, {})
        if since == 0 and known:
            known.clear()
            self.changes += 1
        query = (
            "SELECT id, body, deleted FROM record "
            "WHERE kind = ? AND site = ? AND seq > ? ORDER BY seq"
        )
        rows = db.execute(query, [self.kind, site, since]).fetchall()
        if not rows:
            return
        self.changes += 1
        alive = [(id, body) for id, body, deleted in rows if not deleted]
        for id, _, _ in rows:
            known.pop(id, None)
        signed = _SIGNED.get(self.kind)
        parsed = parse_all(self.kind, [body for _, body in alive])
        for (id, _), record in zip(alive, parsed, strict=True):
            if record is None:
                continue
            if signed is not None and getattr(record, signed) != site:
                log.warning("record_of_another", kind=self.kind, id=id, written_by=site)
                continue
            known[id] = record


def replicas_with_key(db: sqlite3.Connection, key: str) -> list[Replica]:
    """Copies of the data with this key, by the index."""
    found = db.execute(
        "SELECT body FROM record INDEXED BY replica_by_key WHERE kind = 'replica' AND deleted = 0 "
        "AND json_extract(body, '$.key') = ? ORDER BY site, seq",
        [key],
    )
    replicas = parse_all("replica", [body for (body,) in found])
    return [replica for replica in replicas if replica is not None]


def find(db: sqlite3.Connection, asked: Mapping[str, Any], limit: int | None) -> list[Dataset]:
    """Datasets that match what is asked, sorted by name, site, id."""
    where, values = _conditions(asked)
    rows = db.execute(
        "SELECT site, body FROM record INDEXED BY dataset_by_name "
        f"WHERE kind = 'dataset' AND deleted = 0{where} "
        "ORDER BY json_extract(body, '$.name'), site, id",
        values,
    )
    found: list[Dataset] = []
    while (limit is None or len(found) < limit) and (some := rows.fetchmany(500)):
        parsed = parse_all("dataset", [body for _, body in some])
        datasets = [
            dataset
            for (writer, _), dataset in zip(some, parsed, strict=True)
            if dataset is not None and dataset.site == writer
        ]
        found += _compared(db, datasets, asked)
    return found[:limit]


def _compared(
    db: sqlite3.Connection, datasets: list[Dataset], asked: Mapping[str, Any]
) -> list[Dataset]:
    keys = json.dumps([dataset.key for dataset in datasets])
    tags: Mapping[str, UserTags] = {}
    if asked.get("tags") or asked.get("text"):
        tags = merge_tags(_tag_sets(db, keys))
    copies: dict[str, set[str]] = {}
    if asked.get("site"):
        for key, site in db.execute(
            "SELECT json_extract(body, '$.key'), json_extract(body, '$.site') FROM record "
            "INDEXED BY replica_by_key WHERE kind = 'replica' AND deleted = 0 AND json_extract(body, '$.key') IN "
            "(SELECT value FROM json_each(?))",
            [keys],
        ):
            copies.setdefault(key, set()).add(site)
    nobody: UserTags = {}
    return [
        dataset
        for dataset in datasets
        if matches(
            dataset,
            user_tags=tags.get(dataset.key, nobody),
            copies_at=copies.get(dataset.key, ()),
            **asked,
        )
    ]


def _tag_sets(db: sqlite3.Connection, keys: str) -> Iterable[TagSet]:
    found = db.execute(
        "SELECT body FROM record WHERE kind = 'tags' AND deleted = 0 "
        "AND json_extract(body, '$.key') IN (SELECT value FROM json_each(?))",
        [keys],
    )
    parsed = parse_all("tags", [body for (body,) in found.fetchall()])
    return [tags for tags in parsed if tags is not None]


_HAS_TAG = (
    " AND (EXISTS (SELECT 1 FROM json_each(record.body, '$.tags') WHERE key = ? AND {value}) "
    "OR json_extract(record.body, '$.key') IN (SELECT json_extract(t.body, '$.key') "
    "FROM record t, json_each(t.body, '$.tags') AS tag "
    "WHERE t.kind = 'tags' AND t.deleted = 0 AND tag.key = ? AND {tag_value}))"
)


def _conditions(asked: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """SQL that keeps at least what matches; `matches` has the last word."""
    where, values = "", []
    if (name := asked.get("name")) is not None:
        plain = not any(sign in name for sign in "*?[")
        # SQLite's glob and Python's agree but for negated sets, which are left to Python.
        if plain or "[" not in name:
            where += f" AND json_extract(body, '$.name') {'=' if plain else 'GLOB'} ?"
            values.append(name)
    for field in ("owner", "kind"):
        if asked.get(field) is not None:
            where += f" AND json_extract(body, '$.{field}') = ?"
            values.append(asked[field])
    if (site := asked.get("site")) is not None:
        where += (
            " AND (site = ? OR json_extract(body, '$.key') IN (SELECT json_extract(r.body, '$.key') "
            "FROM record r WHERE r.kind = 'replica' AND r.deleted = 0 "
            "AND json_extract(r.body, '$.site') = ?))"
        )
        values += [site, site]
    for tag, value in tag_pattern(asked.get("tags") or {}).items():
        exact = value is not None and not any(sign in str(value) for sign in "*?[")
        condition = ("value = ?", "tag.value = ?") if exact else ("1", "1")
        where += _HAS_TAG.format(value=condition[0], tag_value=condition[1])
        values += [tag, str(value), tag, str(value)] if exact else [tag, tag]
    return where, values
