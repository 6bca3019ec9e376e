"""Proof: what no choice of sites can beat, and for small graphs the choice that nothing beats.

Seconds: the longest chain with every step and every transfer as early as it can be, and all work
on all workers together. Bytes: the least sum over the graph, in which an item that several steps
read is shared out among them; exact where every item has one reader. Both hold for the sites that
are open to each step.

The best choice is found by trying: steps one after the other at each of their sites, leaving off
where what is decided already cannot become better than the best that is known. Pure; effort is
counted in tries, so that equal problems get equal answers.
"""

from __future__ import annotations

from math import inf

import numpy as np

from dataflow.placement.aim import Aim, Measure, better
from dataflow.placement.figures import Prices, figures
from dataflow.placement.problem import Floats, Problem

#: Up to this many steps the best choice is looked for, by at most so many tries.
PROVEN_STEPS = 24
TRIES = 2_000
#: Choices of all sites that are played at most, in steps.
PLAYED_STEPS = 2_000
#: Bounds are taken so much lower, against rounding (a share).
_ROUNDING = 1e-9
#: A table of more numbers than this is gone through row by row with NumPy.
_WIDE = 8


def least(problem: Problem) -> tuple[float, float]:
    """Seconds and bytes that no choice of sites can be below."""
    early, arrive = _earliest(problem)
    seconds = max(_area(problem, early), _last(problem, arrive, early))
    nbytes = least_sum(problem, problem.held_bytes, problem.move_bytes, None)
    return seconds * (1 - _ROUNDING), nbytes * (1 - _ROUNDING)


def least_sum(problem: Problem, held: Floats, moves: Floats, run: Floats | None) -> float:
    """A sum of prices (see :class:`~dataflow.placement.figures.Prices`) that no choice is below."""
    count, old = len(problem.tasks), len(problem.held)
    delivered = set(problem.deliver) if problem.client >= 0 else set()
    produce = np.where(problem.within, 0.0 if run is None else run, np.inf)
    share = [max(1, len(users) + (item in delivered)) for item, users in enumerate(problem.users)]
    arrive = np.empty((old + count, len(problem.sites)))
    arrive[:old] = held / np.array(share[:old], dtype=float)[:, None]
    total = 0.0
    for task, items in enumerate(problem.inputs):
        if items:
            produce[task] += arrive[list(items)].sum(axis=0)
        item = old + task
        if problem.users[item] or item in delivered:
            arrive[item] = (moves[task] + produce[task][:, None]).min(axis=0) / share[item]
        else:
            total += float(produce[task].min())
    return total + sum(float(arrive[item][problem.client]) for item in delivered)


def _earliest(problem: Problem) -> tuple[list[list[float]], list[list[float]]]:
    """Per step and site the earliest start, and per item and site the earliest that it is there."""
    width = len(problem.sites)
    numbers = range(width)
    arrive: list[list[float]] = problem.held_seconds.tolist()
    early: list[list[float]] = []
    within = problem.within.tolist()
    moves = problem.move_seconds if width > _WIDE else problem.move_seconds.tolist()
    for task, items in enumerate(problem.inputs):
        rows = [arrive[item] for item in items]
        start = [max((row[site] for row in rows), default=0.0) for site in numbers]
        open_, takes = within[task], problem.seconds_rows[task]
        end = [start[s] + takes[s] if open_[s] else inf for s in numbers]
        early.append([start[s] if open_[s] else inf for s in numbers])
        if width > _WIDE:
            there: list[float] = (moves[task] + np.array(end)[:, None]).min(axis=0).tolist()
        else:
            mine = moves[task]
            there = [min(end[a] + mine[a][b] for a in numbers) for b in numbers]
        arrive.append(there)
    return early, arrive


def _last(problem: Problem, arrive: list[list[float]], early: list[list[float]]) -> float:
    """The end of the longest chain, with what has to be delivered."""
    within, rows = problem.within.tolist(), problem.seconds_rows
    numbers = range(len(problem.sites))
    ends = [
        min((early[t][s] + rows[t][s] for s in numbers if within[t][s]), default=0.0)
        for t in range(len(problem.tasks))
    ]
    if problem.client >= 0:
        ends += [arrive[item][problem.client] for item in problem.deliver]
    return max(ends, default=0.0)


def _area(problem: Problem, early: list[list[float]]) -> float:
    """All work on all workers, sites weighted by their speed; after the first moment of any."""
    if not problem.tasks:
        return 0.0
    seconds = np.where(problem.within, problem.seconds, np.inf)
    workers = np.array(problem.workers, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = seconds.min(axis=1, keepdims=True) / seconds
    relative[~np.isfinite(relative) | (relative <= 0)] = 0.0
    used = relative > 0
    speed = np.where(used.any(axis=0), relative.sum(axis=0) / np.maximum(1, used.sum(axis=0)), 0.0)
    if not (speed > 0).any():
        return 0.0
    # any weights give a valid bound: a site that nobody may use costs nothing and gives nothing
    weights = speed / (speed * workers).sum()
    weights = np.where(speed > 0, weights, 0.0)
    with np.errstate(invalid="ignore"):
        priced = np.where(problem.within, problem.seconds * weights, np.inf)
    work = float(priced.min(axis=1).sum())
    return work + min((min(row) for row in early), default=0.0)


# --- the best choice ------------------------------------------------------------------------------


def prove(
    problem: Problem,
    aim: Aim,
    known: tuple[int, ...],
    *,
    tries: int = TRIES,
    fixed: dict[int, int] | None = None,
) -> tuple[tuple[int, ...], bool]:
    """The best choice that is met, from a known one on, and whether none can be better.

    Parameters
    ----------
    fixed
        Step → site, for what is not to be tried elsewhere.
    """
    if len(problem.tasks) > PROVEN_STEPS:
        return known, False
    return _Trying(problem, aim, known, tries, fixed or {}).result()


class _Trying:
    """Depth first over the steps in their order; what is undone is remembered on the way."""

    def __init__(
        self,
        problem: Problem,
        aim: Aim,
        known: tuple[int, ...],
        tries: int,
        fixed: dict[int, int],
    ) -> None:
        self.problem, self.aim = problem, aim
        self.best, self.best_score = known, aim.score(figures(problem, known))
        self.left = tries
        self.plays = max(1, PLAYED_STEPS // max(1, len(problem.tasks)))
        self.old = len(problem.held)
        self.open = [
            [fixed[t]] if t in fixed else np.flatnonzero(row).tolist()
            for t, row in enumerate(problem.within)
        ]
        stage: dict[Measure, float] = dict(aim.stages[0])
        self.weight = stage.get("seconds", 0.0)
        others: dict[Measure, float] = {m: w for m, w in stage.items() if m != "seconds"}
        prices = Prices(problem, others)
        self.held, self.moves, self.run = (
            prices.held.tolist(), prices.moves.tolist(), prices.run.tolist()
        )  # fmt: skip
        self.floor = least_sum(problem, prices.held, prices.moves, prices.run) * (1 - _ROUNDING)
        self.seconds = least(problem)[0]
        self.held_seconds = problem.held_seconds.tolist()
        self.move_seconds = problem.move_seconds.tolist()
        self.after = self._after()
        self.sites: list[int] = []
        self.ends: list[float] = []
        self.there: set[tuple[int, int]] = set()
        self.delivered = set(problem.deliver) if problem.client >= 0 else set()
        self.before = 0.0
        for item in self.delivered:
            if item < self.old:
                self.seconds = max(self.seconds, self.held_seconds[item][problem.client])
                self.before += self.held[item][problem.client]
                self.there.add((item, problem.client))

    def result(self) -> tuple[tuple[int, ...], bool]:
        if not self._can_win(self.seconds, self.floor):
            return self.best, True
        done = self._from(0, self.seconds, self.before)
        return self.best, done

    def _after(self) -> list[list[float]]:
        """Per step and site the least seconds from its end to the end of all that follows."""
        problem, numbers = self.problem, range(len(self.problem.sites))
        after = [[0.0] * len(problem.sites) for _ in problem.tasks]
        for task in range(len(problem.tasks) - 1, -1, -1):
            moves, mine = self.move_seconds[task], after[task]
            item = self.old + task
            if problem.client >= 0 and item in problem.deliver:
                for site in numbers:
                    mine[site] = max(mine[site], moves[site][problem.client])
            for user in problem.users[item]:
                takes, rest = problem.seconds_rows[user], after[user]
                goes = [(s, takes[s] + rest[s]) for s in self.open[user]]
                for site in numbers:
                    row = moves[site]
                    mine[site] = max(mine[site], min(row[s] + then for s, then in goes))
        return after

    def _can_win(self, seconds: float, cost: float) -> bool:
        """Whether a choice with no less than this could beat the best one."""
        excess = 0.0
        if self.aim.deadline is not None:
            excess = max(0.0, seconds * (1 - _ROUNDING) / self.aim.deadline - 1.0)
        value = self.weight * seconds + cost
        return better((excess, value), self.best_score[:2]) or (
            len(self.best_score) > 2 and not better(self.best_score[:2], (excess, value))
        )

    def _from(self, task: int, seconds: float, cost: float) -> bool:
        """Try all sites of the steps from this one on; false if the tries ran out."""
        if task == len(self.open):
            return self._play()
        options = []
        for site in self.open[task]:
            end, moved = self._placed(task, site)
            least_end = max(seconds, end + self.after[task][site])
            now = cost + moved + self.run[task][site]
            options.append((self.weight * least_end + now, least_end, now, site, end))
        options.sort()
        for _, least_end, now, site, end in options:
            if not self._can_win(least_end, max(now, self.floor)):
                continue
            if self.left <= 0:
                return False
            self.left -= 1
            added = self._needed(task, site) - self.there
            self.there |= added
            self.sites.append(site)
            self.ends.append(end)
            done = self._from(task + 1, least_end, now)
            self.sites.pop()
            self.ends.pop()
            self.there -= added
            if not done:
                return False
        return True

    def _play(self) -> bool:
        if self.plays <= 0:
            return False
        self.plays -= 1
        chosen = tuple(self.sites)
        score = self.aim.score(figures(self.problem, chosen))
        if better(score, self.best_score):
            self.best, self.best_score = chosen, score
        return True

    def _placed(self, task: int, site: int) -> tuple[float, float]:
        """When a step can be over at a site at the earliest, and the price of what it brings there."""
        start, moved = 0.0, 0.0
        for item in self.problem.inputs[task]:
            if item < self.old:
                comes = self.held_seconds[item][site]
                price = self.held[item][site]
            else:
                made = item - self.old
                source = self.sites[made]
                comes = self.ends[made] + self.move_seconds[made][source][site]
                price = self.moves[made][source][site]
            start = max(start, comes)
            if price and (item, site) not in self.there:
                moved += price
        item = self.old + task
        if item in self.delivered:
            moved += self.moves[task][site][self.problem.client]
        return start + self.problem.seconds_rows[task][site], moved

    def _needed(self, task: int, site: int) -> set[tuple[int, int]]:
        found = {(item, site) for item in self.problem.inputs[task]}
        item = self.old + task
        if item in self.delivered:
            found.add((item, self.problem.client))
        return found
