"""Programs as jobs of Grid Engine: the command that submits them, their script, and its marks. Pure."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataflow.backends.batch_jobs import clock
from dataflow.backends.programs import OURS, AskedFor, ProgramOrder
from dataflow.config.backend_records import Sge

_QUEUE = re.compile(r"[\w.][\w.@:/+-]*\Z")
_NUMBER = re.compile(r"(\d+)(?:\.(\d+)-(\d+):\d+)?\s*\Z")

#: What runs in the batch job. A mark is whole or not there: it is renamed into its place. 97 says
#: that the directory is not there, on a host that does not see what it should.
_SCRIPT = """\
#!/usr/bin/env bash
directories=({directories})
task=${{SGE_TASK_ID:-1}}
[ "$task" = undefined ] && task=1
cd -- "${{directories[task - 1]}}" || exit 97
mark() {{ printf '%s\\n' "$2" > "{ours}/$1.new" && mv -f -- "{ours}/$1.new" "{ours}/$1"; }}
mark began "$(date +%s) $(uname -n)"
{prologue}
/bin/sh "{ours}/command" < /dev/null > "{ours}/stdout" 2> "{ours}/stderr"
status=$?
mark ended "$(date +%s) $status"
exit "$status"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What the script of a program left in its directory.

    Attributes
    ----------
    batch
        Its number, as whoever submitted it wrote down; empty before.
    began, ended
        Seconds since the epoch by the clock of its host; ``None`` before.
    host
        Where it began.
    exit_status
        ``None`` before it ended by itself.
    """

    batch: str = ""
    began: float | None = None
    host: str = ""
    ended: float | None = None
    exit_status: int | None = None


def why_not(order: ProgramOrder, settings: Sge) -> str:
    """Why a site can never serve an order; empty if it can."""
    if order.queue and not _QUEUE.match(order.queue):
        return f"{order.queue!r} is no name of a queue"
    if order.cores > 1 and not settings.parallel_environment:
        return (
            f"{order.name} asks for {order.cores} slots, and the site file names no "
            "parallel_environment in which a program could get them"
        )
    return ""


def asked_for(order: ProgramOrder, settings: Sge, memory: int) -> AskedFor:
    """What the batch system is asked for: what the operation says, else what the site says."""
    return AskedFor(
        queue=order.queue or settings.queue,
        project=settings.project,
        cores=order.cores,
        memory=(order.memory or memory) if settings.memory_resource else 0,
        walltime=order.walltime or settings.walltime,
    )


def submission(name: str, asked: AskedFor, settings: Sge, *, tasks: int, log: Path) -> list[str]:
    """The command that submits; the script goes to its standard input."""
    words = ["qsub", "-terse", "-N", name, "-S", "/bin/bash", "-r", "n", "-j", "y"]
    words += ["-wd", str(log.parent), "-o", str(log)]
    if tasks > 1:
        words += ["-t", f"1-{tasks}"]
    if asked.queue:
        words += ["-q", asked.queue]
    if asked.project:
        words += ["-P", asked.project]
    if asked.cores > 1 and settings.parallel_environment:
        words += ["-pe", settings.parallel_environment, str(asked.cores)]
    resources = dict(settings.resources)
    if asked.walltime:
        resources["h_rt"] = str(clock(asked.walltime))
    if asked.memory and settings.memory_resource:
        # For each slot; Grid Engine's M is 1024 K.
        resources[settings.memory_resource] = f"{math.ceil(asked.memory / asked.cores / 2**20)}M"
    if resources:
        words += ["-l", ",".join(f"{name}={value}" for name, value in resources.items())]
    for line in settings.directives:
        words += shlex.split(line)
    return words


def script(directories: Sequence[Path], settings: Sge) -> str:
    """What the batch job runs, in the directory of its task."""
    return _SCRIPT.format(
        directories=" ".join(shlex.quote(str(directory)) for directory in directories),
        prologue="\n".join(settings.prologue) or ":",
        ours=OURS,
    )


def job_name(prefix: str, operation: str) -> str:
    """A name that Grid Engine takes, by which what is ours can be told in the queue."""
    return f"{prefix}-{re.sub(r'[^A-Za-z0-9_.-]', '_', operation)[:40]}"


def numbers_of(said: str, tasks: int) -> list[str]:
    """The number of each program, of what ``qsub -terse`` says.

    Raises
    ------
    ValueError
        If that is no number, or the array has another size.
    """
    lines = [line for line in said.splitlines() if line.strip()]
    found = _NUMBER.match(lines[-1].strip()) if lines else None
    if found is None:
        raise ValueError(f"qsub told no number but {said[:200]!r}")
    number, first, last = found.groups()
    if first is None:
        if tasks != 1:
            raise ValueError(f"qsub made one job of {tasks} programs")
        return [number]
    if (int(first), int(last)) != (1, tasks):
        raise ValueError(f"qsub made tasks {first} to {last} of {tasks} programs")
    return [f"{number}.{task}" for task in range(1, tasks + 1)]


def marks_of(batch: str, began: str, ended: str) -> Marks:
    """Marks out of what the files hold; empty where there is none."""
    at, _, host = began.strip().partition(" ")
    until, _, status = ended.strip().partition(" ")
    return Marks(
        batch=batch.strip(),
        began=float(at) if at.isdigit() else None,
        host=host,
        ended=float(until) if until.isdigit() else None,
        exit_status=int(status) if status.strip().isdigit() else None,
    )
