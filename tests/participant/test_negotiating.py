"""Negotiations as a site keeps them: moves that there are, and files of before."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dataflow.agreements import Agreement, Relation
from dataflow.documents import to_json
from dataflow.errors import ConfigError
from dataflow.participant.negotiating import FILE, Negotiations, Party
from dataflow.policy.negotiation import begin

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


def test_a_file_of_before_has_times_now(kept: Negotiations, tmp_path: Path) -> None:
    old = [
        begin(
            id=f"n{at}",
            site="uva",
            agreement="runs",
            user="anna",
            terms=WANTED,
            side="consumer",
            by="anna",
            at=at,
        )
        for at in (1.0, 3.0, 2.0)
    ]
    db = sqlite3.connect(tmp_path / FILE)
    db.executescript(
        "CREATE TABLE negotiation (id TEXT PRIMARY KEY, user TEXT NOT NULL, "
        "ended INTEGER NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;"
        "CREATE INDEX negotiation_user ON negotiation (user, ended);"
    )
    rows = [(one.id, "anna", 0, to_json(one)) for one in old]
    db.executemany("INSERT INTO negotiation VALUES (?, ?, ?, ?)", rows)
    db.commit()
    db.close()
    new = kept.begin("runs", WANTED, ANNA)
    assert [one.id for one in kept.all(ANNA)] == [new.id, "n3.0", "n2.0", "n1.0"]
    kept.close()
    assert len(kept.all(Party("root", admin=True))) == 4, "and once more"
