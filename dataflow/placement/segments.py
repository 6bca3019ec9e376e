"""Segments: cutting a solved graph into pieces that one site runs in one go.

Steps belong together that are at one site, equally deep, and connected by a result or by something
they both read. Depth grows by one whenever a result crosses to another site; so between two
segments depth always grows, and the segments cannot wait for one another in a circle.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from dataflow.placement.problem import Problem


@dataclass(frozen=True, slots=True)
class Cut:
    """One segment in numbers: its site, steps in order, items it needs, steps it stores."""

    site: int
    depth: int
    tasks: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def cut(problem: Problem, sites: Sequence[int], stored: Set[int]) -> list[Cut]:
    """Segments of a choice of sites, those that others wait for first.

    Parameters
    ----------
    problem, sites
        The problem and one site per step.
    stored
        Numbers of the steps whose result is to be kept in any case.
    """
    held = len(problem.held)
    depth = [0] * len(problem.tasks)
    root = list(range(len(problem.tasks)))

    def find(task: int) -> int:
        while root[task] != task:
            root[task] = root[root[task]]
            task = root[task]
        return task

    reader: dict[tuple[int, int, int], int] = {}
    for task, items in enumerate(problem.inputs):
        site = sites[task]
        for item in items:
            if item >= held:
                before = depth[item - held] + (sites[item - held] != site)
                depth[task] = max(depth[task], before)
        for item in items:
            made = item - held
            if made >= 0 and sites[made] == site and depth[made] == depth[task]:
                neighbour = made
            else:
                neighbour = reader.setdefault((item, site, depth[task]), task)
            a, b = find(neighbour), find(task)
            root[max(a, b)] = min(a, b)
    groups: dict[int, list[int]] = {}
    for task in range(len(problem.tasks)):
        groups.setdefault(find(task), []).append(task)
    found = []
    for first, tasks in groups.items():
        inputs: dict[int, None] = {}
        outputs = []
        for task in tasks:
            for item in problem.inputs[task]:
                if item < held or find(item - held) != first:
                    inputs[item] = None
            users = problem.users[held + task]
            if task in stored or any(find(user) != first for user in users):
                outputs.append(task)
        found.append(Cut(sites[first], depth[first], tuple(tasks), tuple(inputs), tuple(outputs)))
    return sorted(found, key=lambda part: (part.depth, part.tasks[0]))


def duration(problem: Problem, part: Cut) -> float:
    """Seconds a segment takes by itself: its longest chain, or all its work over the workers."""
    held = len(problem.held)
    done: dict[int, float] = {}
    work = 0.0
    for task in part.tasks:
        own = float(problem.seconds[task, part.site])
        work += own
        before = [done[item - held] for item in problem.inputs[task] if item - held in done]
        done[task] = own + max(before, default=0.0)
    return max(max(done.values(), default=0.0), work / problem.workers[part.site])
