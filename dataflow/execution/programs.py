"""Program: one run of a shell operation, as the journal keeps it. Pure.

Whether a batch system or a worker runs it, the record is the same: states, files with relation and
checksum, both streams, and what the place says it has used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

ProgramStatus = Literal["new", "pending", "running", "done", "failed", "cancelled", "unknown"]
#: How a file belongs to a run.
Relation = Literal["script", "input", "output", "stdout", "stderr"]

#: States that are the last one.
ENDED: frozenset[ProgramStatus] = frozenset({"done", "failed", "cancelled"})

#: Bytes of each stream that the journal keeps: the end of it.
STREAM_NBYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramFile:
    """A file of a run.

    Attributes
    ----------
    relation
        What it is to the run.
    name
        Under which the script sees it: the path of an input, the name of an output.
    slot
        The argument that an input is given for; empty for the others.
    nbytes, checksum
        Of all of it; the checksum is XXH3-128 in hex. Of a directory with many files: their sum, and
        the checksum over all theirs.
    text
        Of a stream its last 64 KiB; empty for the others.
    """

    relation: Relation
    name: str
    slot: str = ""
    nbytes: int = 0
    checksum: str = ""
    text: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demanded:
    """What a batch system was asked for; ``None`` and 0 where nothing was."""

    queue: str | None = None
    project: str | None = None
    cores: int = 1
    memory: int = 0
    walltime: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounting:
    """What a batch system's accounting says of a run: seconds, bytes, seconds since the epoch."""

    queue: str = ""
    host: str = ""
    slots: int = 0
    exit_status: int = 0
    failed: str = ""
    seconds: float = 0.0
    cpu: float = 0.0
    memory: int = 0
    started: float | None = None
    ended: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One run of a shell operation.

    Attributes
    ----------
    key, label, site
        The step, its word for people, and where it runs.
    run
        Name of this run; another one for every try.
    status
        ``new`` (being staged), ``pending`` (handed to whoever runs it), ``running``, then ``done``,
        ``failed`` or ``cancelled``. ``unknown`` while the site does not answer.
    batch
        Number at the batch system, of an array with the task: ``17.3``; empty for a process.
    host
        Where it runs, as far as known.
    directory
        Its own, at the site; empty if it was gone with the end. After a failure it is kept for a week.
    submitted, began, ended
        Seconds since the epoch, by the site's clock.
    exit_status
        Of the command; ``None`` if it did not end by itself.
    reason
        Why it waits or failed, in the words of whoever knows.
    """

    key: str
    label: str
    site: str
    run: str
    status: ProgramStatus
    batch: str = ""
    host: str = ""
    directory: str = ""
    submitted: float | None = None
    began: float | None = None
    ended: float | None = None
    exit_status: int | None = None
    reason: str = ""
    demanded: Demanded | None = None
    accounting: Accounting | None = None
    files: tuple[ProgramFile, ...] = ()

    @property
    def over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.status in ENDED

    def of(self, relation: Relation) -> tuple[ProgramFile, ...]:
        """Its files of one relation."""
        return tuple(file for file in self.files if file.relation == relation)

    @property
    def stdout(self) -> str:
        """The end of what it wrote to its standard output; empty before it ends."""
        return "".join(file.text for file in self.of("stdout"))

    @property
    def stderr(self) -> str:
        """The end of what it wrote to its standard error; empty before it ends."""
        return "".join(file.text for file in self.of("stderr"))


def taken_in(known: Mapping[str, Program], told: Program) -> Mapping[str, Program]:
    """Programs by key after one more was told of.

    The same run never goes back from its end; another run of the same step takes its place.
    """
    before = known.get(told.key)
    if before is not None and before.run == told.run and before.over and not told.over:
        return known
    return {**known, told.key: told}


def stopped(known: Mapping[str, Program], at: float) -> Mapping[str, Program]:
    """Programs by key after all that had not ended was cancelled."""
    if all(program.over for program in known.values()):
        return known
    return {
        key: program if program.over else replace(program, status="cancelled", ended=at or None)
        for key, program in known.items()
    }


def away(programs: Iterable[Program], sites: Iterable[str]) -> tuple[Program, ...]:
    """The same, unknown where the site does not answer; an end stays an end."""
    silent = frozenset(sites)
    return tuple(
        replace(one, status="unknown", reason=f"last heard: {one.status}; {one.site} is away")
        if one.site in silent and not one.over
        else one
        for one in programs
    )
