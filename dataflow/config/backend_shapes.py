"""Sections of a site file about workers under a batch system, or on hosts reached by SSH."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from dataflow.config.backend_records import BatchSystem, JobQueue, Sge, SshHosts
from dataflow.config.shape import Seconds, Shape


def _word(value: str) -> str:
    if not re.fullmatch(r"[\w.@:/+=-]+", value) or value.startswith("-"):
        raise ValueError(f"{value!r} must be one word of letters, digits and . _ - @ : / + =")
    return value


def _line(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError(f"{value!r} must be one line of text")
    return value


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("must be longer than nothing")
    return value


def _wall(value: float) -> float:
    if value < 30:
        raise ValueError("must be 30 s or more: a worker needs some seconds to start and to end")
    return value


def _amount(value: str) -> str:
    if not re.fullmatch(r"[\w.:/*+-]+", value):
        raise ValueError(f"{value!r} must be one word, as after the = of -l")
    return value


def _path(value: str) -> str:
    if not value.startswith(("/", "~")) or not value.isprintable():
        raise ValueError(f"{value!r} must begin at / or at ~")
    return value


def _directory(value: str) -> str:
    if not re.fullmatch(r"[\w./$~{}+@-]+", value):
        raise ValueError(f"{value!r} must be a directory without spaces; $TMPDIR may stand in it")
    return value


Word = Annotated[str, AfterValidator(_word)]
Line = Annotated[str, AfterValidator(_line)]
Amount = Annotated[str, AfterValidator(_amount)]
HostPath = Annotated[str, AfterValidator(_path)]
Scratch = Annotated[str, AfterValidator(_directory)]
Duration = Annotated[Seconds, AfterValidator(_positive)]
Walltime = Annotated[Seconds, AfterValidator(_wall)]


class _BatchShape(Shape):
    queue: Word | None = None
    project: Word | None = None
    walltime: Walltime | None = None
    interface: Word | None = None
    scheduler_interface: Word | None = None
    directives: list[Line] = Field(default_factory=list)
    prologue: list[Line] = Field(default_factory=list)
    python: HostPath | None = None
    shared: HostPath | None = None
    logs: HostPath | None = None
    idle: Seconds = Sge().idle
    worth: Duration = Sge().worth
    look: Duration = Sge().look
    orphaned: Duration = Sge().orphaned
    silence: Duration = Sge().silence
    starting: Duration = Sge().starting

    def _batch(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in _BatchShape.model_fields}
        return {
            **values,
            "directives": tuple(self.directives),
            "prologue": tuple(self.prologue),
            "python": _expanded(self.python),
            "shared": Path(self.shared).expanduser() if self.shared else None,
            "logs": Path(self.logs).expanduser() if self.logs else None,
        }


class SgeShape(_BatchShape):
    """Workers as jobs of Grid Engine; the agent runs on a host that may submit."""

    scratch: Scratch = Sge().scratch
    parallel_environment: Word | None = None
    resources: dict[Word, Amount] = Field(default_factory=dict)
    memory_resource: Word | None = None

    def record(self) -> Sge:
        """The record."""
        return Sge(
            scratch=self.scratch,
            parallel_environment=self.parallel_environment,
            resources=dict(self.resources),
            memory_resource=self.memory_resource,
            **self._batch(),
        )


class JobQueueShape(_BatchShape):
    """Workers as jobs of PBS, Slurm, LSF or HTCondor."""

    system: BatchSystem
    scratch: Scratch = "/tmp"

    def record(self) -> JobQueue:
        """The record."""
        return JobQueue(system=self.system, scratch=self.scratch, **self._batch())


class SshHostsShape(Shape):
    """Workers on hosts that the agent's own host reaches by SSH."""

    hosts: Annotated[list[Word], Field(min_length=1)]
    config: HostPath | None = None
    known_hosts: HostPath | None = None
    python: HostPath | None = None
    scratch: Scratch | None = None
    interface: Word | None = None
    prologue: list[Line] = Field(default_factory=list)
    connect: Duration = 15.0
    again: Duration = 30.0

    def record(self) -> SshHosts:
        """The record."""
        return SshHosts(
            hosts=tuple(self.hosts),
            config=Path(self.config).expanduser() if self.config else None,
            known_hosts=Path(self.known_hosts).expanduser() if self.known_hosts else None,
            python=self.python,
            scratch=self.scratch,
            interface=self.interface,
            prologue=tuple(self.prologue),
            connect=self.connect,
            again=self.again,
        )


def _expanded(path: str | None) -> str | None:
    return str(Path(path).expanduser()) if path else None
