"""What answers a description: in memory, in SQL, and by the obvious way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from dataflow.catalog.entries import TagSet
from dataflow.catalog.records import Records
from dataflow.catalog.search import matches, order, search
from dataflow.datasets import Extent, Lineage, Variable
from examples import dataset, replica

RUN = dataset("run1", tags={"system": "adk", "run": "7"}, owner="anna")


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"name": "run1"},
        {"name": "run*"},
        {"name": "r?n[0-9]"},
        {"owner": "anna", "kind": "array", "site": "uva"},
        {"tags": {"system": "adk"}},
        {"tags": {"system": "a*", "run": "7"}},
        {"tags": {"run": 7}},
        {"tags": {"system": None}},
        {"tags": ["system", "run"]},
        {"tags": "system"},
        {"shape": (10, 3)},
        {"shape": (None, 3)},
        {"shape": (..., 3)},
        {"shape": (10, ...)},
        {"shape": (...,)},
        {"shape": [10, ..., 3]},
        {"dims": ("time", "x")},
        {"dtype": "float64"},
        {"dtype": "<f8"},
        {"dtype": "float*"},
        {"text": "ADK"},
        {"text": "id-uva"},
    ],
)
def test_found(asked: dict[str, Any]) -> None:
    assert matches(RUN, **asked)


@pytest.mark.parametrize(
    "asked",
    [
        {"name": "run"},
        {"name": "RUN1"},
        {"owner": "bob"},
        {"kind": "table"},
        {"site": "amc"},
        {"tags": {"system": "lysozyme"}},
        {"tags": {"system": "adk", "run": "8"}},
        {"tags": ["nonsense"]},
        {"shape": (10,)},
        {"shape": (None, None, None)},
        {"shape": (..., 10, 3, 1)},
        {"shape": (10, ..., 10)},
        {"dims": ("x", "time")},
        {"dtype": "float32"},
        {"dtype": "nonsense"},
        {"text": "lysozyme"},
        {"tags": {"system": "adk"}, "owner": "bob"},
    ],
)
def test_not_found(asked: dict[str, Any]) -> None:
    assert not matches(RUN, **asked)


def test_one_variable_must_have_it_all() -> None:
    variables = (
        Variable(name="a", dims=("x",), shape=(3,), dtype="int32", nbytes=12),
        Variable(name="b", dims=("y",), shape=(4,), dtype="float64", nbytes=32),
    )
    two = dataset("two", extent=Extent(nbytes=44, variables=variables))
    assert matches(two, shape=(3,), dtype="int32", dims=("x",))
    assert not matches(two, shape=(3,), dtype="float64")
    assert not matches(dataset("none", extent=Extent(nbytes=1)), shape=(...,))


def test_two_dots_twice() -> None:
    with pytest.raises(ValueError, match=r"one '\.\.\.' only"):
        matches(RUN, shape=(..., 3, ...))


def test_copies_count_as_sites() -> None:
    assert matches(RUN, site="amc", copies_at=["amc"])


def test_operation_is_found_by_text() -> None:
    made = dataset("r", lineage=Lineage(operation="rmsd", version="1", kind="opaque", inputs=()))
    assert matches(made, text="rmsd")


def test_sorted() -> None:
    datasets = [dataset("b"), dataset("a", site="z"), dataset("a")]
    assert [order(one)[:2] for one in search(datasets)] == [("a", "uva"), ("a", "z"), ("b", "uva")]


NAMES = ["run1", "run2", "Run1", "a[1]", "a1", "x*", "über", ""]
WORDS = ["adk", "a*", "7", "", "it's", '"quoted"']
asked = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from([*NAMES, "run*", "?un1", "a[[]1]", "[!r]*", "*"]),
        "owner": st.sampled_from(["anna", "bob", "nobody"]),
        "site": st.sampled_from(["uva", "amc", "nowhere"]),
        "kind": st.sampled_from(["array", "table"]),
        "tags": st.dictionaries(
            st.sampled_from(["system", 'a"b', "no.dot$"]),
            st.sampled_from([*WORDS, None]),
            max_size=2,
        ),
        "text": st.sampled_from(["adk", "RUN", "bob"]),
        "shape": st.sampled_from([(10, 3), (None,), (..., 3)]),
    },
)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    with Records(tmp_path_factory.mktemp("search") / "uva.db", "uva") as records:
        number = 0
        for name in NAMES:
            for owner in ("anna", "bob"):
                number += 1
                tags = {"system": WORDS[number % 6], 'a"b': WORDS[number % 4]}
                one = dataset(
                    name,
                    id=f"{number:04}",
                    key=f"k{number}",
                    owner=owner,
                    kind="array" if number % 3 else "table",
                    tags=tags if number % 2 else {},
                )
                records.add(one, replica(one, site="amc" if number % 5 else "uva"))
                if number % 4 == 0:
                    given = {"system": "adk", "no.dot$": "7"}
                    records.add(TagSet(key=one.key, user="bob", tags=given))
        yield records


@given(asked=asked)
def test_sql_finds_what_memory_finds(filled: Records, asked: dict[str, Any]) -> None:
    snapshot = filled.snapshot()
    in_memory = snapshot.search(**asked)
    each = search(snapshot.datasets, tags_of=snapshot.tags_of, copies_of=snapshot.sites_of, **asked)
    assert in_memory == snapshot.distinct(each), "an index may not hide what fits"
    assert filled.find(**asked) == in_memory
    assert filled.find(**asked, limit=3) == in_memory[:3]


def test_find_in_an_empty_catalog(tmp_path: Path) -> None:
    with Records(tmp_path / "uva.db", "uva") as records:
        assert records.find(name="x", tags=["a"], site="b") == []
