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
