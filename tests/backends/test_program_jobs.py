"""Programs as jobs of Grid Engine: the command, the script (run by a real shell), and its marks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.backends.gridengine import Accounted
from dataflow.backends.program_jobs import (
    asked_for,
    job_name,
    marks_of,
    numbers_of,
    script,
    submission,
    why_not,
)
from dataflow.backends.program_watch import overtime, read_marks
from dataflow.backends.programs import OURS, ProgramOrder
from dataflow.config.backend_records import Sge

SITE = Sge(
    queue="all.q",
    project="adk",
    walltime=3600,
    parallel_environment="smp",
    memory_resource="h_vmem",
    resources={"gpu": "1"},
    directives=("-R y",),
)


def order(**said: object) -> ProgramOrder:
    return ProgramOrder(name="count", directories=(Path("/home/a/r1"),), **said)  # type: ignore[arg-type]


def words(asked: ProgramOrder, settings: Sge, tasks: int = 1) -> str:
    demanded = asked_for(asked, settings, 500_000_000)
    return " ".join(
        submission("run-1-count", demanded, settings, tasks=tasks, log=Path("/r/.flow/batch.log"))
    )


def test_what_the_operation_says_comes_before_what_the_site_says() -> None:
    said = words(order(cores=4, memory=4 * 2**30, walltime=60.0, queue="fast.q"), SITE)
    assert "-q fast.q -P adk -pe smp 4 -l gpu=1,h_rt=00:01:00,h_vmem=1024M -R y" in said
    assert "-t" not in said.split()
    said = words(order(), SITE, tasks=3)
    assert "-t 1-3 -q all.q -P adk -l gpu=1,h_rt=01:00:00,h_vmem=477M" in said


def test_where_nothing_is_said_nothing_is_asked() -> None:
    said = words(order(memory=10**9), Sge())
    assert not {"-q", "-P", "-pe", "-l"} & set(said.split())


def test_what_a_site_can_never_serve() -> None:
    assert why_not(order(cores=2), SITE) == ""
    assert "no parallel_environment" in why_not(order(cores=2), Sge())
    assert "no name of a queue" in why_not(order(queue="-sync"), SITE)


@pytest.mark.parametrize(
    ("said", "tasks", "numbers"),
    [
        ("17", 1, ["17"]),
        ("a word of welcome\n17\n", 1, ["17"]),
        ("17.1-3:1", 3, ["17.1", "17.2", "17.3"]),
    ],
)
def test_numbers(said: str, tasks: int, numbers: list[str]) -> None:
    assert numbers_of(said, tasks) == numbers


@pytest.mark.parametrize(("said", "tasks"), [("", 1), ("17", 2), ("17.1-3:1", 2), ("no", 1)])
def test_no_numbers(said: str, tasks: int) -> None:
    with pytest.raises(ValueError, match="qsub"):
        numbers_of(said, tasks)


def test_names_are_what_grid_engine_takes() -> None:
    assert job_name("run-1", "a/b c") == "run-1-a_b_c"


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_broken_marks_are_no_marks(batch: str, began: str, ended: str) -> None:
    marks_of(batch, began, ended)


def ran(script_text: str, **environment: str) -> int:
    return subprocess.run(
        ["/bin/bash"], input=script_text, text=True, env={"PATH": "/usr/bin:/bin", **environment}
    ).returncode


def made(folder: Path, name: str, command: str) -> Path:
    directory = folder / name
    (directory / OURS).mkdir(parents=True)
    (directory / OURS / "command").write_text(command)
    return directory


def test_the_script_runs_the_command_of_its_task(tmp_path: Path) -> None:
    one = made(tmp_path, "it's one", "echo one; pwd; exit 3")
    two = made(tmp_path, "two", 'echo "$GREETING" >&2; cat')
    text = script([one, two], Sge(prologue=("export GREETING=hello",)))
    assert ran(text, SGE_TASK_ID="undefined") == 3
    marks = read_marks(one)
    assert marks.exit_status == 3
    assert marks.host
    assert marks.began is not None
    assert marks.ended is not None
    assert marks.ended >= marks.began
    assert (one / OURS / "stdout").read_text() == f"one\n{one}\n"
    assert read_marks(two) == marks_of("", "", "")
    assert ran(text, SGE_TASK_ID="2") == 0
    assert (two / OURS / "stderr").read_text() == "hello\n"
    assert read_marks(two).exit_status == 0


def test_a_host_that_does_not_see_the_directory(tmp_path: Path) -> None:
    assert ran(script([tmp_path / "elsewhere"], Sge())) == 97


def test_what_counts_as_an_end_by_the_wall() -> None:
    killed = Accounted(id="1", exit_status=137, failed="37: qmaster enforced h_rt", seconds=60)
    assert overtime(60.0, killed)
    assert not overtime(None, killed)
    assert not overtime(120.0, killed)
    assert not overtime(60.0, Accounted(id="1", exit_status=1, seconds=70))
