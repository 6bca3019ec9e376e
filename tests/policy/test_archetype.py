"""Archetypes: the choice, the load rule of listing 3.1, third parties and roles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.errors import NotGranted
from dataflow.policy.archetype import (
    SHIPPED,
    Choice,
    Load,
    Wish,
    addressed,
    choose,
    prefers_other,
    roles,
    third_parties,
)
from tests.policy.examples import BOTH

C2D, TTP = BOTH
IDLE, BUSY = Load(cpu=0.1, memory=0.2), Load(cpu=0.9, memory=0.95)


def chosen(choice: Choice) -> set[str]:
    return set(choice.archetypes.values())


def test_shipped_weights() -> None:
    assert SHIPPED[C2D].weight == 100
    assert SHIPPED[TTP].weight == 200
    assert (SHIPPED[C2D].computes, SHIPPED[TTP].computes) == ("provider", "other")


def test_the_least_weight_that_all_allow() -> None:
    assert chosen(choose({"vu": BOTH, "uva": BOTH}, SHIPPED)) == {C2D}
    assert chosen(choose({"vu": BOTH, "uva": [TTP]}, SHIPPED)) == {TTP}


def test_dy03_who_ruled_what_out() -> None:
    choice = choose({"vu": BOTH, "uva": [TTP]}, SHIPPED)
    assert [(c.name, c.chosen, c.because) for c in choice.considered] == [
        (TTP, True, "nothing else is left"),
        (C2D, False, "uva does not allow it"),
    ]


def test_dy04_an_empty_intersection_names_all() -> None:
    allowed = {"vu": [C2D], "uva": [TTP]}
    with pytest.raises(NotGranted) as refused:
        choose(allowed, SHIPPED)
    assert set(refused.value.refusals) == {"vu", "uva"}
    assert "allows computeToData" in str(refused.value)
    mixed = choose(allowed, SHIPPED, wish=Wish(mixed=True))
    assert mixed.archetypes == {"vu": C2D, "uva": TTP}


def test_aggregate_decides_before_weight() -> None:
    allowed = {"vu": BOTH, "uva": BOTH}
    assert chosen(choose(allowed, SHIPPED, wish=Wish(aggregate=True))) == {TTP}
    assert chosen(choose(allowed, SHIPPED, wish=Wish(aggregate=False))) == {C2D}
    assert chosen(choose({"vu": BOTH}, SHIPPED, wish=Wish(aggregate=True))) == {C2D}


def test_aggregate_that_is_not_allowed_for_all_is_refused() -> None:
    with pytest.raises(NotGranted, match="one answer over all owners"):
        choose({"vu": [C2D], "uva": BOTH}, SHIPPED, wish=Wish(aggregate=True))


def test_the_users_word_stays_inside_the_agreements() -> None:
    assert chosen(choose({"vu": BOTH}, SHIPPED, wish=Wish(archetype=TTP))) == {TTP}
    with pytest.raises(NotGranted, match="fetch, which nobody allows"):
        choose({"vu": BOTH}, SHIPPED, wish=Wish(archetype="fetch"))


def test_what_is_impossible_is_passed_over_with_its_reason() -> None:
    choice = choose({"vu": BOTH}, SHIPPED, impossible={C2D: "the scope says surf"})
    assert chosen(choice) == {TTP}
    assert choice.considered[1].because == "the scope says surf"


LISTING_3_1 = [
    (IDLE, False, IDLE, C2D),
    (IDLE, False, BUSY, C2D),
    (IDLE, True, IDLE, TTP),
    (IDLE, True, BUSY, C2D),
    (BUSY, False, IDLE, TTP),
    (BUSY, True, IDLE, TTP),
    (BUSY, False, BUSY, C2D),
    (BUSY, True, BUSY, C2D),
]


@pytest.mark.parametrize(("provider", "aggregate", "other", "preferred"), LISTING_3_1)
def test_listing_3_1(provider: Load, aggregate: bool, other: Load, preferred: str) -> None:
    assert prefers_other(provider, other, aggregate=aggregate) == (preferred == TTP)


@pytest.mark.parametrize(("provider", "aggregate", "other", "preferred"), LISTING_3_1)
def test_the_load_decides_before_weight(
    provider: Load, aggregate: bool, other: Load, preferred: str
) -> None:
    """One owner: with several, one answer over all decides by itself."""
    choice = choose(
        {"vu": BOTH},
        SHIPPED,
        wish=Wish(aggregate=aggregate),
        loads={"vu": provider, "surf": other},
        others=["surf"],
    )
    assert chosen(choice) == {preferred}


def test_either_at_the_threshold_is_loaded() -> None:
    assert Load(cpu=0.8).loaded
    assert Load(memory=0.8).loaded
    assert not Load(cpu=0.79, memory=0.79).loaded
    assert not Load(cpu=0.85, threshold=0.9).loaded


def test_the_load_never_allows_what_an_owner_forbids() -> None:
    loads = {"vu": BUSY, "surf": IDLE}
    choice = choose({"vu": [C2D]}, SHIPPED, loads=loads, others=["surf"])
    assert chosen(choice) == {C2D}


def test_predicted_cost_takes_the_place_of_the_load() -> None:
    loads = {"vu": BUSY, "surf": IDLE}
    choice = choose({"vu": BOTH}, SHIPPED, loads=loads, others=["surf"], costs={C2D: 1.0, TTP: 2.0})
    assert chosen(choice) == {C2D}
    assert "predicted cost" in choice.considered[0].because


def test_third_parties_are_permitted_by_all_and_there() -> None:
    allowed = {"vu": ["surf", "other"], "uva": ["surf", "third"]}
    assert third_parties(allowed, ()) == (["surf"], "")
    assert third_parties(allowed, ("surf",)) == ([], "third party surf does not answer")
    found, why = third_parties({"vu": ["other"], "uva": ["surf"]}, ())
    assert not found
    assert "vu permits other; uva permits surf" in why
    assert third_parties({"vu": ["b", "a"]}, ())[0] == ["a", "b"]


def test_roles_and_whom_the_user_addresses() -> None:
    all_of_them = roles(SHIPPED[C2D], ["vu", "uva"])
    assert all_of_them == {"vu": "all", "uva": "all"}
    assert addressed(all_of_them) == ["vu", "uva"]
    through = roles(SHIPPED[TTP], ["vu", "uva"], "surf")
    assert through == {"vu": "dataProvider", "uva": "dataProvider", "surf": "computeProvider"}
    assert addressed(through) == ["surf"]


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "c", "d"]),
        st.sets(st.sampled_from(sorted(SHIPPED))),
        min_size=1,
    ),
    st.sampled_from([None, True, False]),
    st.booleans(),
)
def test_no_owner_is_ever_overruled(
    allowed: dict[str, set[str]], aggregate: bool | None, mixed: bool
) -> None:
    wish = Wish(aggregate=aggregate, mixed=mixed)
    loads = {"a": BUSY, "b": IDLE}
    try:
        choice = choose(allowed, SHIPPED, wish=wish, loads=loads, others=["b"])
    except NotGranted:
        return
    assert all(choice.archetypes[site] in allowed[site] for site in allowed)
    if not mixed:
        assert len(chosen(choice)) == 1


def test_the_double_count_of_the_original_is_told_apart() -> None:
    """Means of both universities together, by their rows; the aggregate upstream counts one twice."""
    men = (12.253 * 8116 + 10.856 * 8007) / (8116 + 8007)
    women = (10.505 * 10523 + 9.657 * 8618) / (10523 + 8618)
    assert (round(men, 3), round(women, 3)) == (11.559, 10.123)
    wrong_men = (2 * 12.253 * 8116 + 10.856 * 8007) / (2 * 8116 + 8007)
    wrong_women = (2 * 10.505 * 10523 + 9.657 * 8618) / (2 * 10523 + 8618)
    assert wrong_men == pytest.approx(11.792, abs=1e-3)
    assert wrong_women == pytest.approx(10.259, abs=1e-3)
