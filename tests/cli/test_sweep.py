"""Sweeps: every combination once, each with an output of its own; wrong files before anything runs."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.cli.sweep import sweep_of
from dataflow.errors import ConfigError

VALUES = st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES))
def test_all_combinations_each_once(varied: dict[str, list[int]]) -> None:
    document = {"notebook": "n.ipynb", "parameters": {"a": -1, "z": 0}, "sweep": varied}
    runs = sweep_of(document).runs
    wanted = [dict(zip(varied, one, strict=True)) for one in itertools.product(*varied.values())]
    assert [{**{"a": -1, "z": 0}, **one} for one in wanted] == [dict(r.parameters) for r in runs]
    assert len({run.output for run in runs}) == len(runs)


def test_what_stands_at_the_top_holds_unless_a_run_says_otherwise() -> None:
    found = sweep_of(
        {
            "output": "out/{notebook}-{dataset}.ipynb",
            "parameters": {"k": 1},
            "parallel": 3,
            "runs": [
                {"notebook": "a.ipynb", "sweep": {"dataset": ["x", "y"]}},
                {"notebook": "b.ipynb", "parameters": {"dataset": "x", "k": 2}},
            ],
        }
    )
    assert [(run.output, run.parameters["k"]) for run in found.runs] == [
        ("out/a-x.ipynb", 1),
        ("out/a-y.ipynb", 1),
        ("out/b-x.ipynb", 2),
    ]
    assert (found.engine, found.parallel) == ("dataflow", 3)


@pytest.mark.parametrize(
    ("document", "word"),
    [
        ([], "mapping"),
        ({}, "notebook"),
        ({"notebook": 3}, "text"),
        ({"notebook": "a", "sweeep": {}}, "sweeep"),
        ({"notebook": "a", "sweep": {"x": 1}}, "sweep.x"),
        ({"notebook": "a", "sweep": {"x": []}}, "list"),
        ({"notebook": "a", "output": "o", "sweep": {"x": [1, 2]}}, "two runs"),
        ({"notebook": "a", "output": "{y}"}, "no parameter"),
        ({"notebook": "a", "output": "{"}, "no parameter"),
        ({"notebook": "a", "parallel": 0}, "from 1"),
        ({"runs": []}, "runs"),
        ({"runs": [{"notebook": "a", "engine": "x"}]}, "runs.0.engine"),
    ],
)
def test_wrong_files_say_where(document: Any, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        sweep_of(document, "sweep.yaml")
