"""What a program asks of the place where it runs."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow.errors import GraphError
from dataflow.graph.needs import Needs, is_queue, needs_of
from dataflow.graph.operation import shell


def test_as_people_write_it() -> None:
    assert needs_of("f") == Needs()
    assert needs_of("f", cores=2, memory="1.5 GB", walltime="10 min", queue="long.q@fast") == Needs(
        cores=2, memory=1_500_000_000, walltime=600.0, queue="long.q@fast"
    )
    assert needs_of("f", memory=2_000, walltime=90) == Needs(memory=2_000, walltime=90.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"cores": 0},
        {"cores": 1.5},
        {"cores": True},
        {"memory": "1 G"},
        {"memory": -1},
        {"walltime": "soon"},
        {"walltime": float("inf")},
        {"walltime": float("nan")},
        {"queue": "-now"},
        {"queue": "a b"},
        {"queue": "long.q\n"},
    ],
)
def test_what_makes_no_sense_is_refused_when_it_is_declared(wrong: dict[str, Any]) -> None:
    with pytest.raises(GraphError, match=r"^count: "):
        shell("wc {x} > {output}", name="count", **wrong)


def test_needs_do_not_change_what_is_meant() -> None:
    plain, greedy = shell("wc {x} > {output}"), shell("wc {x} > {output}", cores=8, memory="1 TB")
    assert plain.operation.version == greedy.operation.version
    assert greedy.operation.needs.cores == 8


def test_a_queue_is_one_word_and_no_option() -> None:
    assert is_queue("all.q")
    assert is_queue("all.q@node-1")
    assert not any(map(is_queue, ["", "-q", "a b", "a;b", "a\n"]))
