"""Cost: what a choice of sites takes, in seconds and in bytes over links.

Two measures. :func:`simulate` plays the execution model: every directed link carries one transfer
at a time, every site runs as many steps at once as it has workers; exact, for what it assumes.
:func:`total` adds up all work and all transfers as if nothing went on at the same time; quick, and
what single moves change about it is known for all steps and sites at once (:func:`moves`).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataflow.placement.problem import Floats, Numbers, Problem


@dataclass(frozen=True, slots=True)
class Run:
    """One simulated run: the makespan, and when each step started and ended (seconds)."""

    seconds: float
    start: tuple[float, ...]
    end: tuple[float, ...]


def transfers(problem: Problem, sites: Sequence[int]) -> dict[tuple[int, int], int]:
    """What has to move: (item, target site) → the first step that waits for it.

    Each pair once, however many steps read it there; deliveries wait last.
    """
    held, home = len(problem.held), problem.home
    found: dict[tuple[int, int], int] = {}
    for task, items in enumerate(problem.inputs):
        site = sites[task]
        for item in items:
            if item >= held:
                if sites[item - held] != site:
                    found.setdefault((item, site), task)
            elif not home[item][site]:
                found.setdefault((item, site), task)
    if problem.client >= 0:
        for item in problem.deliver:
            source = problem.arrival(item, sites, problem.client)[0]
            if source != problem.client:
                found.setdefault((item, problem.client), len(sites) + item)
    return found


def bytes_moved(problem: Problem, sites: Sequence[int]) -> float:
    """Bytes over all links for a choice of one site per step."""
    return sum(
        problem.arrival(item, sites, target)[1] for item, target in transfers(problem, sites)
    )


def simulate(problem: Problem, sites: Sequence[int]) -> Run:
    """Play the execution model for a choice of one site per step.

    Steps of a site start in the order of their numbers among those that are ready, transfers of a
    link in the order of the steps that wait for them; a copy appears one latency after its link is
    free again. What a site has of its own is there when the site begins, and leaves it after
    the job's lead. Events of one moment are all applied before anything new starts, so that a choice
    has exactly one outcome.
    """
    held, count = len(problem.held), len(problem.tasks)
    seconds, latency, home = problem.seconds_rows, problem.latency_rows, problem.home
    moves: dict[int, list[tuple[int, int, int, float]]] = {}
    for (item, target), urgency in transfers(problem, sites).items():
        source, _, busy = problem.arrival(item, sites, target)
        moves.setdefault(item, []).append((urgency, source, target, busy))
    waiting = [len(items) for items in problem.inputs]
    start, end = [0.0] * count, [0.0] * count
    ready: list[list[int]] = [[] for _ in problem.sites]
    free = list(problem.workers)
    queues: dict[tuple[int, int], list[tuple[int, int, float]]] = {}
    busy_links: set[tuple[int, int]] = set()
    changed_sites: set[int] = set()
    changed_links: set[tuple[int, int]] = set()
    events: list[tuple[float, int, int, int]] = []  # time, what, item or link's source, site
    last = 0.0

    def appears(item: int, site: int) -> None:
        for task in problem.users[item]:
            if sites[task] == site:
                waiting[task] -= 1
                if not waiting[task]:
                    heapq.heappush(ready[site], task)
                    changed_sites.add(site)

    def exists(item: int) -> None:
        for urgency, source, target, busy in moves.get(item, ()):
            heapq.heappush(queues.setdefault((source, target), []), (urgency, item, busy))
            changed_links.add((source, target))

    def begin(now: float) -> None:
        for site in changed_sites:
            while free[site] and ready[site]:
                task = heapq.heappop(ready[site])
                free[site] -= 1
                start[task] = now
                end[task] = now + seconds[task][site]
                heapq.heappush(events, (end[task], 0, held + task, site))
        changed_sites.clear()
        for link in changed_links - busy_links:
            if queues[link]:
                _, item, busy = heapq.heappop(queues[link])
                busy_links.add(link)
                heapq.heappush(events, (now + busy, 1, *link))
                appear = now + busy + latency[link[0]][link[1]]
                heapq.heappush(events, (appear, 2, item, link[1]))
        changed_links.clear()

    alone: list[list[int]] = [[] for _ in problem.sites]
    for task, items in enumerate(problem.inputs):
        if not items:
            alone[sites[task]].append(task)

    def opens(site: int) -> None:
        for item in range(held):
            if home[item][site]:
                appears(item, site)
        for task in alone[site]:
            heapq.heappush(ready[site], task)
            changed_sites.add(site)

    def leave() -> None:
        for item in range(held):
            exists(item)

    for site in range(len(problem.sites)):
        if problem.begins is None or not problem.begins[site]:
            opens(site)
        else:
            heapq.heappush(events, (float(problem.begins[site]), 3, 0, site))
    if problem.lead:
        heapq.heappush(events, (problem.lead, 4, 0, 0))
    else:
        leave()
    begin(0.0)
    while events:
        now = events[0][0]
        while events and events[0][0] <= now:
            _, what, which, site = heapq.heappop(events)
            if what == 0:
                free[site] += 1
                changed_sites.add(site)
                appears(which, site)
                exists(which)
            elif what == 1:
                busy_links.discard((which, site))
                changed_links.add((which, site))
            elif what == 2:
                appears(which, site)
            elif what == 3:
                opens(site)
            else:
                leave()
            last = now if what in (0, 2) else last
        begin(now)
    return Run(last, tuple(start), tuple(end))


class Tally:
    """The sum-of-everything measure of one choice, and what each single move would change.

    Parameters
    ----------
    problem, sites
        The problem and the number of the site for each step.
    """

    def __init__(self, problem: Problem, sites: Numbers) -> None:
        self.problem, self.sites = problem, sites
        tasks, items = problem.edges
        self._need = np.zeros((len(problem.held) + len(problem.tasks), len(problem.sites)))
        np.add.at(self._need, (items, sites[tasks]), 1)
        if problem.client >= 0:
            self._need[list(problem.deliver), problem.client] += 1

    def total(self, held: Floats, moving: Floats) -> float:
        """All transfers, priced by ``held`` (``H x S``) and ``moving`` (``T x S x S``)."""
        count, own = len(self.problem.held), np.arange(len(self.sites))
        there = self._need > 0
        moved = moving[own, self.sites]
        return float((there[:count] * held).sum() + (there[count:] * moved).sum())

    def work(self, run: Floats | None = None) -> float:
        """All work, in seconds; or priced by ``run`` (``T x S``)."""
        run = self.problem.seconds if run is None else run
        return float(run[np.arange(len(self.sites)), self.sites].sum())

    def changes(self, held: Floats, moving: Floats) -> Floats:
        """``T x S``: what moving one step to a site, and nothing else, adds to :meth:`total`."""
        problem, sites = self.problem, self.sites
        tasks, items = problem.edges
        count, own = len(problem.held), np.arange(len(sites))
        price = np.concatenate([held, moving[own, sites]])
        come = np.where(self._need == 0, price, 0.0)[items]
        here = sites[tasks]
        leave = np.where(self._need == 1, price, 0.0)[items, here]
        come[np.arange(len(tasks)), here] = leave
        change = np.zeros((len(sites), len(problem.sites)))
        np.add.at(change, tasks, come - leave[:, None])
        out = np.einsum("tq,tsq->ts", (self._need[count:] > 0).astype(float), moving)
        change += out - out[own, sites][:, None]
        return change

    def work_changes(self, run: Floats | None = None) -> Floats:
        """``T x S``: what moving one step to a site adds to :meth:`work`."""
        seconds = self.problem.seconds if run is None else run
        changes: Floats = seconds - seconds[np.arange(len(self.sites)), self.sites][:, None]
        return changes
