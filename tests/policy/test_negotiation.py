"""Negotiations: only the moves of the protocol, and terms that bind one user."""

from __future__ import annotations

import pickle
from itertools import product
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.agreements import Relation
from dataflow.documents import from_json, to_json
from dataflow.errors import ConfigError, OutOfOrder, PolicyError
from dataflow.policy.negotiation import (
    ENDED,
    MOST_MOVES,
    MOST_NBYTES,
    Move,
    Negotiation,
    Side,
    State,
    begin,
    moved,
)

MOVES: tuple[Move, ...] = get_args(Move)
SIDES: tuple[Side, ...] = get_args(Side)
STATES: tuple[State, ...] = get_args(State)

#: The contract negotiation of the Dataspace Protocol: who may go from where to where.
PROTOCOL = {
    ("requested", "provider", "offer"): "offered",
    ("requested", "provider", "agree"): "agreed",
    ("offered", "consumer", "request"): "requested",
    ("offered", "consumer", "accept"): "accepted",
    ("accepted", "provider", "agree"): "agreed",
    ("agreed", "consumer", "verify"): "verified",
    ("verified", "provider", "finalize"): "finalized",
    **{
        (state, side, "terminate"): "terminated"
        for state in ("requested", "offered", "accepted", "agreed", "verified")
        for side in SIDES
    },
}


def terms(**fields: Any) -> Relation:
    asked: dict[str, Any] = {
        "id": "",
        "request_types": ("mean",),
        "datasets": ("wageGap",),
        "archetypes": ("fetch",),
    }
    return Relation(**{**asked, **fields})


def begun(side: Side = "consumer", **fields: Any) -> Negotiation:
    given: dict[str, Any] = {
        "id": "n1",
        "site": "uva",
        "agreement": "wages",
        "user": "anna",
        "terms": terms(),
        "side": side,
        "by": "anna" if side == "consumer" else "root",
        "at": 0.0,
    }
    return begin(**{**given, **fields})


def at(state: State) -> Negotiation:
    fields = {name: getattr(begun(), name) for name in Negotiation.__slots__}
    return Negotiation(**{**fields, "state": state})


@pytest.mark.parametrize(("state", "side", "move"), list(product(STATES, SIDES, MOVES)))
def test_each_move_from_each_state_by_each_side(state: State, side: Side, move: Move) -> None:
    known, expected = at(state), PROTOCOL.get((state, side, move))
    if expected is None:
        with pytest.raises(OutOfOrder) as refused:
            moved(known, move, side=side, by="x", at=1.0)
        assert set(refused.value.possible) == {m for s, w, m in PROTOCOL if (s, w) == (state, side)}
        again = pickle.loads(pickle.dumps(refused.value))
        assert str(again) == str(refused.value)
    else:
        assert moved(known, move, side=side, by="x", at=1.0).state == expected
        assert move in known.moves(side)


@given(st.lists(st.tuples(st.sampled_from(SIDES), st.sampled_from(MOVES)), max_size=30))
def test_no_order_of_moves_binds_without_both(tried: list[tuple[Side, Move]]) -> None:
    known = begun()
    for side, move in tried:
        try:
            known = moved(known, move, side=side, by=side, at=1.0)
        except OutOfOrder:
            continue
    assert from_json(Negotiation, to_json(known)) == known
    assert known.terms.users == ("anna",)
    if known.state == "finalized":
        last = [(step.side, step.move) for step in known.steps[-3:]]
        assert last == [("provider", "agree"), ("consumer", "verify"), ("provider", "finalize")]
    if known.state in ENDED:
        assert known.moves("consumer") == known.moves("provider") == []


def test_terms_are_for_the_one_user_whatever_they_say() -> None:
    greedy = terms(id="study", users=("*",), groups=("all",), origin="file")
    asked = begun(terms=greedy)
    assert asked.terms == terms(id="n1", users=("anna",), origin="agreed")
    countered = moved(asked, "offer", side="provider", by="root", at=1.0, terms=greedy)
    assert countered.terms == asked.terms


def test_terms_come_with_proposals_only() -> None:
    offered = moved(begun(), "offer", side="provider", by="root", at=1.0, terms=terms(row_floor=9))
    assert offered.terms.row_floor == 9
    with pytest.raises(ConfigError, match="terms as they are"):
        moved(offered, "accept", side="consumer", by="anna", at=2.0, terms=terms())
    accepted = moved(offered, "accept", side="consumer", by="anna", at=2.0)
    assert accepted.terms.row_floor == 9


@pytest.mark.parametrize("empty", ["request_types", "datasets", "archetypes", "purposes"])
def test_terms_that_grant_nothing(empty: str) -> None:
    with pytest.raises(ConfigError, match=empty):
        begun(terms=terms(**{empty: ()}))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"row_floor": -1}, "less than 0"),
        ({"anonymity": -1}, "less than 0"),
        ({"anonymity": 5}, "go together"),
        ({"among": ("born",)}, "go together"),
        ({"anonymity": 5, "among": ("born",), "hidden": ("born",)}, "nobody sees 'born'"),
        ({"datasets": ("a", " ")}, "no word"),
        ({"forced": {"mean": ("",)}}, "no word"),
        ({"datasets": ("x" * MOST_NBYTES,)}, "bytes of JSON"),
    ],
)
def test_terms_that_no_site_file_could_have(wrong: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        begun(terms=terms(**wrong))
    with pytest.raises(ConfigError, match=said):
        moved(begun(), "offer", side="provider", by="root", at=1.0, terms=terms(**wrong))


@pytest.mark.parametrize("user", ["", "*"])
def test_it_is_with_one_user(user: str) -> None:
    with pytest.raises(PolicyError, match="one user"):
        begun("provider", user=user)


def test_nobody_bargains_for_ever() -> None:
    known = begun()
    while len(known.steps) < MOST_MOVES:
        side: Side = "provider" if known.state == "requested" else "consumer"
        move: Move = "offer" if side == "provider" else "request"
        known = moved(known, move, side=side, by="x", at=1.0)
    assert known.moves("provider") == known.moves("consumer") == ["terminate"]
    with pytest.raises(OutOfOrder):
        moved(known, "request", side="consumer", by="x", at=1.0)
    assert moved(known, "terminate", side="consumer", by="x", at=1.0).state == "terminated"
