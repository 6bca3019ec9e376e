"""What is taken from earlier runs, and what is guessed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dataflow import documents
from dataflow.placement.measurements import (
    GUESSED_FIXED,
    GUESSED_RATE,
    Band,
    Crossing,
    Measurements,
    Pace,
    identity,
)
from dataflow.sites import Link, Site, Topology
from dataflow.testing.strategies import square

SLOW, FAST = Site(name="p1", speed=0.5), Site(name="p2", speed=2.0)
WORLD = Topology(sites=(SLOW, FAST))
OPERATION = square.operation


def test_nothing_known_is_a_guess() -> None:
    pace, guessed = Measurements().pace(OPERATION, FAST, WORLD)
    assert guessed == "never run"
    assert pace.fixed == GUESSED_FIXED / 2
    assert pace.per_byte == 1 / GUESSED_RATE / 2


def test_runs_at_the_site_win() -> None:
    paces = {identity(OPERATION): {"p1": Pace(fixed=3.0, per_byte=1e-9)}}
    assert Measurements(paces=paces).pace(OPERATION, SLOW, WORLD) == (
        paces[identity(OPERATION)]["p1"],
        "",
    )


def test_runs_elsewhere_are_scaled_by_speed() -> None:
    paces = {identity(OPERATION): {"p1": Pace(fixed=4.0, per_byte=1e-9, runs=5)}}
    pace, guessed = Measurements(paces=paces).pace(OPERATION, FAST, WORLD)
    assert guessed == "as at other sites"
    assert (pace.fixed, pace.per_byte, pace.runs) == (pytest.approx(1.0), pytest.approx(2.5e-10), 5)


def test_noise_makes_no_difference_between_sites() -> None:
    def paces(first: float, second: float, band: Band) -> list[float]:
        both = {
            "p1": Pace(fixed=first / SLOW.speed, per_byte=0.0, band=band),
            "p2": Pace(fixed=second / FAST.speed, per_byte=0.0, band=band),
        }
        known = Measurements(paces={identity(OPERATION): both})
        return [known.pace(OPERATION, s, WORLD)[0].fixed * s.speed for s in (SLOW, FAST)]

    wide, narrow = Band(), Band(low=0.95, high=1.05)
    assert paces(1.0, 1.5, wide) == [pytest.approx(1.25)] * 2
    assert paces(1.0, 1.5, narrow) == [pytest.approx(1.0), pytest.approx(1.5)]
    assert paces(1.0, 9.0, wide) == [pytest.approx(1.0), pytest.approx(9.0)]


def test_one_cold_start_elsewhere_is_no_rule() -> None:
    both = {
        "p1": Pace(fixed=1.0 / SLOW.speed, per_byte=0.0, runs=4, band=Band(low=0.3, high=9.0)),
        "p2": Pace(fixed=9.0 / FAST.speed, per_byte=0.0, runs=1),
    }
    known = Measurements(paces={identity(OPERATION): both})
    assert [known.pace(OPERATION, s, WORLD)[0].fixed * s.speed for s in (SLOW, FAST)] == [1.0, 1.0]


def test_orders_tell_sites_apart_when_there_are_many() -> None:
    def begins(runs: int) -> list[float]:
        known = Measurements(
            beginnings={
                "p1": Pace(fixed=0.2, per_byte=0.0, runs=runs),
                "p2": Pace(fixed=60.0, per_byte=0.0, runs=runs),
            }
        )
        return [known.beginning(site)[0] for site in (SLOW, FAST)]

    assert begins(3)[0] == begins(3)[1]
    assert begins(8) == [0.2, 60.0]


def test_load_slows_down() -> None:
    paces = {identity(OPERATION): {"p1": Pace(fixed=1.0, per_byte=0.0)}}
    busy = Measurements(paces=paces, load={"p1": 0.75})
    assert busy.pace(OPERATION, SLOW, WORLD)[0].fixed == 4.0
    assert Measurements(paces=paces, load={"p1": 1.0}).pace(OPERATION, SLOW, WORLD)[0].fixed < 100


def test_links_as_lately_used() -> None:
    lately = Link(source="p1", target="p2", bandwidth=5.0, latency=0.1, origin="measured")
    roads = Measurements(links=(lately,)).apply_to(WORLD)
    assert roads[0][1] is lately
    assert roads[1][0].origin == "assumed"


def test_a_road_that_nobody_used_takes_what_others_take_beside_their_bytes() -> None:
    sites = tuple(Site(name=name) for name in ("a", "b", "c", "d"))
    links = tuple(
        Link(source=source, target=target, bandwidth=1e6, latency=latency)
        for source, target, latency in (("a", "b", 0.01), ("b", "c", 0.02), ("c", "a", 0.03))
    )
    world = Topology(sites=sites, links=links)
    seen = {
        "a": {"b": Crossing(nbytes=1e5, seconds=0.1 + 0.01 + 0.04)},
        "b": {"c": Crossing(nbytes=1e5, seconds=0.1 + 0.02 + 0.06)},
        "x": {"a": Crossing(nbytes=1.0, seconds=60.0)},  # of a federation that was larger once
    }
    roads = Measurements(crossings=seen).apply_to(world)
    assert roads[0][1].latency == pytest.approx(0.05)
    assert roads[1][2].latency == pytest.approx(0.08)
    assert roads[2][0].latency == pytest.approx(0.03 + 0.05)
    assert roads[2][0].bandwidth == 1e6
    assert roads[0][3].latency == pytest.approx(world.link("a", "d").latency + 0.05)
    assert [roads[k][k].latency for k in range(4)] == [0.0] * 4


def test_measurements_can_be_saved() -> None:
    given = Measurements(
        paces={"f@1": {"p1": Pace(fixed=1.0, per_byte=2.0)}},
        output_ratio={"f@1": 0.5},
        load={"p1": 0.1},
    )
    assert documents.from_json(Measurements, documents.to_json(given)) == given


def test_plans_are_the_same_in_every_process() -> None:
    program = """
from hypothesis import given, settings
from dataflow.placement.make import make_plan
from dataflow.testing.strategies import worlds
@settings(max_examples=25, derandomize=True, database=None, deadline=None)
@given(worlds())
def show(w):
    print(make_plan(w.graph, topology=w.topology, replicas=w.replicas, verdicts=w.verdicts).id)
show()
"""
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
    assert len(found.pop().split()) >= 25
