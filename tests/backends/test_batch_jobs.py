"""The scripts that batch systems get, as dask-jobqueue writes them."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from dataflow.backends.batch_jobs import CLASSES, clock, job_options
from dataflow.backends.certificates import as_files, remove_files
from dataflow.backends.cluster import IMPORTS, environment, own_security
from dataflow.backends.lent import import_jobqueue, words_of
from dataflow.backends.make import make_backend
from dataflow.config.backend_records import Batch, JobQueue, Sge


def script(system: str, settings: Batch, directory: Path, *, threads: int = 1) -> str:
    options = job_options(
        system,
        settings,
        name="flow-1",
        threads=threads,
        memory=4_000_000_000,
        logs=directory / "logs",
        directory=directory,
    )
    job_class = getattr(import_jobqueue(), CLASSES[system]).job_cls
    made: Any = job_class("tls://10.0.0.1:1234", name="flow-1-0", **options)
    return str(made.job_script())


def test_grid_engine_is_told_all_and_nothing_else(tmp_path: Path) -> None:
    settings = Sge(
        queue="lab.q",
        project="p",
        walltime=3601.5,
        parallel_environment="smp",
        resources={"gpu": "1"},
        memory_resource="h_vmem",
        directives=("-m n",),
        prologue=("module load python",),
        python="/opt/python",
        orphaned=90.0,
    )
    lines = script("sge", settings, tmp_path, threads=2).splitlines()
    assert [line for line in lines if line.startswith("#")] == [
        "#!/usr/bin/env bash",
        "#$ -N flow-1",
        "#$ -q lab.q",
        "#$ -P p",
        # Memory is asked for by slot.
        "#$ -l gpu=1,h_vmem=1908M",
        "#$ -l h_rt=01:00:02",
        f"#$ -e {tmp_path}/logs/",
        f"#$ -o {tmp_path}/logs/",
        "#$ -j y",
        "#$ -S /bin/bash",
        f"#$ -wd {tmp_path}",
        "#$ -r n",
        "#$ -pe smp 2",
        "#$ -m n",
    ]
    (command,) = (line for line in lines if "dask_worker" in line)
    assert command.startswith("/opt/python -m distributed.cli.dask_worker tls://10.0.0.1:1234 ")
    for words in ("--nthreads 2", "--memory-limit 3.73GiB", "--death-timeout 90", "--nanny"):
        assert words in command
    assert "--local-directory $TMPDIR " in command
    assert "--preload" not in command, "its nanny would import what only the worker needs"
    exports = [f"export {name}={value}" for name, value in environment().items()]
    assert "export ARROW_DEFAULT_MEMORY_POOL=system" in exports
    exports.append(f"export DASK_DISTRIBUTED__WORKER__PRELOAD='{json.dumps(IMPORTS)}'")
    assert lines[-2 - len(exports) : -1] == [*exports, "module load python"]


def test_grid_engine_is_asked_for_nothing_that_nobody_said(tmp_path: Path) -> None:
    text = script("sge", Sge(), tmp_path)
    for word in ("-q ", "-P ", "-l ", "-pe ", "-cwd"):
        assert f"#$ {word}" not in text


@pytest.mark.parametrize(
    ("system", "lines"),
    [
        ("pbs", ["#PBS -q short", "#PBS -A lab", "#PBS -l walltime=01:00:00"]),
        ("slurm", ["#SBATCH -p short", "#SBATCH -A lab", "#SBATCH -t 01:00:00"]),
        ("lsf", ["#BSUB -q short", '#BSUB -P "lab"', "#BSUB -W 01:00"]),
    ],
)
def test_other_systems_by_dask_jobqueue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, lines: list[str]
) -> None:
    # It asks LSF for its version and units.
    monkeypatch.setattr(import_jobqueue().lsf, "lsf_detect_units", lambda: "mb")
    settings = JobQueue(system=system, queue="short", project="lab", walltime=3600.0)  # type: ignore[arg-type]
    text = script(system, settings, tmp_path)
    for line in lines:
        assert line in text.splitlines()


def test_htcondor_by_dask_jobqueue(tmp_path: Path) -> None:
    settings = JobQueue(system="htcondor", directives=("+Project = lab",))
    lines = script("htcondor", settings, tmp_path).splitlines()
    assert "+Project = lab" in lines
    assert any("distributed.cli.dask_worker" in line for line in lines)


def test_durations_as_batch_systems_write_them() -> None:
    assert clock(None) is None
    assert clock(59.2) == "00:01:00"
    assert clock(100 * 3600.0) == "100:00:00"
    assert clock(61.0, to="minutes") == "00:02"


def test_importing_leaves_signals_alone() -> None:
    """A part of dask-jobqueue takes SIGINT when it is imported, which only a main thread may."""
    import subprocess
    import sys

    program = (
        "import asyncio, signal\n"
        "from dataflow.backends.lent import import_jobqueue\n"
        "before = signal.getsignal(signal.SIGINT)\n"
        "asyncio.run(asyncio.to_thread(import_jobqueue))\n"
        "assert signal.getsignal(signal.SIGINT) is before\n"
        "assert signal.signal(signal.SIGINT, signal.SIG_IGN) is before\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    before = signal.signal
    thread = threading.Thread(target=import_jobqueue)
    thread.start()
    thread.join()
    assert signal.signal is before


def test_certificates_are_for_this_account_alone(tmp_path: Path) -> None:
    security = own_security()
    written = as_files(security, tmp_path / "shared")
    files = sorted((tmp_path / "shared").iterdir())
    assert [file.name for file in files] == ["workers.crt", "workers.key"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    told = written.get_tls_config_for_role("worker")
    assert Path(told["key"]).read_text() == security.tls_worker_key
    again = as_files(own_security(), tmp_path / "shared")
    assert Path(again.tls_worker_key).read_text() != security.tls_worker_key
    remove_files(tmp_path / "shared")
    assert list((tmp_path / "shared").iterdir()) == []


def test_the_words_of_a_command_that_failed() -> None:
    error = RuntimeError(
        "Command exited with non-zero exit code.\nExit code: 1\nCommand:\nqsub x\nstdout:\n\n"
        'stderr:\nUnable to run job: unknown resource "x"\nExiting.\n\n'
    )
    assert words_of(error) == 'Unable to run job: unknown resource "x"\nExiting.'
    assert "'qsub'" in words_of(FileNotFoundError(2, "No such file", "qsub"))
    assert words_of(ValueError("other")) == "other"


@pytest.mark.parametrize("system", ["slurm", "pbs", "lsf", "htcondor"])
def test_made_by_kind(tmp_path: Path, system: Any) -> None:
    numbers: Any = {"site": "uva", "workers": 3, "threads": 2, "memory": 10**9}
    made = make_backend("jobqueue", settings=JobQueue(system=system), directory=tmp_path, **numbers)
    assert f"{system}: 0 of 3 x 2 threads, not running" in repr(made)
    sge = make_backend("sge", settings=None, directory=tmp_path, **numbers)
    assert "sge: 0 of 3 x 2 threads, not running" in repr(sge)
    assert list(sge.leases()) == []
    assert sge.trouble() == ""
