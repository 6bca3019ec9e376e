"""Runs of shell operations as the journal keeps them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from dataflow.documents import from_json, to_json
from dataflow.execution.programs import ENDED, Program, ProgramFile, away, stopped, taken_in

STATUSES = ("new", "pending", "running", "done", "failed", "cancelled")
ONE = Program(key="k", label="count", site="hpc", run="r1", status="new")

programs = st.builds(
    lambda key, run, status: replace(ONE, key=key, run=run, status=status),
    st.sampled_from("kl"),
    st.sampled_from(["r1", "r2"]),
    st.sampled_from(STATUSES),
)


@given(st.lists(programs, max_size=12))
def test_an_end_of_a_run_is_its_last_word(told: list[Program]) -> None:
    known: dict[str, Program] = {}
    for program in told:
        before = known.get(program.key)
        known = dict(taken_in(known, program))
        after = known[program.key]
        if before is not None and before.run == program.run and before.over:
            assert after.over
        else:
            assert after == program
    assert set(known) == {program.key for program in told}


@given(st.lists(programs, max_size=6))
def test_nothing_runs_after_a_stop(told: list[Program]) -> None:
    known = {program.key: program for program in told}
    after = stopped(known, 5.0)
    assert all(program.over for program in after.values())
    for key, program in known.items():
        assert after[key] == program if program.over else after[key].status == "cancelled"
    assert stopped(after, 9.0) == after


def test_what_is_away_is_unknown_but_an_end_stays() -> None:
    there = replace(ONE, key="b", site="ams", status="running")
    ended = replace(ONE, key="c", status="failed")
    seen = away([replace(ONE, status="pending"), there, ended], ["hpc"])
    assert [one.status for one in seen] == ["unknown", "running", "failed"]
    assert "last heard: pending" in seen[0].reason
    assert "unknown" not in ENDED


def test_streams_and_the_wire() -> None:
    files = (
        ProgramFile(relation="stdout", name="stdout", nbytes=3, text="out"),
        ProgramFile(relation="stderr", name="stderr"),
    )
    program = replace(ONE, status="done", files=files)
    assert (program.stdout, program.stderr) == ("out", "")
    assert from_json(Program, to_json(program)) == program
