"""Facts of plans: places, prices and words, and the same work planned again."""

from __future__ import annotations

import json

import pytest

from dataflow.errors import PlacementError
from dataflow.session.again import plan_again
from dataflow.testing import staged
from dataflow.widgets.plan_facts import alternative, comparison, plan_facts


def test_facts_are_plain_and_complete() -> None:
    plan = staged.plan()
    facts = plan_facts(plan)
    assert json.loads(json.dumps(facts)) == facts
    bands = {band["site"]: band for band in facts["scene"]["bands"]}
    assert set(bands) == set(staged.SITES), "one may drag to a site that is not used"
    assert bands["utrecht"]["away"]
    assert bands["groningen"]["idle"]
    for box in facts["scene"]["boxes"]:
        band = bands[box["site"]]
        assert band["y"] <= box["y"] <= band["y"] + band["h"] - facts["scene"]["box"]
    assert max(b["y"] + b["h"] for b in bands.values()) <= facts["scene"]["height"]
    for step in plan.steps:
        shown = facts["steps"][step.key]
        assert {one["site"] for one in shown["candidates"]} == set(staged.SITES)
        assert shown["candidates"][0]["change"] == "chosen"
        assert shown["candidates"][-1]["site"] == "utrecht", "what may not be comes last"


def test_the_price_shown_is_the_price_of_the_other_plan() -> None:
    plan = staged.plan()
    step = plan.steps[0]
    other = next(
        one
        for one in plan.assignment_by_key[step.key].candidates
        if one.allowed and one.site != plan.assignment_by_key[step.key].site
    )
    text = alternative(plan, other)
    assert text[0] in "+−"
    pinned = staged.plan(pinned={step.key: other.site})
    assert pinned.seconds <= other.seconds * 1.001, "the rest may be placed better then"


def test_planned_again_keeps_what_was_asked_and_decided() -> None:
    known = staged.snapshot()
    participant = staged.participant(known)
    plan = participant.plan(staged.graph(3, known), scope="{compare: delft}", objective="time")
    again = plan_again(participant, plan, "anna", {plan.steps[0].key: "groningen"})
    assert again.assignment_by_key[plan.steps[0].key].site == "groningen"
    compare = next(step for step in plan.steps if step.label == "compare")
    assert again.assignment_by_key[compare.key].site == "delft"
    assert again.options["objective"] == "time"
    third = plan_again(participant, again, "anna", {plan.steps[1].key: "groningen"})
    assert [third.assignment_by_key[s.key].site for s in plan.steps[:2]] == ["groningen"] * 2
    told = comparison(plan, third)
    assert [row[2] for row in told["rows"][:2]] == ["groningen", "groningen"]


def test_what_cannot_be_is_said() -> None:
    known = staged.snapshot()
    participant = staged.participant(known)
    plan = participant.plan(staged.graph(3, known))
    with pytest.raises(PlacementError, match="does not answer"):
        plan_again(participant, plan, "anna", {plan.steps[0].key: "utrecht"})
