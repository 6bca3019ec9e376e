"""Records to JSON documents and back: one rule for plans, journals, catalogs and HTTP bodies.

Records are plain frozen dataclasses. Pydantic checks them from outside, through type adapters
that are made on first use, so that pure modules never import it.
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


def adapter(cls: Any) -> TypeAdapter[Any]:
    """The checked door of a record type (made once per process)."""
    return _adapter(cls)


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def to_document(record: Any, cls: Any = None) -> Any:
    """A JSON-ready value (dicts, lists, numbers, strings) of a record."""
    return adapter(cls or type(record)).dump_python(record, mode="json")


def to_json(record: Any, cls: Any = None) -> str:
    """The record as JSON text."""
    return adapter(cls or type(record)).dump_json(record).decode()


def from_document(cls: type[T], document: Any) -> T:
    """A record out of a document.

    Raises
    ------
    pydantic.ValidationError
        With the path of each field that is missing or of the wrong type. Fields that are not
        known here, of a newer site, are left out.
    """
    record: T = adapter(cls).validate_python(document)
    return record


def from_json(cls: type[T], text: str | bytes) -> T:
    """A record out of JSON text."""
    record: T = adapter(cls).validate_json(text)
    return record


def canonical_json(value: Any) -> str:
    """JSON text that is equal for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
