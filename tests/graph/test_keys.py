"""Keys: what differs has different keys, in every process the same; parameters come back."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.documents import canonical_json
from dataflow.errors import GraphError
from dataflow.graph.graph import Graph, of_dataset
from dataflow.graph.keys import decode, digest, encode, source_key, step_key
from dataflow.graph.operation import operation
from dataflow.testing.strategies import dataset, graphs, square, weighted

ZONES = st.timedeltas(timedelta(hours=-12), timedelta(hours=12)).map(timezone)
WORDS = st.text("abcé/", min_size=1, max_size=4)
HASHABLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=4),
    st.binary(max_size=4),
    st.complex_numbers(),
    st.datetimes(timezones=st.none() | ZONES).map(lambda time: time.replace(fold=0)),
    st.dates(),
    st.timedeltas(),
    WORDS.map(Path),
)
NESTED_HASHABLE = st.recursive(
    HASHABLE,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple), st.frozensets(inner, max_size=3)
    ),
    max_leaves=4,
)
ARRAYS = st.tuples(
    st.sampled_from(["<f8", ">i4", "|u1", "|b1", "<c16", "<U3", "<M8[ns]", "<m8[s]"]),
    st.sampled_from([(), (0,), (3,), (2, 2), (0, 3)]),
).map(lambda made: np.arange(math.prod(made[1])).astype(made[0]).reshape(made[1]))
SLICES = st.builds(slice, *[st.none() | st.integers(-9, 9)] * 3)
PARAMETERS = st.recursive(
    st.one_of(HASHABLE, ARRAYS, SLICES),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.sets(NESTED_HASHABLE, max_size=3),
        NESTED_HASHABLE,
        st.dictionaries(NESTED_HASHABLE, inner, max_size=3),
    ),
    max_leaves=6,
)


def same(left: Any, right: Any) -> bool:
    """Equal in type and value, where NaN is equal to itself and 0.0 is not to -0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, np.ndarray):
        return (
            left.dtype == right.dtype and left.shape == right.shape and bool(np.all(left == right))
        )
    if isinstance(left, slice):
        return same(
            (left.start, left.stop, left.step),
            (right.start, right.stop, right.step),
        )
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return matched(list(left.items()), list(right.items()))
    if isinstance(left, set | frozenset):
        return matched(list(left), list(right))
    return repr(left) == repr(right)


def matched(left: list[Any], right: list[Any]) -> bool:
    for item in left:
        found = next((n for n, other in enumerate(right) if same(item, other)), None)
        if found is None:
            return False
        del right[found]
    return not right


@given(PARAMETERS)
def test_parameters_come_back_as_they_were(value: Any) -> None:
    document = encode(value)
    assert same(decode(json.loads(canonical_json(document))), value)


@given(PARAMETERS, PARAMETERS)
def test_equal_digests_mean_equal_parameters(left: Any, right: Any) -> None:
    assert (digest(encode(left)) == digest(encode(right))) == same(left, right)


def test_values_that_python_takes_for_one_another() -> None:
    values: list[Any] = [
        *[1, 1.0, True, "1", [1], (1,), {1}, frozenset({1}), b"1", 1 + 0j, np.array(1)],
        *[np.array([1]), np.array([1.0]), {1: 1}, {"1": 1}, {1: "1"}, Path("1"), slice(1)],
        *[0, 0.0, -0.0, False, None, "", [], (), set(), {}, b"", slice(None), math.nan, "nan"],
        *[math.inf, -math.inf, date(1, 1, 1), datetime(1, 1, 1), datetime(1, 1, 1, tzinfo=UTC)],
        *[timedelta(0), timedelta(1), "0001-01-01", [[]], [[], []], ["", ""], [""]],
    ]
    assert len({digest(encode(value)) for value in values}) == len(values)


def test_what_has_another_type_that_means_the_same() -> None:
    assert decode(encode(OrderedDict(b=1, a=2))) == {"a": 2, "b": 1}
    assert encode({"b": 1, "a": 2}) == encode({"a": 2, "b": 1})
    assert decode(encode(PurePosixPath("/a/b"))) == Path("/a/b")
    assert type(encode(np.float64(0.5))) is float
    assert decode(encode(np.int64(3))) == 3
    assert decode(encode(pd.Timestamp("2024-05-01T12:00"))) == datetime(2024, 5, 1, 12)
    turned = np.arange(6).reshape(2, 3).T
    np.testing.assert_array_equal(decode(encode(turned)), turned)
    decode(encode(turned))[0, 0] = 9  # an array that comes back may be written to


def test_what_cannot_be_part_of_a_key() -> None:
    class Own:
        pass

    with pytest.raises(GraphError, match=r"f: parameter 'x': a .*Own cannot be part of a key"):
        encode([{1: (Own(),)}], "f: parameter 'x'")
    for value in (range(3), Own, len, ..., bytearray(b"x"), pd.DataFrame({"a": [1]})):
        with pytest.raises(GraphError, match="register large data as a dataset"):
            encode(value)
    with pytest.raises(GraphError, match="array of Python objects"):
        encode(np.array([None]))
    with pytest.raises(GraphError, match="unknown parameter form 'new'"):
        decode({"!": "new", "v": 1})


def test_what_would_lose_something_is_refused() -> None:
    for value in (np.zeros(2, [("a", "i4"), ("b", "f8")]), np.ma.array([1, 2], mask=[0, 1])):
        with pytest.raises(GraphError, match="an array with fields or a mask"):
            encode(value)
    for time in (pd.NaT, pd.Timestamp(1), pd.Timedelta(1)):
        with pytest.raises(GraphError, match="cannot be part of a key"):
            encode(time)


def test_a_step_is_all_that_goes_into_it() -> None:
    def key(**changed: Any) -> str:
        given: dict[str, Any] = {
            "name": "f",
            "version": "1",
            "parameters": {"p": 1},
            "slots": ("x", "y"),
            "inputs": ("a", "b"),
        }
        return step_key(**(given | changed))

    keys = [
        key(),
        key(name="g"),
        key(version="2"),
        key(parameters={"p": 1.0}),
        key(parameters={"q": 1}),
        key(parameters={}),
        key(slots=("y", "x")),
        key(inputs=("b", "a")),
        key(inputs=("a",), slots=("x",)),
        key(pieces=True),
    ]
    assert len(set(keys)) == len(keys)
    assert key(slots=["x", "y"], inputs=["a", "b"]) == keys[0]


def test_sources() -> None:
    keys = {source_key("1"), source_key("2"), source_key("1", "u"), source_key("1", "v")}
    assert len(keys) == 4
    assert all(len(key) == 64 for key in keys)


# --- the keys of graphs ------------------------------------------------------------------------

a, b = (of_dataset(dataset(name)) for name in ("run1", "run2"))


def test_inputs_and_slots() -> None:
    assert weighted(a, b).key != weighted(b, a).key
    assert weighted(a, b).key == weighted(y=b, x=a).key
    assert square(a).key == square(x=a).key != square(b).key
    assert square(square(a)).key != square(a).key


@given(st.lists(PARAMETERS, min_size=2, max_size=2))
def test_parameters(values: list[Any]) -> None:
    @operation
    def op(x: Any, *, p: Any = None) -> Any:
        return x, p

    left, right = (op(a, p=value).key for value in values)
    assert (left == right) == same(*values)
    assert op(a).key not in (left, right)


@given(graphs())
def test_a_key_is_made_of_what_it_says(graph: Graph) -> None:
    for key, step in graph.steps.items():
        name, version = step.operation.name, step.operation.version
        again = step_key(
            name, version, step.parameters, step.slots, step.inputs, pieces=step.pieces
        )
        assert again == key


FEDERATION = """
import json, sys
from pathlib import Path
import numpy as np
from dataflow.graph.graph import merge, of_dataset
from dataflow.graph.keys import encode, digest
from dataflow.graph.operation import operation, shell
from dataflow.testing.strategies import dataset, lowest_top, square, total, weighted

NAMES = {"delft", "ams", "uva", "wur"}

def inside(x):
    return x in NAMES or x in {"one", "two", "three", "four"}

@operation(kind="linear", version="1")
def pinned(x, *, options):
    return x

@operation
def sets(x, *, known=frozenset(NAMES)):
    return inside(x) or x in {"five", "six", "seven", "eight"}

a, b = (of_dataset(dataset(name)) for name in ("run1", "run2"))
options = {
    "names": NAMES, "nested": {frozenset(NAMES), frozenset({"x", "y"})}, 1: 1.5, (1, 2): Path("/a"),
    "weights": np.arange(3.0), "at": slice(1, None), "nan": float("nan"), b"b": 1j,
}
lines = shell("wc -l < {x} > {output}", name="lines")
graphs = {
    "sum": a + b, "scaled": 2 * a - b / 4, "weighted": weighted(a, square(b)), "total": total(a, b),
    "lowest": lowest_top(a, b), "pinned": pinned(a, b, options=options), "lines": lines(a),
    "sets": sets(a),
}
if len(sys.argv) > 1:
    member = operation(name="member")(lambda x: x in {"one", "two", "three", "four"})
    graphs["lambda"] = member(a)
print(json.dumps({name: graph.key for name, graph in graphs.items()}))
"""

#: The same for ever, on every Python. If these change, results of before are never found again.
KNOWN = {
    "sum": "4610829b49a37b381157fede97f9f1ffb3cc70789bf699e2aad9be1df6228efe",
    "scaled": "5d69dc09f8b95bf5efb1f23f0a886145cd1d109f5f8d80d958e14cec88e83d20",
    "pinned": "eee251f1f9f7f8ff83000a5ee6731964a5af77454cd243f1a6720237f10b867e",
    "lines": "ec3a80a0f03df9ee06508cd727acac5591a3de7f9ac3696cfe5e40a97166e98c",
    "sets": "03d38fcec72e533763628fb44798485f15242f84e643034ece92d8b5e675d341",
}


@pytest.fixture(scope="module")
def keys_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    script = tmp_path_factory.mktemp("keys") / "federation.py"
    script.write_text(FEDERATION)

    def run(seed: int, *arguments: str) -> dict[str, str]:
        done = subprocess.run(
            [sys.executable, str(script), *arguments],
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
        found: dict[str, str] = json.loads(done.stdout)
        return found

    return run


def test_keys_are_the_same_in_every_process(keys_of: Callable[..., dict[str, str]]) -> None:
    first, second = keys_of(1, "lambda"), keys_of(2, "lambda")
    assert first == second
    assert {name: first[name] for name in KNOWN} == KNOWN
