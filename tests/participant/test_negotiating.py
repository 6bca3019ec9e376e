"""Negotiations as a site keeps them: moves that there are, and files of before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dataflow.agreements import Agreement, Relation
from dataflow.errors import ConfigError
from dataflow.participant.negotiating import FILE, Negotiations, Party

WANTED = Relation(id="", request_types=("mean",), datasets=("run1",), archetypes=("fetch",))
ANNA = Party("anna")


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Negotiations]:
    one = Agreement(name="runs", site="uva")
    records: Any = SimpleNamespace(site="uva", get=lambda *_: one)
    audit: Any = SimpleNamespace(write=lambda **_: None)
    found = Negotiations(tmp_path / FILE, records, audit, lambda *_: None, lambda: 9.0)
    yield found
    found.close()


def test_a_move_that_there_is_not(kept: Negotiations) -> None:
    made = kept.begin("runs", WANTED, ANNA)
    wrong: Any = "finalise"
    with pytest.raises(ConfigError, match=r"moves are request, .*finalize"):
        kept.move(made.id, wrong, ANNA)
    assert kept.get(made.id, ANNA) == made
