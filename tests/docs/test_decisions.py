"""Decisions are counted: each has a number of its own, and says it."""

from __future__ import annotations

from pathlib import Path

RECORDS = sorted((Path(__file__).parents[2] / "docs" / "decisions").glob("0*.md"))


def test_each_has_its_own_number() -> None:
    numbers = [path.name[:4] for path in RECORDS]
    assert numbers == [f"{count:04}" for count in range(1, len(RECORDS) + 1)]
    for path in RECORDS:
        assert path.read_text().startswith(f"# {path.name[:4]} "), path.name
