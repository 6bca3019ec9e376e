"""What a site file says of workers under a batch system, or on hosts reached by SSH; frozen records."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

#: Batch systems that are known by their command to submit, and by nothing else.
BatchSystem = Literal["pbs", "slurm", "lsf", "htcondor"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Workers as jobs of a batch system, one worker each.

    Attributes
    ----------
    queue, project
        Where to submit, and on whose account; ``None`` leaves that to the batch system.
    walltime
        Seconds after which it ends a worker; ``None`` if it does not.
    interface, scheduler_interface
        Network interfaces of the hosts where workers run, and of this one; ``None`` lets Dask find
        an address.
    directives
        Further options of the command to submit, one line each.
    prologue
        Lines of bash before the worker starts.
    python
        The workers' interpreter; ``None`` is the one that runs this agent.
    scratch
        Directory for what does not fit into memory, as the shell there expands it.
    shared
        Directory that this host and those of the workers see, for certificates and logs; ``None``
        is the site's state directory.
    logs
        Directory for what workers write; ``None`` is one below ``shared``.
    idle
        Seconds that a worker without work is kept.
    worth
        Seconds of planned work for which one more worker is asked for.
    look
        Seconds between two questions to the batch system while something is open.
    orphaned
        Seconds after which a worker ends that does not find this agent any more.
    silence
        Seconds for a command of the batch system to answer, and without an answer until whoever
        waits for workers is told so.
    starting
        Seconds that the worker of a batch job has to come once the job runs; then it is cancelled. A
        host that was cut off still counts as one for minutes, and jobs there as running.
    """

    queue: str | None = None
    project: str | None = None
    walltime: float | None = None
    interface: str | None = None
    scheduler_interface: str | None = None
    directives: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()
    python: str | None = None
    scratch: str = "/tmp"
    shared: Path | None = None
    logs: Path | None = None
    idle: float = 60.0
    worth: float = 60.0
    look: float = 5.0
    orphaned: float = 60.0
    silence: float = 15.0
    starting: float = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sge(Batch):
    """Workers as jobs of Grid Engine.

    Attributes
    ----------
    parallel_environment
        The one in which a worker gets a slot for each of its threads; ``None`` asks for one slot.
    resources
        Of each slot, by name, in Grid Engine's own words.
    memory_resource
        The resource that stands for memory at this cluster, such as ``h_vmem``: a worker's memory
        is then asked for, divided by its slots. ``None`` does not ask for memory.
    """

    scratch: str = "$TMPDIR"
    parallel_environment: str | None = None
    resources: dict[str, str] = field(default_factory=dict)
    memory_resource: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQueue(Batch):
    """Workers as jobs of another batch system that dask-jobqueue can submit to."""

    system: BatchSystem


@dataclass(frozen=True, slots=True, kw_only=True)
class SshHosts:
    """Workers on hosts that are reached by SSH and have no batch system.

    Attributes
    ----------
    hosts
        Where workers run, in the words of the SSH configuration; the workers of a site are dealt
        out to them in turn.
    config, known_hosts
        Files of OpenSSH; ``None`` is the user's own ``~/.ssh/config`` and what it names.
    python
        The interpreter there; ``None`` is the one that runs this agent.
    scratch
        Directory for what does not fit into memory; ``None`` is the temporary directory there.
    interface
        Network interface of this host that the others can reach; ``None`` lets Dask find an address.
    prologue
        Lines of shell before the worker starts.
    connect
        Seconds that connecting to a host may take.
    again
        Seconds after which a host that failed is tried again.
    """

    hosts: tuple[str, ...]
    config: Path | None = None
    known_hosts: Path | None = None
    python: str | None = None
    scratch: str | None = None
    interface: str | None = None
    prologue: tuple[str, ...] = ()
    connect: float = 15.0
    again: float = 30.0
