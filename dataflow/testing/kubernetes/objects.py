"""What an API server keeps: objects with versions, found by labels, watched, and collected.

Used from one event loop only.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import re
import secrets
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]
Key = tuple[str, str, str]

#: Kinds that are kept, by the word in their address, with their group, version and kind.
KINDS: Mapping[str, tuple[str, str, str]] = {
    "pods": ("", "v1", "Pod"),
    "secrets": ("", "v1", "Secret"),
    "events": ("", "v1", "Event"),
    "jobs": ("batch", "v1", "Job"),
}
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\Z")


class Refused(Exception):
    """An answer that is no: code, reason and message as Kubernetes has them."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(code, reason, message)
        self.code, self.reason, self.message = code, reason, message

    def document(self) -> Object:
        """The ``Status`` that is answered."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }


def now() -> str:
    """The present time, as Kubernetes writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Objects:
    """All objects, and what has happened to them."""

    def __init__(self) -> None:
        self._version = 1000
        self._items: dict[Key, Object] = {}
        self._log: list[tuple[int, str, str, str, Object]] = []
        self._oldest = 0
        self._news = asyncio.Event()

    @property
    def version(self) -> str:
        """Version of the whole."""
        return str(self._version)

    def create(self, kind: str, namespace: str, given: Object) -> Object:
        """Keep a new object.

        Raises
        ------
        Refused
            If its name is taken, or none.
        """
        item = copy.deepcopy(given)
        meta = item.setdefault("metadata", {})
        if "generateName" in meta and "name" not in meta:
            meta["name"] = meta["generateName"] + secrets.token_hex(3)[:5]
        name = str(meta.get("name", ""))
        if not _NAME.match(name):
            raise Refused(422, "Invalid", f'{kind} "{name}" is invalid: metadata.name')
        if (kind, namespace, name) in self._items:
            raise Refused(409, "AlreadyExists", f'{kind} "{name}" already exists')
        group, version, word = KINDS[kind]
        item["kind"], item["apiVersion"] = word, f"{group}/{version}" if group else version
        meta |= {"namespace": namespace, "uid": str(uuid.uuid4()), "creationTimestamp": now()}
        self._items[kind, namespace, name] = item
        self._tell("ADDED", kind, item)
        return copy.deepcopy(item)

    def get(self, kind: str, namespace: str, name: str) -> Object:
        """One object.

        Raises
        ------
        Refused
            If there is none.
        """
        item = self._items.get((kind, namespace, name))
        if item is None:
            group = KINDS[kind][0]
            where = f"{kind}.{group}" if group else kind
            raise Refused(404, "NotFound", f'{where} "{name}" not found')
        return copy.deepcopy(item)

    def put(self, kind: str, item: Object) -> None:
        """Replace an object by a changed one; nothing happens if it is gone."""
        meta = item["metadata"]
        key = (kind, meta["namespace"], meta["name"])
        if key in self._items and self._items[key] != item:
            self._items[key] = copy.deepcopy(item)
            self._tell("MODIFIED", kind, self._items[key])

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """Forget an object; nothing happens if it is gone."""
        item = self._items.pop((kind, namespace, name), None)
        if item is not None:
            self._tell("DELETED", kind, item)

    def listed(self, kind: str, namespace: str, labels: str = "", fields: str = "") -> list[Object]:
        """Objects that fit both selectors, in the order of their creation."""
        return [
            copy.deepcopy(item)
            for (one, home, _), item in self._items.items()
            if one == kind and home == namespace and _fits(item, labels, fields)
        ]

    def everything(self) -> list[Key]:
        """Kind, namespace and name of each object."""
        return list(self._items)

    def orphans(self) -> Iterator[tuple[str, Object]]:
        """Objects whose owners are all gone, with their kind."""
        alive = {item["metadata"]["uid"] for item in self._items.values()}
        for (kind, _, _), item in list(self._items.items()):
            owners = item["metadata"].get("ownerReferences") or ()
            if owners and not any(owner["uid"] in alive for owner in owners):
                yield kind, copy.deepcopy(item)

    # --- watching -------------------------------------------------------------------------------

    def forget_history(self) -> None:
        """As after compaction: nobody can watch from an earlier version any more."""
        self._log.clear()
        self._oldest = self._version

    def since(
        self, version: int, kind: str, namespace: str, labels: str, fields: str
    ) -> tuple[int, list[Object]]:
        """What has happened after a version, and the version after it.

        Raises
        ------
        Refused
            If that is not known any more.
        """
        if version < self._oldest:
            raise Refused(410, "Expired", f"too old resource version: {version} ({self._oldest})")
        events = [
            {"type": change, "object": item}
            for at, change, one, home, item in self._log
            if at > version and one == kind and home == namespace and _fits(item, labels, fields)
        ]
        return self._version, events

    async def news(self, seconds: float) -> None:
        """Wait until something happens, at most so long."""
        waiting = self._news
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await waiting.wait()

    def wake(self) -> None:
        """Let everybody look who waits for news."""
        self._news.set()
        self._news = asyncio.Event()

    def _tell(self, change: str, kind: str, item: Object) -> None:
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        told = copy.deepcopy(item)
        home = item["metadata"]["namespace"]
        self._log.append((self._version, change, kind, home, told))
        self.wake()


def _fits(item: Object, labels: str, fields: str) -> bool:
    own = item["metadata"].get("labels") or {}
    by_label = all(own.get(key) == value for key, value in _pairs(labels))
    return by_label and all(_field(item, key) == value for key, value in _pairs(fields))


def _field(item: Object, path: str) -> str:
    found: Any = item
    for part in path.split("."):
        found = found.get(part, {}) if isinstance(found, dict) else {}
    return "" if found == {} else str(found)


def _pairs(selector: str) -> Sequence[tuple[str, str]]:
    """Only equalities, which is all that is asked here."""
    parts = [part.partition("=") for part in selector.split(",") if part]
    return [(key, value.removeprefix("=")) for key, _, value in parts]
