"""Shell commands run as a process: what is said of the run, and its time limit."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import xxhash

from dataflow.datasets import Dataset, Extent, Replica
from dataflow.errors import OperationFailed, WalltimeExceeded, from_document, to_document
from dataflow.execution.commands import run_command
from dataflow.execution.inputs import Lying
from dataflow.execution.programs import STREAM_NBYTES, Program
from dataflow.graph.graph import of_dataset
from dataflow.graph.operation import Step, shell

X = of_dataset(
    Dataset(id="x", name="x", key="k", kind="files", extent=Extent(nbytes=4), site="ams")
)


def step_of(command: str, **needs: Any) -> Step:
    (step,) = shell(command, **needs)(x=X).steps.values()
    return step


def run(step: Step, folder: Path, text: str = "a\nb\n") -> tuple[list[Path], list[Program]]:
    path, work = folder / "input.txt", folder / "work"
    path.write_text(text)
    work.mkdir()
    replica = Replica(
        key="k", site="ams", store="data", url=f"file://{path}", format="files", nbytes=4
    )
    told: list[Program] = []
    try:
        lying = Lying(replica=replica, kind="files")
        found = run_command(
            step, [(lying, path)], work, site="ams", run="try1", gone=bool, tell=told.append
        )
    except OperationFailed as error:
        error.told = told  # type: ignore[attr-defined]
        raise
    return found, told


def test_files_with_relation_and_checksum(tmp_path: Path) -> None:
    step = step_of("cat {x} > {output:copy.txt}; echo said; echo blamed >&2")
    (copy,), (program,) = run(step, tmp_path)
    assert (program.status, program.exit_status, program.run) == ("done", 0, "try1")
    assert (program.stdout, program.stderr) == ("said\n", "blamed\n")
    assert [file.relation for file in program.files] == [
        "script",
        "input",
        "output",
        "stdout",
        "stderr",
    ]
    (given,), (made,) = program.of("input"), program.of("output")
    assert (given.slot, given.name) == ("x", str(tmp_path / "input.txt"))
    assert made.name == "copy.txt"
    assert given.checksum == made.checksum == xxhash.xxh3_128_hexdigest(copy.read_bytes())
    assert given.nbytes == made.nbytes == 4
    assert program.began is not None
    assert program.ended is not None
    assert 0 <= program.ended - program.began < 60


def test_of_a_long_stream_the_end_is_kept_and_all_is_counted(tmp_path: Path) -> None:
    _, (program,) = run(step_of("seq 1 100000; cat {x} > {output}"), tmp_path)
    (stream,) = program.of("stdout")
    assert len(stream.text) == STREAM_NBYTES
    assert stream.text.endswith("\n100000\n")
    whole = "".join(f"{n}\n" for n in range(1, 100_001)).encode()
    assert (stream.nbytes, stream.checksum) == (len(whole), xxhash.xxh3_128_hexdigest(whole))


def test_what_failed_has_its_streams(tmp_path: Path) -> None:
    with pytest.raises(OperationFailed, match="status 3") as caught:
        run(step_of("echo before; echo why >&2; exit 3; cat {x} > {output}"), tmp_path)
    (program,) = caught.value.told  # type: ignore[attr-defined]
    assert (program.status, program.exit_status) == ("failed", 3)
    assert (program.stdout, program.stderr) == ("before\n", "why\n")
    assert program.reason == "the command ended with status 3"


def test_time_limit(tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(WalltimeExceeded, match=r"time limit of 0\.5 s") as caught:
        run(
            step_of("echo slow >&2; sleep 619; cat {x} > {output}", walltime="500 ms"),
            tmp_path,
        )
    assert time.monotonic() - begun < 60
    (program,) = caught.value.told  # type: ignore[attr-defined]
    assert (program.status, program.exit_status) == ("failed", None)
    assert program.demanded is not None
    assert program.demanded.walltime == 0.5
    assert "slow" in str(caught.value)
    again = from_document(to_document(caught.value))
    assert isinstance(again, WalltimeExceeded)
    assert str(again) == str(caught.value)
