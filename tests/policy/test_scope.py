"""The scope language: read and printed, its errors with their position, and what it comes to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.errors import ConfigError, ScopeError
from dataflow.policy.check import check
from dataflow.policy.scope import (
    Around,
    At,
    Bind,
    Both,
    Counts,
    Cross,
    Either,
    Place,
    Scope,
    choose,
    delay,
    has_both,
    parse,
    scope_of,
    too_far,
)
from dataflow.sites import Link, LinkOrigin, Site, Topology
from dataflow.testing.strategies import dataset, square

PLAIN = st.from_regex(r"\w[\w.-]*", fullmatch=True)
NAMES = PLAIN | st.text(
    st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters='"'), min_size=1
)


def combined(part: type, children: st.SearchStrategy[Place]) -> st.SearchStrategy[Place]:
    several = st.lists(children, min_size=2, max_size=3)
    return several.map(lambda found: part(tuple(found)))


def either_of(children: st.SearchStrategy[Place]) -> st.SearchStrategy[Place]:
    return combined(Either, children) | combined(Cross, children)


SITES = NAMES.map(At)
TOGETHER = st.lists(NAMES, min_size=2, max_size=3, unique=True).map(
    lambda names: Both(tuple(map(At, names)))
)
PLACES = st.recursive(SITES | TOGETHER, either_of, max_leaves=6)
ENTRIES = (
    st.builds(Bind, NAMES, PLACES)
    | st.builds(Around, NAMES, st.integers(1, 10**7).map(lambda n: n / 1000))
    | st.builds(
        Counts, st.lists(st.tuples(st.integers(0, 99), NAMES), min_size=1, max_size=3).map(tuple)
    )
)


def distinct(entries: list[Bind | Around | Counts]) -> bool:
    words = [entry.word for entry in entries if isinstance(entry, Bind)]
    return len(set(words)) == len(words)


SCOPES = st.lists(ENTRIES, min_size=1, max_size=4).filter(distinct).map(
    lambda entries: Scope(tuple(entries))
) | PLACES.map(lambda place: Scope((Bind("", place),)))


@given(SCOPES)
def test_what_is_printed_reads_back(scope: Scope) -> None:
    assert parse(str(scope)) == scope


@given(st.text(alphabet='{}()&|%:,@" absw0123456789mé.', max_size=30))
def test_any_text_is_read_or_refused_with_a_position_in_it(text: str) -> None:
    refused = None
    try:
        assert parse(str(parse(text))) == parse(text)
    except ScopeError as error:
        refused = error
    assert refused is None or 0 <= refused.position <= len(text)


@pytest.mark.parametrize(
    ("text", "position", "said"),
    [
        ("{a: s1 & & s2}", 9, "not '&'"),
        ("{a: (s1}", 7, r"expected '\)'"),
        ("{a: s1", 6, "ends too early"),
        ("{a: s1)}", 6, r"not '\)'"),
        ("{}", 1, "expected a name"),
        ("", 0, "ends too early"),
        ("s1 s2", 3, "not 's2'"),
        ("{a: ../x}", 4, "not '.'"),
        ("{a s1}", 3, "expected ':'"),
        ("{a: s1, a: s2}", 8, "'a' is there twice"),
        ("{a: s1 & s1}", 9, "s1 is there twice in one &"),
        ("{a: s1 & (s2 % s3)}", 4, "% cannot stand under &"),
        ("{around: s1}", 11, "expected ','"),
        ("{around: s1, 50}", 13, "a delay such as 50 ms"),
        ("{around: s1, 0 ms}", 13, "more than nothing"),
        ("{around: s1, -1 ms}", 13, "not a number with a unit"),
        ("{around: s1, 5 parsec}", 13, "parsec"),
        ("{set: -1@s1}", 6, "a number"),
    ],
)
def test_errors_point_at_what_is_wrong(text: str, position: int, said: str) -> None:
    with pytest.raises(ScopeError, match=said) as caught:
        parse(text)
    assert caught.value.position == position
    assert "\n" not in text
    if text:
        assert str(caught.value).splitlines()[2] == "  " + " " * position + "^"


@pytest.mark.parametrize(
    ("text", "position", "said"),
    [
        ("{parity: mars}", 9, "no site 'mars'; there are p1, p2, p3"),
        ("{parity: p1 || (p2 & mars)}", 21, "no site 'mars'"),
        ("{sum: p1}", 1, "no step, operation or role is called 'sum'; there are parity"),
        ("{around: mars, 5 ms}", 9, "no site 'mars'"),
        ("{parity: p1 % p2}", 9, "not there yet"),
        ("{set: 2@p1, 3@p2}", 1, "not there yet"),
    ],
)
def test_what_cannot_be_honoured_is_refused_before_anything(
    text: str, position: int, said: str
) -> None:
    with pytest.raises(ScopeError, match=said) as caught:
        parse(text).check(["parity"], ["p1", "p2", "p3"])
    assert caught.value.position == position


def test_mappings_texts_and_scopes_are_one() -> None:
    assert scope_of({"parity": "uva"}) == parse("{parity: uva}")
    assert scope_of({"parity": "uva || amc"}) == parse("{parity: uva || amc}")
    assert scope_of("uva").place_of("whatever") == At("uva")
    assert not scope_of(None)
    assert scope_of(parse("uva & amc")) == parse("uva & amc")
    for scope in (
        "{parity: uva}",
        "{a: b, c: d}",
        "{parity: uva || amc, around: uva, 5 ms}",
        "uva",
    ):
        assert scope_of(parse(scope).document()) == parse(scope)
    with pytest.raises(ConfigError, match="scope must be a mapping"):
        scope_of(3)  # type: ignore[arg-type]
    with pytest.raises(ScopeError, match="a place is wanted"):
        scope_of({"parity": "{a: b}"})


def test_the_first_that_fits_is_chosen_and_all_of_it() -> None:
    place = parse("a & b || (c || d)").binds[0].place
    assert choose(place, {"a", "b"}.__contains__) == {"a": False, "b": False}
    assert choose(place, {"a", "d"}.__contains__) == {"d": False}
    assert choose(place, lambda _: False) == {"a": False, "b": False}
    assert choose(parse("a & (b || c)").binds[0].place, {"c"}.__contains__) == {
        "a": True,
        "c": False,
    }
    assert has_both(place)
    assert not has_both(parse("a || b").binds[0].place)


def road(a: str, b: str, seconds: float, origin: LinkOrigin = "measured") -> Link:
    return Link(source=a, target=b, bandwidth=1e6, latency=seconds, origin=origin)


def world(*links: Link, away: frozenset[str] = frozenset()) -> Topology:
    sites = tuple(Site(name=name) for name in ("s1", "p10", "p40", "p60", "p200", "unknown"))
    return Topology(sites=sites, links=links, away=away)


NEAR = (
    road("p10", "s1", 0.010),
    road("p40", "s1", 0.040),
    road("s1", "p60", 0.060, "declared"),
    road("p200", "s1", 0.200),
    road("unknown", "s1", 0.001, "assumed"),
)


def test_around_counts_what_was_measured_or_declared() -> None:
    far = too_far(parse("{around: s1, 50 ms}"), world(*NEAR))
    assert set(far) == {"p60", "p200", "unknown"}
    assert far["p60"] == "the scope says within 50 ms of s1, and it is 60 ms away"
    assert "unknown distance" in far["unknown"]
    assert delay(world(*NEAR), "s1", "s1") == 0.0
    both = world(road("s1", "p10", 1.0), road("p10", "s1", 0.01))
    assert delay(both, "s1", "p10") == 0.01, "the word of the end that asks"
    timed = world(road("s1", "p40", 0.2, "declared"), road("p40", "s1", 0.04, "timed"))
    assert delay(timed, "s1", "p40") == 0.04, "before what somebody has declared"


def test_steps_run_where_the_scope_says_and_nowhere_else() -> None:
    from dataflow.graph.graph import of_dataset

    graph = square(of_dataset(dataset("a", 1000)))

    def allowed(text: str, topology: Topology) -> set[str]:
        row = check(graph, topology, scope=parse(text))[graph.key]
        return {site for site, verdict in row.items() if verdict}

    here = world(*NEAR)
    assert allowed("{around: s1, 50 ms}", here) == {"s1", "p10", "p40"}
    assert allowed("{square: p200, around: s1, 50 ms}", here) == {"p200"}, "its own word counts"
    assert allowed("{square: p10 || p40}", here) == {"p10"}
    assert allowed("{square: p10 || p40}", world(away=frozenset({"p10"}))) == {"p40"}
    assert allowed("p10 & p40", here) == {"p10", "p40"}
    row = check(graph, world(away=frozenset({"p10"})), scope=parse("p10 || p40"))[graph.key]
    assert row["p10"].rule == "away"
    assert row["s1"].because == "the scope says p10 || p40"
