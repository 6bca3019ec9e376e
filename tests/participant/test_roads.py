"""What is measured is known to the next session, and to nobody who means another site."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.participant.roads import FORGOTTEN_SECONDS, ROADS_FILE, Roads
from dataflow.sites import Link

HERE = "visitor"
SITES = st.sampled_from(["a", "b", "c"])
ADDRESSES = st.sampled_from([None, "ssh://a", "https://a:8443"])


def road(site: str, measured_at: float = 1000.0, bandwidth: float = 1e6) -> Link:
    return Link(
        source=site,
        target=HERE,
        bandwidth=bandwidth,
        latency=0.01,
        origin="measured",
        measured_at=measured_at,
    )


@settings(max_examples=50)
@given(told=st.lists(st.tuples(SITES, ADDRESSES, st.integers(1, 10**9)), max_size=12))
def test_the_last_of_each_place_is_kept(
    told: list[tuple[str, str | None, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("state") / ROADS_FILE
    expected: dict[tuple[str, str | None], Link] = {}
    for at, (site, address, bandwidth) in enumerate(told):
        link = road(site, 1000.0 + at, bandwidth)
        Roads(file).keep(site, address, [link])
        expected[site, address] = link
    for (site, address), link in expected.items():
        assert Roads(file).of(site, address) == [link]
    assert Roads(file).of("unknown", None) == []
    assert [path.name for path in file.parent.iterdir()] in ([], [ROADS_FILE])


def test_both_ways_to_a_store(tmp_path: Path) -> None:
    there, back = road("a"), replace(road("a"), source=HERE, target="a")
    Roads(tmp_path / ROADS_FILE).keep("a", None, [there, back])
    assert Roads(tmp_path / ROADS_FILE).of("a", None) == [there, back]


def test_the_old_are_forgotten(tmp_path: Path) -> None:
    roads = Roads(tmp_path / ROADS_FILE)
    roads.keep("a", None, [road("a", 1000.0)])
    roads.keep("b", None, [road("b", 1001.0 + FORGOTTEN_SECONDS)])
    assert roads.of("a", None) == []
    assert roads.of("b", None)


def test_a_file_that_cannot_be_used_costs_a_measurement(tmp_path: Path) -> None:
    file = tmp_path / ROADS_FILE
    file.write_text("{not json")
    roads = Roads(file)
    assert roads.of("a", None) == []
    roads.keep("a", None, [road("a")])
    assert roads.of("a", None) == [road("a")]
    nowhere = Roads(tmp_path / "missing" / ROADS_FILE)
    nowhere.keep("a", None, [road("a")])
    assert nowhere.of("a", None) == []
