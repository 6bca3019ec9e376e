"""Audit: what was written stays written, or the chain breaks where it was touched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.participant.audit import BEGINNING, Audit, verify


def written(path: Path, count: int = 5) -> list[str]:
    audit = Audit(path, lambda: 1000.0)
    for n in range(count):
        audit.write(user="anna", what="read", object=f"k{n}", allowed=bool(n % 2), nbytes=n)
    return path.read_text().splitlines(keepends=True)


def test_a_log_holds_and_ends_where_it_says(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    lines = written(path)
    found = verify(path)
    assert (found.entries, found.broken) == (5, "")
    assert found.last == json.loads(lines[-1])["hash"]
    assert json.loads(lines[0])["before"] == BEGINNING
    assert path.stat().st_mode & 0o077 == 0
    assert verify(tmp_path / "none").entries == 0


def test_it_goes_on_after_a_restart_and_beside_another_process(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    one, other = (Audit(path, lambda: 1.0) for _ in range(2))
    for _ in range(3):
        one.write(what="a")
        other.write(what="b")
    assert verify(path) == verify(path)
    assert verify(path).entries == 6


Change = Callable[[list[str]], list[str]]
CHANGES: dict[str, Change] = {
    "a word": lambda lines: [lines[0], lines[1].replace("k1", "k9"), *lines[2:]],
    "an answer": lambda lines: [lines[0].replace("false", "true"), *lines[1:]],
    "one left out": lambda lines: [*lines[:2], *lines[3:]],
    "two exchanged": lambda lines: [lines[1], lines[0], *lines[2:]],
    "one put in twice": lambda lines: [*lines[:3], lines[2], *lines[3:]],
    "the first left out": lambda lines: lines[1:],
    "half a line": lambda lines: [*lines[:4], lines[4][:20]],
    "another text": lambda lines: [*lines[:4], "hello\n"],
    "spaces": lambda lines: [lines[0].replace(":", ": ", 1), *lines[1:]],
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_touched_is_found(tmp_path: Path, change: str) -> None:
    path = tmp_path / "audit.jsonl"
    lines = written(path)
    path.write_text("".join(CHANGES[change](lines)))
    assert verify(path).broken, change


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_byte_can_be_changed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    written(path, 3)
    body = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(body) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != body[place]))
    body[place] = value
    path.write_bytes(bytes(body))
    assert verify(path).broken


def test_a_torn_line_does_not_stop_the_log_and_stays_visible(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, 2)
    with path.open("a") as file:
        file.write('{"half')
    Audit(path, lambda: 1.0).write(what="after")
    assert verify(path).broken.startswith("line 3")


def test_long_texts_of_strangers_are_cut(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl", lambda: 1.0)
    audit.write(user="x" * 10**6)
    assert len(audit.entries()[0]["user"]) == 1000
