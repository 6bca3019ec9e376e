"""Notebooks as operations: equal ones are equal, whatever running them has left in them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.datasets import Dataset, Extent
from dataflow.errors import ConfigError
from dataflow.execution.invitation import is_notebook
from dataflow.graph.graph import of_dataset
from dataflow.integrations.notebook_step import bare, notebook_graph, packed, unpacked

SOURCES = st.lists(st.text(max_size=80), max_size=5)


def notebook(sources: list[str], *, run: int = 0) -> dict[str, Any]:
    cells = [
        {
            "cell_type": "code",
            "id": f"{run}-{n}",
            "metadata": {"papermill": {"duration": run}, "tags": ["kept"]},
            "source": source,
            "outputs": [{"output_type": "stream", "name": "stdout", "text": "x"}] * run,
            "execution_count": run or None,
        }
        for n, source in enumerate(sources)
    ]
    metadata = {"papermill": {"start_time": run}, "kernelspec": {"name": "python3"}}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}


def dataset(name: str) -> Dataset:
    return Dataset(id=name, name=name, key=name, kind="array", extent=Extent(nbytes=24), site="s")


@given(SOURCES)
def test_what_is_packed_comes_out_again(sources: list[str]) -> None:
    lines = packed(notebook(sources, run=2))
    assert unpacked("\n".join(lines)) == bare(notebook(sources))
    assert not set("".join(lines)) & set("{}'\"$`\\ ")


def test_runs_leave_no_trace_in_the_key() -> None:
    data = [of_dataset(dataset("a"))]
    keys = {notebook_graph(notebook(["1"], run=n), data).key for n in (0, 1, 3)}
    assert len(keys) == 1
    others = [
        notebook_graph(notebook(["2"]), data),
        notebook_graph(notebook(["1"]), [of_dataset(dataset("b"))]),
        notebook_graph(notebook(["1"]), data, again="{monday}"),
    ]
    assert len(keys | {graph.key for graph in others}) == 4


def test_it_is_one_step_over_all_datasets() -> None:
    graph = notebook_graph(notebook(["1"]), [of_dataset(dataset(n)) for n in "abc"], walltime="1 h")
    (step,) = graph.steps.values()
    assert is_notebook(step.operation)
    assert set(step.inputs) == {"a", "b", "c"}
    assert step.operation.needs.walltime == 3600


def test_what_is_too_long_stays_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataflow.integrations.notebook_step.MOST_NBYTES", 100)
    with pytest.raises(ConfigError, match="What you can do"):
        packed(notebook([json.dumps(list(range(500)))]))


@pytest.mark.parametrize("text", ["", "AAAA", "not base64 %"])
def test_what_is_no_notebook_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        unpacked(text)
