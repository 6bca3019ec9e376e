"""Sets of rows that were computed with, as a site remembers them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dataflow.participant.answered import FILE, Answered
from dataflow.policy.differencing import RowSet

FLOORS = {"d": 10}


@pytest.fixture
def answered(tmp_path: Path) -> Iterator[Answered]:
    found = Answered(tmp_path / FILE)
    yield found
    found.close()


def test_what_is_close_is_named_and_not_noted(answered: Answered) -> None:
    assert answered.take("all", RowSet(100, "x"), FLOORS, 1.0) is None
    assert answered.take("but one", RowSet(99, "y"), FLOORS, 2.0) == "d"
    assert not answered.knows("but one", FLOORS)
    assert answered.take("but nine", RowSet(91), FLOORS, 2.0) == "d"
    assert answered.take("one more", RowSet(101), FLOORS, 2.0) == "d"
    assert answered.take("but ten", RowSet(90), FLOORS, 2.0) is None
    assert answered.take("all again", RowSet(100, "x"), FLOORS, 2.0) is None
    assert answered.knows("all again", FLOORS)


def test_each_dataset_by_itself_and_all_of_them_together(answered: Answered) -> None:
    assert answered.take("all", RowSet(100), FLOORS, 1.0) is None
    assert answered.take("others", RowSet(99), {"e": 10}, 1.0) is None
    assert answered.take("both", RowSet(98), {"f": 2, "d": 10}, 1.0) == "d"
    assert not answered.knows("both", {"f": 2}), "nothing is noted of what was refused"
    assert answered.take("both", RowSet(98), {"f": 2, "d": 2}, 1.0) is None
    assert answered.knows("both", {"f": 2, "d": 2})
    assert not answered.knows("both", {"f": 2, "d": 2, "e": 2})


def test_it_is_remembered(answered: Answered, tmp_path: Path) -> None:
    answered.take("all", RowSet(100), FLOORS, 1.0)
    answered.close()
    again = Answered(tmp_path / FILE)
    assert again.knows("all", FLOORS)
    assert again.take("but one", RowSet(99), FLOORS, 2.0) == "d"
    again.close()
