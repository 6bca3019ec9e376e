"""Which cells the matrix has, which of them make no sense and why, and how soon an end is due. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

PARTS = ("worker", "host", "qmaster", "agent", "coordinator", "kernel", "sshd", "s3")
KINDS = ("kill", "hang", "cut", "slow")
PHASES = ("planning", "staging", "running", "writing", "committing")

#: What the parts are called in the table.
TITLES = {
    "worker": "worker",
    "host": "SGE execution host",
    "qmaster": "qmaster",
    "agent": "agent",
    "coordinator": "coordinator",
    "kernel": "notebook kernel",
    "sshd": "sshd",
    "s3": "S3",
}

#: Silence (s) after which a site, a host or a worker counts as lost: before, nobody can tell a dead
#: one from a slow one. The federation's own ``lost_after``.
SILENCE = 8.0
#: The same for a batch system, whose commands may take long: the site's own ``silence``.
BATCH_SILENCE = 15.0
#: Seconds in which a batch job's worker has to come (the scene's own ``starting``), and until the
#: batch system has let one begin and was asked about it; how many jobs are tried: a site says after
#: two that no worker comes, and the unit is tried once more.
STARTING, BEGINNING, TRIES = 15.0, 5.0, 4
#: The same for a store: requests are tried again for 20 s, and so is the order once more.
STORE_SILENCE = 40.0
#: Seconds after a fault is knowable in which the job must have ended, if it does not end right.
DUE = 10.0

_NOT_YET = {
    ("worker", "planning"): "no worker lives before a job asks for one",
    ("worker", "staging"): "no worker of the job lives while its input travels",
    ("host", "planning"): "planning asks no batch system; from then on it is staging",
    ("qmaster", "planning"): "planning asks no batch system; from then on it is staging",
    ("s3", "planning"): "planning reads the catalog and no store; from then on it is staging",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One fault in one phase.

    Attributes
    ----------
    part, kind, phase
        Of :data:`PARTS`, :data:`KINDS` and :data:`PHASES`.
    """

    part: str
    kind: str
    phase: str

    @property
    def name(self) -> str:
        """``part:kind:phase``."""
        return f"{self.part}:{self.kind}:{self.phase}"

    @property
    def senseless(self) -> str:
        """Why there is nothing to try; empty if there is."""
        return _NOT_YET.get((self.part, self.phase), "")

    @property
    def warm(self) -> bool:
        """Whether it may be tried with workers that were begun for an earlier job.

        Not where workers, their hosts, the batch system or the agent that asks for them are hurt:
        there it matters who is asked for workers, and whether none of them is left.
        """
        return self.part in ("coordinator", "kernel", "sshd", "s3")

    @property
    def knowable(self) -> float:
        """Seconds from the fault until it can be known.

        The end of a process is known at once to who is connected to it. All else is silence, or may
        be a restart, and a site is given :data:`SILENCE` to come back.
        """
        if (self.part, self.kind) == ("worker", "kill"):
            return 0.0
        if (self.part, self.kind) == ("qmaster", "cut"):
            # The hosts are silent, and so are those that it gives in their place.
            return SILENCE + TRIES * (BEGINNING + STARTING)
        return {"qmaster": BATCH_SILENCE, "s3": STORE_SILENCE}.get(self.part, SILENCE)

    @property
    def hold(self) -> float | None:
        """Seconds until the fault is lifted; ``None`` for as long as the job lasts.

        Who keeps a job, or asks for it, is back some time: until then nobody else can end the job,
        and nobody may.
        """
        if self.kind == "slow":
            return 15.0
        if self.part in ("kernel", "coordinator"):
            return 2.0 if self.kind == "kill" else 12.0
        return None


def cells() -> Iterator[Cell]:
    """The whole matrix, in the order of the table."""
    for part in PARTS:
        for kind in KINDS:
            for phase in PHASES:
                yield Cell(part, kind, phase)


def chosen(only: list[str]) -> list[Cell]:
    """Cells of which each word of one of the patterns is a word; all without a pattern.

    Raises
    ------
    ValueError
        For a word that no cell has.
    """
    known = {*PARTS, *KINDS, *PHASES}
    wanted = [set(pattern.split(":")) for pattern in only]
    for words in wanted:
        if words - known:
            raise ValueError(f"{sorted(words - known)[0]!r}: there are {', '.join(sorted(known))}")
    if not wanted:
        return list(cells())
    return [
        cell
        for cell in cells()
        if any(words <= {cell.part, cell.kind, cell.phase} for words in wanted)
    ]


#: A diagonal through the matrix: every part, kind and phase, by cells that end soon.
QUICK = tuple(
    Cell(*name.split(":"))
    for name in (
        "worker:kill:writing",
        "host:hang:running",
        "qmaster:slow:staging",
        "agent:kill:running",
        "kernel:kill:staging",
        "sshd:cut:planning",
        "s3:slow:writing",
        "coordinator:kill:committing",
    )
)
