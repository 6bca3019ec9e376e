"""``dataflow batch``: many notebooks by papermill, a few at a time, and a table of what became of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any

import yaml

from dataflow.cli import tables
from dataflow.cli.sweep import NotebookRun, Sweep, sweep_of
from dataflow.errors import ConfigError

#: Seconds between two looks at a run.
LOOK_SECONDS = 0.2
#: Most of what a run said last that is told.
_LINE = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a run: ``done``, ``failed`` or ``stopped``; seconds, and why."""

    notebook: str
    parameters: Mapping[str, Any]
    output: str
    status: str
    seconds: float
    reason: str = ""


def read_sweep(file: Path) -> Sweep:
    """The sweep that a file asks for.

    Raises
    ------
    ConfigError
        If it is not there, is no YAML, or asks for something that is not known.
    """
    try:
        return sweep_of(yaml.safe_load(file.read_text()), str(file))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", str(file)) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"this is not YAML: {error}", str(file)) from None


def run_all(
    sweep: Sweep, folder: Path, sites: Path | None, told: Callable[[Outcome], None]
) -> list[Outcome]:
    """Run all, in their order; one that fails stops no other.

    Parameters
    ----------
    folder
        What the paths of notebooks and outputs count from.
    told
        Gets each outcome as soon as it is known.

    Raises
    ------
    ConfigError
        If papermill is not installed, or a notebook is not there: before anything runs.
    """
    if find_spec("papermill") is None:
        raise ConfigError("a batch needs papermill: pip install 'jupyter-dataflow[papermill]'")
    for run in sweep.runs:
        if not (folder / run.notebook).is_file():
            raise ConfigError(f"there is no notebook {folder / run.notebook}")
    stopping = Event()

    def one(run: NotebookRun) -> Outcome:
        outcome = _run(run, sweep.engine, folder, sites, stopping)
        told(outcome)
        return outcome

    with ThreadPoolExecutor(sweep.parallel) as pool:
        running = [pool.submit(one, run) for run in sweep.runs]
        try:
            return [future.result() for future in running]
        except BaseException:
            stopping.set()  # each ends its own process, and nothing new begins
            raise


def _run(
    run: NotebookRun, engine: str, folder: Path, sites: Path | None, stopping: Event
) -> Outcome:
    begun = time.monotonic()
    output = folder / run.output
    output.parent.mkdir(parents=True, exist_ok=True)
    log = output.with_suffix(".log")
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "--engine", engine]
    if engine == "papermill":
        command = command[:-2]
    command += ["-y", yaml.safe_dump(dict(run.parameters))] if run.parameters else []
    environment = dict(os.environ)
    if sites is not None:
        environment["DATAFLOW_SITE_FILE"] = str(sites.absolute())
    status = 0
    if not stopping.is_set():
        with log.open("wb") as said:
            process = subprocess.Popen(
                [*command, run.notebook, str(output)],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
            try:
                while (found := _ended(process)) is None:
                    if stopping.is_set():
                        process.send_signal(signal.SIGINT)
                        found = process.wait()
                        break
                status = found
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
    stopped = stopping.is_set()
    return Outcome(
        notebook=run.notebook,
        parameters=run.parameters,
        output=run.output,
        status="stopped" if stopped else "failed" if status else "done",
        seconds=time.monotonic() - begun,
        reason=_last_line(log) if status and not stopped else "",
    )


def _ended(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(LOOK_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")[:_LINE]


def run(file: Path, *, sites: Path | None, parallel: int | None, dry: bool, json_: bool) -> bool:
    """Run the sweep of a file and print what became of it; whether all is done."""
    sweep = read_sweep(file)
    if parallel is not None:
        sweep = replace(sweep, parallel=parallel)
    if dry:
        _print([_planned(run) for run in sweep.runs], json_)
        return True
    with tables.progress(len(sweep.runs), "notebooks", shown=not json_) as step:

        def told(outcome: Outcome) -> None:
            step(f"{outcome.output}: {outcome.status}")

        outcomes = run_all(sweep, file.absolute().parent, sites, told)
    _print(outcomes, json_)
    return all(outcome.status == "done" for outcome in outcomes)


def _planned(run: NotebookRun) -> Outcome:
    return Outcome(
        notebook=run.notebook,
        parameters=run.parameters,
        output=run.output,
        status="to run",
        seconds=0.0,
    )


def _print(outcomes: list[Outcome], json_: bool) -> None:
    if json_:
        print(json.dumps([asdict(one) for one in outcomes], indent=2, default=str))
        return
    tables.table(
        ["notebook", "parameters", "status", "seconds>", "output", "reason"],
        [
            (
                one.notebook,
                tables.pairs({name: str(value) for name, value in one.parameters.items()}),
                one.status,
                f"{one.seconds:.1f}" if one.seconds else "",
                one.output,
                one.reason,
            )
            for one in outcomes
        ],
    )
    counts = {status: sum(o.status == status for o in outcomes) for status in ("done", "failed")}
    print(f"{len(outcomes)} runs: {counts['done']} done, {counts['failed']} failed")
