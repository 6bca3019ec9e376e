"""Reads: whatever changes a digest of code shows, and the digest need not be made for it."""

from __future__ import annotations

import functools
import gc
import pickle
import types
import weakref
from collections.abc import Callable
from typing import Any

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.graph.code import code_digest, described
from dataflow.graph.operation import operation

TEXT = """
import functools

LIMIT, LIST, TABLE, NESTED, SET = 3, [1, [2]], {"a": 1}, (1, {"b": [2]}), {1, 2}
WITH_CODE, BY_NAME = [len, max], {"f": len}

class Shape:
    sides = 4

    def area(self, a):
        return a * self.sides

class Setting:
    __slots__ = ("scale",)

    def __init__(self):
        self.scale = 2

SHAPE, SETTING = Shape(), Setting()

def inner(x):
    return x + LIMIT

def other(x):
    return x

def make(n):
    def closed(x):
        nonlocal n
        return x + n

    def change(value):
        nonlocal n
        n = value

    return closed, change

closed, change = make(1)
half = functools.partial(inner, x=2)

@functools.cache
def cached(x):
    return inner(x)

def f(x, scale=2, *, power=[1]):
    return [inner(x), closed, half, cached, LIST, TABLE, NESTED, SET, WITH_CODE, BY_NAME, SHAPE, SETTING,
            Shape, tools.helper(x), not_yet]
"""

CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "global of an inner function": lambda names: names.update(LIMIT=4),
    "equal, but of another type": lambda names: names.update(LIMIT=3.0),
    "function": lambda names: names.update(inner=names["other"]),
    "code": lambda names: setattr(names["inner"], "__code__", names["other"].__code__),
    "default": lambda names: setattr(names["f"], "__defaults__", (3,)),
    "inside of a keyword's default": lambda names: names["f"].__kwdefaults__["power"].append(1),
    "keyword's default": lambda names: names["f"].__kwdefaults__.update(power=2),
    "closure": lambda names: names["change"](2),
    "list": lambda names: names["LIST"].append(1),
    "list in a list": lambda names: names["LIST"][1].append(1),
    "table": lambda names: names["TABLE"].update(a=2),
    "key": lambda names: names["TABLE"].update(b=names["TABLE"].pop("a")),
    "deep inside": lambda names: names["NESTED"][1]["b"].append(1),
    "set": lambda names: names["SET"].add(3),
    "list with code": lambda names: names["WITH_CODE"].append(min),
    "table with code": lambda names: names["BY_NAME"].update(f=max),
    "class": lambda names: setattr(names["Shape"], "sides", 5),
    "method": lambda names: setattr(names["Shape"], "area", names["other"]),
    "instance": lambda names: setattr(names["SHAPE"], "sides", 3),
    "slot": lambda names: setattr(names["SETTING"], "scale", 3),
    "module": lambda names: setattr(names["tools"], "helper", names["inner"]),
    "partial": lambda names: names["half"].keywords.update(x=3),
    "a name that was not there": lambda names: names.update(not_yet=1),
}


@pytest.fixture
def names() -> dict[str, Any]:
    tools = types.ModuleType("tools_of_a_notebook")
    names: dict[str, Any] = {"__name__": "notebook", "tools": tools}
    exec(TEXT, names)
    tools.helper = names["other"]  # type: ignore[attr-defined]
    return names


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changes_a_digest_shows(
    names: dict[str, Any], change: Callable[[dict[str, Any]], Any]
) -> None:
    f = names["f"]
    before, reads = described(f)
    assert reads.certain
    assert reads.same()
    assert code_digest(f) == before
    change(names)
    assert code_digest(f) != before
    assert not reads.same()


def test_what_is_of_no_concern_does_not(names: dict[str, Any]) -> None:
    _, reads = described(names["f"])
    names.update(elsewhere=1)
    names["cached"](1)
    assert reads.same()


def test_a_cell_that_is_filled_later() -> None:
    def f(x: Any) -> Any:
        return later(x)

    _, reads = described(f)
    assert reads.same()

    def later(x: Any) -> Any:
        return x

    assert not reads.same()


values = st.recursive(
    st.none() | st.integers() | st.text(max_size=2) | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
        | st.tuples(inner)
    ),
    max_leaves=8,
)


def boxes(value: Any) -> list[Any]:
    """All lists and dictionaries in a value."""
    inside = list(value.values()) if isinstance(value, dict) else value
    found = [value] if isinstance(value, list | dict) else []
    if isinstance(value, list | dict | tuple):
        found += [box for item in inside for box in boxes(item)]
    return found


@given(values, st.data())
def test_a_change_anywhere_in_a_value_shows(value: Any, data: st.DataObject) -> None:
    def f() -> Any:
        return value

    before, reads = described(f)
    assert reads.same()
    if not boxes(value):
        return
    box = data.draw(st.sampled_from(boxes(value)))
    box.append(0) if isinstance(box, list) else box.update({"new": 0})
    assert code_digest(f) != before
    assert not reads.same()


def test_arrays_are_neither_trusted_nor_kept_alive() -> None:
    class Held(np.ndarray):
        pass

    names: dict[str, Any] = {"__name__": "notebook", "ARRAY": np.zeros(3).view(Held)}
    exec("def f(x):\n    return x + ARRAY\n", names)
    made = operation(names["f"])
    before = made.operation.code
    names["ARRAY"][0] = 1
    assert made.operation.code != before
    gone = weakref.ref(names.pop("ARRAY"))
    gc.collect()
    assert gone() is None


def test_an_operation_is_described_anew_when_it_changes(
    names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    counted = functools.wraps(described)(lambda *f: calls.append(f) or described(*f))
    monkeypatch.setattr("dataflow.graph.operation.described", counted)
    made = operation(names["f"])
    before = made.operation.code
    assert {made.operation.code for _ in range(5)} == {before}
    assert len(calls) == 1
    names.update(LIMIT=4)
    assert made.operation.code != before
    assert len(calls) == 2


def test_what_was_read_does_not_travel() -> None:
    @operation
    def held(x: Any, name: str = "it") -> Any:
        return x

    code = held.operation.code
    there = pickle.loads(cloudpickle.dumps(held))
    assert there._described is None
    assert there.declared.code == code
