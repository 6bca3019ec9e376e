"""Homes: what lies together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dataflow.graph.homes import MIXED, common, together

SITES = st.frozensets(st.sampled_from(["ams", "delft", "uva"]), max_size=3)
HOMES = st.dictionaries(st.sampled_from("abcdef"), SITES, min_size=1)


def homes(**sites: str) -> dict[str, frozenset[str]]:
    return {key: frozenset(named.split()) for key, named in sites.items()}


def test_common() -> None:
    assert common([]) == MIXED
    assert common([frozenset({"ams"})]) == {"ams"}
    assert common([frozenset({"ams", "uva"}), frozenset({"uva", "wur"})]) == {"uva"}
    assert common([frozenset({"ams"}), frozenset({"uva"})]) == MIXED
    assert common([frozenset({"ams"}), MIXED]) == MIXED


def test_groups_by_site() -> None:
    where = homes(a="ams", b="uva", c="ams")
    assert together("abc", where, adjacent=False) == [[0, 2], [1]]
    assert together("abc", where, adjacent=True) == [[0], [1], [2]]
    assert together("acb", where, adjacent=True) == [[0, 1], [2]]
    assert together("", where, adjacent=True) == []


def test_copies_at_several_sites() -> None:
    where = homes(a="ams uva", b="uva wur", c="wur")
    assert together("abc", where, adjacent=False) == [[0, 1], [2]]
    assert together("cba", where, adjacent=False) == [[0, 1], [2]]


def test_what_is_nowhere_is_together_with_itself_only() -> None:
    where = homes(a="", b="")
    assert together("aba", where, adjacent=False) == [[0, 2], [1]]
    assert together("aba", where, adjacent=True) == [[0], [1], [2]]


@given(HOMES, st.data(), st.booleans())
def test_every_input_is_in_one_group(
    where: dict[str, frozenset[str]], data: st.DataObject, adjacent: bool
) -> None:
    inputs = data.draw(st.lists(st.sampled_from(sorted(where))))
    groups = together(inputs, where, adjacent=adjacent)
    assert sorted(position for group in groups for position in group) == list(range(len(inputs)))
    for group in groups:
        keys = {inputs[position] for position in group}
        assert len(keys) == 1 or common([where[key] for key in keys])
    if adjacent:
        assert [position for group in groups for position in group] == list(range(len(inputs)))
