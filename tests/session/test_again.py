"""A plan that is impossible while a site is away is tried again once that site answers."""

from __future__ import annotations

from collections.abc import Collection
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dataflow.errors import NotGranted, PlacementError
from dataflow.placement.plan import Plan
from dataflow.session.again import plan_once_back

A_PLAN = cast(Plan, SimpleNamespace())


def planning(*answers: Any) -> tuple[Any, list[str]]:
    said, left = [], list(answers)

    def plan() -> Plan:
        said.append("plan")
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return cast(Plan, answer)

    return plan, said


@pytest.mark.parametrize(
    ("answers", "back", "expected"),
    [
        ((A_PLAN,), True, ["plan"]),
        ((PlacementError("cluster is away"), A_PLAN), True, ["plan", "ask cluster", "plan"]),
        ((PlacementError("cluster is away"),), False, ["plan", "ask cluster"]),
        (
            (PlacementError("cluster: away"), PlacementError("no room")),
            True,
            ["plan", "ask cluster", "plan"],
        ),
        ((PlacementError("no room at delft"),), True, ["plan"]),
        ((NotGranted({"vu": "no relation"}),), True, ["plan"]),
    ],
)
def test_who_was_away_is_asked_before_no_is_said(
    answers: tuple[Any, ...], back: bool, expected: list[str]
) -> None:
    plan, said = planning(*answers)

    def ask_again(sites: Collection[str]) -> bool:
        said.append("ask " + " ".join(sites))
        return back

    if answers[-1] is A_PLAN:
        assert plan_once_back(plan, lambda: frozenset({"cluster", "moon"}), ask_again) is A_PLAN
    else:
        with pytest.raises(type(answers[-1])) as error:
            plan_once_back(plan, lambda: frozenset({"cluster", "moon"}), ask_again)
        assert error.value is answers[-1]
    assert said == expected
