"""Chart: a file that a program can open, the same each time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest

pytest.importorskip("matplotlib", reason="the extra 'charts' is not installed")

from dataflow.operations import chart, charts
from dataflow.storage.scratch import drawing_into

draw = chart.function
MEANS = pd.DataFrame({"Geslacht": ["M", "V"], "mean": [11.559, 10.123], "least": [1.0, None]})


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path) -> Iterator[None]:
    with drawing_into(lambda: tmp_path):
        yield


def test_png() -> None:
    path = draw(MEANS, x="Geslacht", y=["mean"], title="Scales")
    assert path.name == "chart.png"
    once = path.read_bytes()
    assert once.startswith(b"\x89PNG")
    assert draw(MEANS, x="Geslacht", y=["mean"], title="Scales").read_bytes() == once


@pytest.mark.parametrize("kind", ["bar", "line", "points", "histogram"])
def test_svg(kind: str) -> None:
    x, y = ("mean", []) if kind == "histogram" else ("Geslacht", ["mean", "least"])
    path = draw(MEANS, kind=kind, x=x, y=y, format="svg")
    once = path.read_bytes()
    assert ElementTree.fromstring(once).tag.endswith("svg")
    assert draw(MEANS, kind=kind, x=x, y=y, format="svg").read_bytes() == once


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"x": "mean", "y": ["none"]}, "no column 'none'"),
        ({"x": "mean"}, "y= names no column"),
        ({"x": "mean", "kind": "pie"}, "kind is one of"),
        ({"x": "mean", "y": ["mean"], "format": "gif"}, "format one of"),
    ],
)
def test_wrong(how: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        draw(MEANS, **how)


def test_rows_are_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "MOST_ROWS", 1)
    with pytest.raises(ValueError, match="2 rows are no picture"):
        draw(MEANS, x="Geslacht", y=["mean"])
