"""Documents: every record comes back from JSON as it was."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dataflow import documents
from dataflow.catalog.entries import JobSummary, Peer, RecordRow, TagSet
from dataflow.datasets import Dataset, Extent, Lineage, Replica, Variable
from dataflow.graph.operation import Operation, Step
from dataflow.graph.serialize import GraphRecord
from dataflow.placement.measurements import Measurements, Pace
from dataflow.placement.plan import Assignment, Candidate, Plan, Segment, Transfer
from dataflow.policy.check import Verdict
from dataflow.sites import Link, Site, Topology
from dataflow.stores import Store

RECORDS = (
    *(Variable, Extent, Lineage, Dataset, Replica),
    *(Site, Link, Topology, Store),
    *(Operation, Step, GraphRecord),
    *(Candidate, Assignment, Transfer, Segment, Plan),
    *(Measurements, Pace, Verdict),
    *(JobSummary, Peer, RecordRow, TagSet),
)
TEXT = st.text(max_size=3)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=3,
)
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    int: st.integers(-(2**63), 2**63),
    float: FLOATS,
    bool: st.booleans(),
    type(None): st.none(),
    Any: JSON,
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values that a field with this annotation may have."""
    if hint in PLAIN:
        return PLAIN[hint]
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        fields = {field.name: values(hints[field.name]) for field in dataclasses.fields(hint)}
        return st.builds(typing.cast(Any, hint), **fields)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, types.UnionType):
        return st.one_of([values(argument) for argument in arguments])
    if origin is tuple and arguments[-1] is ...:
        return st.lists(values(arguments[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, arguments))
    if origin is frozenset:
        return st.frozensets(values(arguments[0]), max_size=2)
    if origin is Mapping:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=2)
    raise NotImplementedError(f"say here what a {hint} may be")


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
def test_records_come_back(cls: type[Any]) -> None:
    @given(values(cls))
    def comes_back(record: Any) -> None:
        document = documents.to_document(record)
        text = json.dumps(document)
        assert documents.from_document(cls, json.loads(text)) == record
        assert documents.from_json(cls, documents.to_json(record)) == record
        assert documents.from_json(cls, text.encode()) == record
        assert set(document) == {field.name for field in dataclasses.fields(cls)}

    comes_back()


def test_types_that_are_no_records() -> None:
    sites = (Site(name="ams"), Site(name="uva", workers=3))
    document = documents.to_document(sites, tuple[Site, ...])
    assert [site["name"] for site in document] == ["ams", "uva"]
    assert documents.from_document(tuple[Site, ...], document) == sites
    text = documents.to_json(sites, tuple[Site, ...])
    assert documents.from_json(tuple[Site, ...], text) == sites


def test_what_is_wrong_is_named() -> None:
    document = {"sites": [{"name": "ams"}, {"name": "uva", "workers": "many"}]}
    with pytest.raises(ValidationError, match=r"sites\.1\.workers"):
        documents.from_document(Topology, document)
    with pytest.raises(ValidationError, match=r"name\n.*required"):
        documents.from_json(Site, "{}")
    with pytest.raises(ValidationError, match="trust"):
        documents.from_document(Site, {"name": "ams", "trust": "full"})
    with pytest.raises(ValidationError, match="Invalid JSON"):
        documents.from_json(Site, "{")


def test_fields_of_a_newer_site_are_left_out() -> None:
    found = documents.from_document(Site, {"name": "ams", "colour": "red"})
    assert found == Site(name="ams")


def test_doors_are_made_once() -> None:
    assert documents.adapter(Site) is documents.adapter(Site)


@given(st.dictionaries(TEXT, JSON), st.randoms(use_true_random=False))
def test_canonical_json(value: dict[str, Any], random: Any) -> None:
    text = documents.canonical_json(value)
    assert json.loads(text) == value
    mixed = list(value.items())
    random.shuffle(mixed)
    assert documents.canonical_json(dict(mixed)) == text
    assert text.isascii()


def test_canonical_json_is_as_it_was() -> None:
    value = {"b": [1, 1.0, True, None], "a": {"é": "x y", "": 1e-9}}
    assert documents.canonical_json(value) == (
        '{"a":{"":1e-09,"\\u00e9":"x y"},"b":[1,1.0,true,null]}'
    )
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            documents.canonical_json([number])
