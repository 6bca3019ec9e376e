"""Differencing: two questions of which the second leaves out a few, in all the ways that this is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import wages

from dataflow.agreements import Agreement
from dataflow.datasets import Extent, Variable
from dataflow.errors import NotGranted
from dataflow.execution.events import SegmentOrder
from dataflow.graph.graph import Graph, of_dataset
from dataflow.participant import Participant
from dataflow.policy.differencing import RowSet
from tests.security.conftest import OTHERS, Target, relation

FLOOR = 10
ROWS = 1000


class Owner:
    """The steward, with an owner's floor on a dataset of this test's own."""

    def __init__(self, target: Target, name: str) -> None:
        self.target = target
        self.participant: Participant = target.participant
        target.register(name)
        dataset = target.datasets[name]
        rows = Variable(name="Salschal", dims=("row",), shape=(ROWS,), dtype="i8", nbytes=8 * ROWS)
        extent = Extent(nbytes=8 * ROWS, variables=(rows,))
        self.dataset = target.datasets[name] = replace(dataset, extent=extent)
        target.records.add(self.dataset)
        terms = {"row_floor": FLOOR, "users": ("anna", "eve", OTHERS)}
        self.participant.agree(
            Agreement(
                name=name,
                site="vu",
                covers=(self.dataset.key,),
                relations=(relation("floored", name, **terms),),
            ),
            "root",
        )

    def order(self, tag: str, user: str = "anna") -> SegmentOrder:
        """Let in: the mean of a selection; what the selection is only its parameters know."""
        graph: Graph = wages.average(wages.query(of_dataset(self.dataset)), tag=tag)
        order = self.participant.gate.order(self.target.order(graph, user=user))
        assert isinstance(order, SegmentOrder)
        return order

    def asks(self, key: str, rows: RowSet | None, user: str = "anna") -> None:
        """Somebody computes with a set of rows, as the worker has counted them."""
        order = self.order(key, user)
        (selection,) = order.guarded
        order = replace(order, guarded={key: order.guarded[selection]})
        counting = self.participant.counting
        if counting.uncounted(order, [key]):
            counting.counted(order, key, rows)

    def refused(self, key: str, rows: RowSet | None, user: str = "anna", says: str = "") -> None:
        before = len(self.target.refusals())
        with pytest.raises(NotGranted, match=says or "may differ by fewer than 10") as error:
            self.asks(key, rows, user)
        assert OTHERS not in str(error.value)
        (entry,) = self.target.refusals()[before:]
        assert entry["user"] == user
        assert "relation 'floored'" in entry["clause"]


@pytest.fixture
def owner(target: Target, request: Any) -> Any:
    made = Owner(target, request.node.name)
    yield made
    target.participant.withdraw(request.node.name, "root")


def test_all_and_all_but_a_few(owner: Owner) -> None:
    owner.asks("all", RowSet(ROWS, "all"))
    for few in (1, FLOOR - 1):
        owner.refused(f"all but {few}", RowSet(ROWS - few, f"all but {few}"))
    owner.asks("all but the floor", RowSet(ROWS - FLOOR, "others"))
    owner.asks("all once more", RowSet(ROWS, "all"))


def test_a_few_more(owner: Owner) -> None:
    owner.asks("some", RowSet(500, "some"))
    owner.refused("some and one", RowSet(501, "some and one"))


def test_one_in_the_place_of_another(owner: Owner) -> None:
    owner.asks("with him", RowSet(500, "with him"))
    owner.refused("with her", RowSet(500, "with her"))
    owner.refused("of which nobody can tell", RowSet(500))


def test_by_two_people(owner: Owner) -> None:
    owner.asks("all", RowSet(ROWS, "all"), "anna")
    owner.refused("all but one", RowSet(ROWS - 1, "all but one"), "eve")


def test_through_something_between(owner: Owner) -> None:
    """Each step is far enough from the last, and the last too close to the first."""
    owner.asks("all", RowSet(ROWS, "all"))
    owner.asks("fewer", RowSet(ROWS - 15, "fewer"))
    owner.refused("nearly all", RowSet(ROWS - 5, "nearly all"))


def test_a_refused_set_is_not_remembered_and_an_answered_one_is(owner: Owner) -> None:
    owner.asks("all", RowSet(ROWS, "all"))
    owner.refused("but one", RowSet(ROWS - 1, "but one"))
    owner.refused("but one", RowSet(ROWS - 1, "but one"))
    owner.asks("all", None)  # known by its key: not even counted


def test_too_few_and_uncounted(owner: Owner) -> None:
    owner.refused("few", RowSet(FLOOR - 1, "few"), says="fewer than 10 rows")
    owner.refused("of files", None, says="fewer than 10 rows")
