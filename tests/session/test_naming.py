"""What another program lists is registered; what we list is read again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

import dataflow as flow
from dataflow.errors import CatalogError


def test_an_intake_catalog_and_back_as_stac(session: flow.Session, tmp_path: Path) -> None:
    for name in ("sea", "air"):
        np.save(tmp_path / f"{name}.npy", np.arange(10 if name == "sea" else 20))
    sources = {
        name: {"driver": "numpy", "args": {"urlpath": f"{{{{ CATALOG_DIR }}}}/{name}.npy"}}
        for name in ("sea", "air")
    }
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump({"sources": sources}))
    made = session.register_all(tmp_path / "catalog.yaml", tags={"from": "intake"})
    assert [one.name for one in made] == ["air", "sea"], "in the order of the file"
    assert made[0].tags == {"from": "intake", "driver": "numpy"}
    assert int(session.open("air").sum()) == 190
    again = session.register_all(tmp_path / "catalog.yaml", tags={"from": "intake"})
    assert [one.key for one in again] == [one.key for one in made]

    listing = session.datasets(tags={"from": "intake"}).stac()
    assert {item["properties"]["title"] for item in listing["features"]} == {"sea", "air"}
    back = session.register_all(listing)
    assert {one.key for one in back} == {one.key for one in made}, "the same data, known already"


def test_what_cannot_be_read_registers_nothing(session: flow.Session, tmp_path: Path) -> None:
    before = len(session.datasets())
    (tmp_path / "broken.json").write_text("{")
    twice = {"type": "Feature", "id": "a", "assets": {"x": {"href": "a.npy"}}, "properties": {}}
    (tmp_path / "twice.json").write_text(json.dumps({"features": [twice, twice]}))
    for name, said in (
        ("broken", "cannot be read"),
        ("twice", "twice"),
        ("none", "cannot be read"),
    ):
        with pytest.raises(CatalogError, match=said):
            session.register_all(tmp_path / f"{name}.json")
    assert len(session.datasets()) == before
