"""Sites and links: what is believed of a road that nobody described."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.sites import ASSUMED_BANDWIDTH, ASSUMED_LATENCY, Link, Site, Topology
from dataflow.stores import Store
from dataflow.testing.strategies import SITE_NAMES, topologies

THERE = Link(
    source="ams", target="uva", bandwidth=1e9, latency=0.01, origin="measured", measured_at=7.0
)
STORES = tuple(
    Store(name=name, site=site, url=f"file:///{site}/{name}")
    for site, name in (("ams", "z"), ("uva", "a"), ("ams", "a"))
)
TOPOLOGY = Topology(
    sites=(Site(name="ams"), Site(name="uva"), Site(name="wur")),
    stores=STORES,
    links=(THERE,),
    away=frozenset({"wur"}),
)


def test_seconds() -> None:
    link = Link(source="a", target="b", bandwidth=100.0, latency=0.5)
    assert link.seconds(0) == 0.5
    assert link.seconds(200) == 2.5
    assert link.origin == "declared"


def test_a_known_road() -> None:
    assert TOPOLOGY.link("ams", "uva") is THERE


def test_the_way_back() -> None:
    back = TOPOLOGY.link("uva", "ams")
    assert back == replace(THERE, source="uva", target="ams", origin="assumed")
    own = Link(source="uva", target="ams", bandwidth=1.0, latency=9.0)
    assert replace(TOPOLOGY, links=(THERE, own)).link("uva", "ams") is own


def test_an_unknown_road_is_slow() -> None:
    link = TOPOLOGY.link("wur", "ams")
    assert (link.source, link.target, link.origin) == ("wur", "ams", "assumed")
    assert (link.bandwidth, link.latency) == (ASSUMED_BANDWIDTH, ASSUMED_LATENCY)
    assert TOPOLOGY.link("ams", "nowhere").origin == "assumed"


def test_within_one_site_nothing_takes_time() -> None:
    assert TOPOLOGY.link("ams", "ams").seconds(1e18) == 0.0
    assert TOPOLOGY.link("nowhere", "nowhere").seconds(1) == 0.0


@given(topologies(), st.sampled_from(SITE_NAMES), st.sampled_from(SITE_NAMES))
def test_there_is_always_a_road(topology: Topology, source: str, target: str) -> None:
    link = topology.link(source, target)
    assert (link.source, link.target) == (source, target)
    assert math.isfinite(link.seconds(1e9))
    known = [one for one in topology.links if (one.source, one.target) == (source, target)]
    assert (link.origin == "declared") == bool(known or source == target)


def test_stores_at() -> None:
    assert [store.name for store in TOPOLOGY.stores_at("ams")] == ["z", "a"], "order of the file"
    assert TOPOLOGY.stores_at("uva") == (STORES[1],)
    assert TOPOLOGY.stores_at("wur") == TOPOLOGY.stores_at("nowhere") == ()


def test_sites_by_name() -> None:
    assert set(TOPOLOGY.site_by_name) == {"ams", "uva", "wur"}
    assert TOPOLOGY.site_by_name["uva"] is TOPOLOGY.sites[1]
    with pytest.raises(KeyError):
        TOPOLOGY.site_by_name["nowhere"]


def test_topologies_are_facts() -> None:
    assert repr(TOPOLOGY) == "<Topology 3 sites, 1 away>"
    looked_at = replace(TOPOLOGY)
    looked_at.link("ams", "uva")
    assert looked_at == TOPOLOGY
    with pytest.raises(AttributeError):
        TOPOLOGY.sites = ()  # type: ignore[misc]
