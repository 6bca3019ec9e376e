"""Anonymise: each rule, keys that only the site has, and the same rows however they come."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.errors import ConfigError
from dataflow.operations import anonymise
from dataflow.storage.tabular import Tabular


def hide(*tables: Any, **how: Any) -> Any:
    """What comes of it, as a frame if it is a table in memory."""
    found = anonymise.function(*tables, **how)
    return found.to_pandas() if isinstance(found, pa.Table) else found


PEOPLE = pd.DataFrame(
    {
        "who": ["ann", "bob", "ann", None],
        "born": [19600101, 19611231, 19600101, 19700615],
        "day": pd.to_datetime(["1960-01-02", "1961-12-31", None, "1970-06-15"]),
        "scale": [7, 12, 10, 19],
        "wage": [1.5, 2.25, float("nan"), 4.0],
    }
)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATAFLOW_CREDENTIALS_PSEUDONYMS", json.dumps({"key": "k" * 32}))


def column(name: str, rule: Any) -> list[Any]:
    found = hide(PEOPLE, columns={name: rule})[name]
    return [None if pd.isna(value) else value for value in found]


def test_dates() -> None:
    assert column("born", "year") == ["1960", "1961", "1960", "1970"]
    assert column("born", "month") == ["1960-01", "1961-12", "1960-01", "1970-06"]
    assert column("day", "year") == ["1960", "1961", None, "1970"]
    assert column("day", "month") == ["1960-01", "1961-12", None, "1970-06"]
    partly = PEOPLE.assign(born=PEOPLE["born"].where(PEOPLE["scale"] > 7))
    assert hide(partly, columns={"born": "year"})["born"].tolist()[1:] == ["1961", "1960", "1970"]


def test_coarser() -> None:
    assert column("scale", {"round": 5}) == [5, 10, 10, 15]
    assert column("wage", {"round": 0.5}) == [1.5, 2.0, None, 4.0]
    assert column("who", {"first": 1}) == ["a", "b", "a", None]
    assert column("who", "mask") == ["*"] * 4
    assert list(hide(PEOPLE, columns={"who": "drop"}).columns) == ["born", "day", "scale", "wage"]


def test_others_stay() -> None:
    found = hide(PEOPLE, columns={"who": "mask"})
    pd.testing.assert_frame_equal(
        found.drop(columns="who"), PEOPLE.drop(columns="who"), check_dtype=False
    )


def test_pseudonyms(monkeypatch: pytest.MonkeyPatch) -> None:
    ann, bob, again, nobody = column("who", "pseudonym")
    assert ann == again != bob
    assert nobody is None
    assert "ann" not in ann
    monkeypatch.setenv("DATAFLOW_CREDENTIALS_PSEUDONYMS", json.dumps({"key": "l" * 32}))
    assert column("who", "pseudonym")[0] != ann, "another site, another name"


def test_no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DATAFLOW_CREDENTIALS_PSEUDONYMS")
    monkeypatch.setenv("DATAFLOW_CREDENTIALS_FILE", str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match="no key for pseudonyms") as failed:
        hide(PEOPLE, columns={"who": "pseudonym"})
    assert "What you can do" in str(failed.value)
    assert hide(PEOPLE, columns={"who": "mask"}) is not None
    monkeypatch.setenv("DATAFLOW_CREDENTIALS_PSEUDONYMS", json.dumps({"key": "short"}))
    with pytest.raises(ConfigError, match="shorter than 16"):
        hide(PEOPLE, columns={"scale": {"perturb": 1}})


def test_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    many = pd.DataFrame({"x": np.zeros(20_000)})
    rule = {"x": {"perturb": 2.0}}
    found = hide(many, columns=rule, seed=1)["x"]
    assert abs(found.mean()) < 0.1
    assert found.abs().mean() == pytest.approx(2.0, abs=0.1), "the mean size of Laplace noise"
    assert found.equals(hide(many, columns=rule, seed=1)["x"])
    assert not found.equals(hide(many, columns=rule, seed=2)["x"])
    monkeypatch.setenv("DATAFLOW_CREDENTIALS_PSEUDONYMS", json.dumps({"key": "l" * 32}))
    assert not found.equals(hide(many, columns=rule, seed=1)["x"]), "the seed alone tells nothing"


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_batches_make_no_difference(lengths: list[int]) -> None:
    table = pa.table({"x": np.arange(sum(lengths)), "g": np.arange(sum(lengths)) % 3})
    ends = np.cumsum([0, *lengths])
    cut = [
        table.slice(a, b - a).combine_chunks().to_batches()[0] for a, b in itertools.pairwise(ends)
    ]
    pieces = Tabular(table.schema, lambda: iter(cut))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATAFLOW_CREDENTIALS_PSEUDONYMS", json.dumps({"key": "k" * 32}))
        how: dict[str, Any] = {"columns": {"x": {"perturb": 1}}, "k": 2, "among": ["g"]}
        pd.testing.assert_frame_equal(hide(pieces, **how), hide(table, **how))


def test_small_groups_are_left_out() -> None:
    found = hide(PEOPLE, columns={"born": "year"}, k=2, among=["born"])
    assert found["born"].tolist() == ["1960", "1960"]
    assert len(hide(PEOPLE, columns={}, k=2, among=["scale"])) == 0


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"columns": {"x": "mask"}}, "there is no column 'x'"),
        ({"columns": {"who": "blur"}}, "'blur' is no rule; there are year"),
        ({"columns": {"who": {"first": 0}}}, "needs a number above 0"),
        ({"columns": {"who": {"round": 5}}}, "is for numbers"),
        ({"columns": {}, "k": 3}, "k needs among="),
        ({"columns": {"who": "drop"}, "k": 3, "among": ["who"]}, "not in the result"),
    ],
)
def test_wrong_rules(how: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        hide(PEOPLE, **how)
