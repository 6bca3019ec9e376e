"""Shell commands as operations: placeholders filled in, run in a directory of their own."""

from __future__ import annotations

import os
import shlex
import signal
import string
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from dataflow.errors import OperationFailed
from dataflow.graph.keys import decode
from dataflow.graph.operation import Step

#: Bytes of stderr that are kept of a command that failed.
STDERR_NBYTES = 4_000

#: Seconds between two looks whether a command is still wanted.
LOOK_EVERY = 0.1

#: Variables that a command does not get to see.
_SECRETS = "DATAFLOW_CREDENTIALS"


class Unwanted(Exception):
    """Nobody waits for this any more."""


def run_command(
    step: Step,
    inputs: Sequence[Path],
    directory: Path,
    *,
    site: str,
    gone: Callable[[], bool],
) -> list[Path]:
    """Run the command of a step; the files that it wrote.

    Parameters
    ----------
    inputs
        Local paths of the inputs, in their order.
    directory
        Fresh and empty: where the command runs and writes.
    gone
        Whether the result is no longer wanted; then the command and what it started is killed.

    Raises
    ------
    OperationFailed
        If it ends with a status other than 0 (with the end of its stderr), or writes less than it
        promised.
    Unwanted
        If ``gone`` said so.
    """
    values: dict[str, str] = {
        name: shlex.quote(str(decode(value))) for name, value in step.parameters.items()
    }
    values |= {slot: shlex.quote(str(path)) for slot, path in zip(step.slots, inputs, strict=True)}
    command, outputs = filled(step.operation.command, values, directory)
    with (directory / ".stderr").open("w+b") as stderr:
        status = _run(command, directory, stderr, gone)
        if status != 0:
            raise OperationFailed(step.label, site, _ended(status), _end_of(stderr))
    (directory / ".stderr").unlink()
    for path in outputs:
        if not path.exists():
            raise OperationFailed(
                step.label, site, f"the command ended well but wrote no {{output:{path.name}}}"
            )
    return outputs


def filled(command: str, values: Mapping[str, str], directory: Path) -> tuple[str, list[Path]]:
    """The command with its placeholders replaced, and the paths it is to write."""
    pieces: list[str] = []
    outputs: dict[Path, None] = {}
    for text, name, form, _ in string.Formatter().parse(command):
        pieces.append(text)
        if name is None:
            continue
        if name != "output":
            pieces.append(values[name])
            continue
        path = directory / Path(form or "output").name
        outputs[path] = None
        pieces.append(shlex.quote(str(path)))
    return "".join(pieces), list(outputs)


def _run(command: str, directory: Path, stderr: IO[bytes], gone: Callable[[], bool]) -> int:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_SECRETS)}
    process: subprocess.Popen[Any] = subprocess.Popen(
        ["/bin/sh", "-c", command],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        start_new_session=True,
    )
    try:
        pause = LOOK_EVERY / 50
        while True:
            try:
                return process.wait(pause)
            except subprocess.TimeoutExpired:
                pause = min(2 * pause, LOOK_EVERY)
                if gone():
                    raise Unwanted from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _ended(status: int) -> str:
    if status < 0:
        return f"the command was ended by signal {signal.Signals(-status).name}"
    return f"the command ended with status {status}"


def _end_of(stderr: IO[bytes]) -> str:
    size = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, size - STDERR_NBYTES))
    return stderr.read().decode(errors="replace").strip()
