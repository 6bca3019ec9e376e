"""What dask-jobqueue is told about each batch job, so that nothing is left to its own settings. Pure."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataflow.backends.cluster import IMPORTS, environment
from dataflow.config.backend_records import Batch, Sge

#: Batch system → dask-jobqueue's class for it.
CLASSES: Mapping[str, str] = {
    "sge": "SGECluster",
    "pbs": "PBSCluster",
    "slurm": "SLURMCluster",
    "lsf": "LSFCluster",
    "htcondor": "HTCondorCluster",
}

#: Name of the section of dask-jobqueue's settings for a system in which nothing is said.
SECTION = "dataflow-{}"


def job_options(
    system: str,
    settings: Batch,
    *,
    name: str,
    threads: int,
    memory: int,
    logs: Path,
    directory: Path,
) -> dict[str, Any]:
    """Keywords of a Job of dask-jobqueue.

    Parameters
    ----------
    system
        A key of :data:`CLASSES`.
    name
        Of every job of this site.
    threads, memory
        Of the worker; memory in bytes.
    logs, directory
        Where its output goes, and where it runs.
    """
    # Not by --preload: with that the nanny imports it all as well, and before it starts the worker.
    imports = {"DASK_DISTRIBUTED__WORKER__PRELOAD": json.dumps(IMPORTS)}
    exports = [
        f"export {variable}={shlex.quote(value)}"
        for variable, value in {**environment(), **imports}.items()
    ]
    options: dict[str, Any] = {
        "config_name": SECTION.format(system),
        "cores": threads,
        "processes": 1,
        "memory": f"{memory} B",
        "nanny": True,
        "job_name": name,
        "python": settings.python,
        "death_timeout": math.ceil(settings.orphaned),
        "local_directory": settings.scratch,
        "log_directory": str(logs),
        "worker_extra_args": ["--no-dashboard"],
        "job_script_prologue": [*exports, *settings.prologue],
        "job_extra_directives": list(settings.directives),
        "job_directives_skip": [],
        "shebang": "#!/usr/bin/env bash",
    }
    queue, project, wall = settings.queue, settings.project, settings.walltime
    match system:
        case "sge":
            sge = settings if isinstance(settings, Sge) else Sge()
            options |= {
                "queue": queue,
                "project": project,
                "walltime": clock(wall),
                "resource_spec": _resources(sge, memory, threads),
                # The directory from which the agent happens to run may not be there on other hosts.
                "job_directives_skip": ["-cwd"],
                "job_extra_directives": [*_directives(sge, threads, directory), *sge.directives],
            }
        case "pbs" | "slurm":
            options |= {"queue": queue, "account": project, "walltime": clock(wall)}
        case "lsf":
            options |= {"queue": queue, "project": project, "walltime": clock(wall, to="minutes")}
        case "htcondor":
            pairs = (line.partition("=") for line in settings.directives)
            said = {key.strip(): value.strip() for key, _, value in pairs}
            options |= {"disk": f"{memory} B", "job_extra_directives": said}
    return options


def clock(seconds: float | None, *, to: str = "seconds") -> str | None:
    """Seconds as ``HH:MM:SS``, or as ``HH:MM`` rounded up to minutes."""
    if seconds is None:
        return None
    whole = math.ceil(seconds)
    if to == "minutes":
        minutes = math.ceil(whole / 60)
        return f"{minutes // 60:02}:{minutes % 60:02}"
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def _directives(sge: Sge, threads: int, directory: Path) -> list[str]:
    # Not run again by itself: a worker that is missing is replaced, if it is still wanted then.
    lines = ["-S /bin/bash", f"-wd {directory}", "-r n"]
    return (
        [*lines, f"-pe {sge.parallel_environment} {threads}"] if sge.parallel_environment else lines
    )


def _resources(sge: Sge, memory: int, threads: int) -> str | None:
    asked = dict(sge.resources)
    if sge.memory_resource:
        slots = threads if sge.parallel_environment else 1
        # Grid Engine's M is 1024 K.
        asked[sge.memory_resource] = f"{math.ceil(memory / slots / 2**20)}M"
    return ",".join(f"{name}={value}" for name, value in asked.items()) or None
