"""How many workers the open demands justify, and when a worker has to stop before its wall. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from dataflow._quantities import format_bytes, format_seconds
from dataflow.backends.base import Demand

#: Time (s) that is kept free at the end of a lease, for moving results and for ending: that a worker
#: is empty is seen after some seconds, and it takes some more to end.
SHORTEST_MARGIN, LONGEST_MARGIN = 10.0, 60.0


def workers_wanted(demands: Iterable[Demand], *, most: int, threads: int, worth: float) -> int:
    """How many workers to have for these demands.

    One for each ``worth`` seconds of planned work, begun ones counted; where nobody knows the
    seconds, one thread for each step. At least one if anything is demanded, never above ``most``.

    Parameters
    ----------
    most
        The site's own limit.
    threads
        Of each worker.
    worth
        Seconds of work for which a worker is worth the wait for it.
    """
    open_demands = list(demands)
    if not open_demands:
        return 0
    known = math.fsum(demand.seconds for demand in open_demands)
    unknown = sum(max(1, demand.tasks) for demand in open_demands if demand.seconds <= 0)
    # A tiny slack: thirty times 0.1 s is 3 s of work, not a little more.
    wanted = math.ceil(known / worth - 1e-9) + math.ceil(unknown / threads)
    return min(max(1, wanted), most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wall:
    """The time after which the batch system ends a lease, whatever it does.

    Attributes
    ----------
    seconds
        From the start of the lease to its end.
    """

    seconds: float

    @property
    def margin(self) -> float:
        """What is kept free at the end (s): a tenth, but 10 s to a minute."""
        tenth = min(max(self.seconds / 10, SHORTEST_MARGIN), LONGEST_MARGIN)
        return min(tenth, self.seconds / 3)

    @property
    def longest(self) -> float:
        """The longest step that a fresh worker may begin (s).

        A margin goes to the start of the worker, one to its end.
        """
        return self.seconds - 2 * self.margin

    def drain_after(self, demands: Iterable[Demand]) -> float:
        """Age (s) from which a worker takes nothing more on, so that it is empty before its wall.

        What it may have begun just before still has the time of the longest step that is planned.
        It is never less than a margin: a fresh worker always has the time to take something on.
        """
        longest = max((demand.longest for demand in demands), default=0.0)
        return max(self.seconds - self.margin - longest, self.margin)


def refusal(demand: Demand, *, most: int, memory: int, wall: Wall | None) -> str:
    """Why workers of this kind can never serve a demand; empty if they can.

    Parameters
    ----------
    most
        Workers that there may be.
    memory
        Bytes that each of them has.
    wall
        Where their leases end; ``None`` if nowhere.
    """
    if most < 1:
        return "this site has no workers: its site file says workers: 0"
    if demand.memory > memory:
        return (
            f"a step needs {format_bytes(demand.memory)} of memory and a worker of this site has "
            f"{format_bytes(memory)}"
        )
    if wall is not None and demand.longest > wall.longest:
        return (
            f"a step is planned to take {format_seconds(demand.longest)}, and a lease of this site "
            f"ends after {format_seconds(wall.seconds)}; it would have to be shorter than "
            f"{format_seconds(wall.longest)}, or the walltime in the site file longer"
        )
    return ""
