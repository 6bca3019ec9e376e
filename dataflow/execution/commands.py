"""Shell commands as operations, run as a process in a directory of their own."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataflow.backends.programs import OURS
from dataflow.errors import OperationFailed, WalltimeExceeded
from dataflow.execution.inputs import Lying
from dataflow.execution.programs import Demanded, Program
from dataflow.execution.staging import (
    QUOTED_NBYTES,
    Staged,
    end_of,
    must_be_written,
    stage,
    streams,
    written,
)
from dataflow.graph.needs import Needs
from dataflow.graph.operation import Step

#: Seconds between two looks whether a command is still wanted.
LOOK_EVERY = 0.1

#: Variables that a command does not get to see.
_SECRETS = "DATAFLOW_CREDENTIALS"


class Unwanted(Exception):
    """Nobody waits for this any more."""


class _Overtime(Exception):
    """It ran longer than it may."""


def run_command(
    step: Step,
    inputs: Sequence[tuple[Lying, Path]],
    directory: Path,
    *,
    site: str,
    run: str,
    gone: Callable[[], bool],
    tell: Callable[[Program], None],
) -> list[Path]:
    """Run the command of a step; the files that it wrote.

    Parameters
    ----------
    inputs
        What it reads and where that is seen, in their order.
    directory
        Fresh and empty: where the command runs and writes.
    run
        Name of this run.
    gone
        Whether the result is no longer wanted; then the command and what it started is killed.
    tell
        Gets the record of the run, once, when it has ended.

    Raises
    ------
    OperationFailed
        If it ends with a status other than 0 (with the end of its stderr), or writes less than it
        promised.
    WalltimeExceeded
        If it runs longer than its needs say.
    Unwanted
        If ``gone`` said so.
    """
    staged = stage(step, inputs, directory)
    needs = step.operation.needs
    began = time.time()
    program = Program(
        key=step.key,
        label=step.label,
        site=site,
        run=run,
        status="running",
        host=platform.node(),
        began=began,
        demanded=demanded(needs),
        files=staged.files,
    )
    status: int | None = None
    try:
        status = _run(staged, needs.walltime, gone)
        if status != 0:
            raise OperationFailed(step.label, site, _ended(status), _stderr(directory))
        must_be_written(step, staged.outputs, site)
    except _Overtime:
        error = WalltimeExceeded(
            step.label, site, needs.walltime, "it was killed", _stderr(directory)
        )
        tell(_after(program, staged, "failed", None, str(error).splitlines()[0]))
        raise error from None
    except OperationFailed as error:
        tell(_after(program, staged, "failed", status, error.error))
        raise
    except Unwanted:
        tell(_after(program, staged, "cancelled", None, ""))
        raise
    tell(_after(program, staged, "done", status, ""))
    return list(staged.outputs)


def demanded(needs: Needs) -> Demanded:
    """What an operation asks for, as said where nobody grants it but the process's own host."""
    return Demanded(cores=needs.cores, memory=needs.memory, walltime=needs.walltime or None)


def ended_with(status: int) -> str:
    """The words for a command that did not end well."""
    return f"the command ended with status {status}"


def _after(
    program: Program, staged: Staged, status: Any, exit_status: int | None, reason: str
) -> Program:
    return replace(
        program,
        status=status,
        exit_status=exit_status if exit_status is None or exit_status >= 0 else 128 - exit_status,
        reason=reason,
        ended=time.time(),
        files=(*staged.files, *written(staged.outputs), *streams(staged.directory)),
    )


def _run(staged: Staged, walltime: float, gone: Callable[[], bool]) -> int:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_SECRETS)}
    ours = staged.directory / OURS
    with (ours / "stdout").open("wb") as stdout, (ours / "stderr").open("wb") as stderr:
        process: subprocess.Popen[Any] = subprocess.Popen(
            ["/bin/sh", str(ours / "command")],
            cwd=staged.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    end = time.monotonic() + walltime if walltime else None
    try:
        pause = LOOK_EVERY / 50
        while True:
            try:
                return process.wait(pause)
            except subprocess.TimeoutExpired:
                pause = min(2 * pause, LOOK_EVERY)
                if gone():
                    raise Unwanted from None
                if end is not None and time.monotonic() > end:
                    raise _Overtime from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _ended(status: int) -> str:
    if status < 0:
        return f"the command was ended by signal {signal.Signals(-status).name}"
    return ended_with(status)


def _stderr(directory: Path) -> str:
    return end_of(directory / OURS / "stderr", QUOTED_NBYTES).strip()
