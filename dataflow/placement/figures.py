"""Figures: what a choice of sites comes to, and what single moves and steps are priced at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dataflow.placement.aim import Figures, Measure
from dataflow.placement.cost import simulate, transfers
from dataflow.placement.problem import Floats, Problem


def figures(problem: Problem, sites: Sequence[int]) -> Figures:
    """What a choice of one site per step comes to."""
    return figures_of_run(problem, sites, simulate(problem, sites).seconds)


def figures_of_run(problem: Problem, sites: Sequence[int], seconds: float) -> Figures:
    """The same, if the seconds are known."""
    nbytes, money = 0.0, 0.0
    egress = problem.egress_rows
    for item, target in transfers(problem, sites):
        source, moved, _ = problem.arrival(item, sites, target)
        nbytes += moved
        if egress is not None:
            money += moved * egress[source][target]
    energy = 0.0
    if problem.watts is not None:
        energy = sum(
            problem.seconds_rows[task][site] * float(problem.watts[site])
            for task, site in enumerate(sites)
        )
    return Figures(seconds=seconds, nbytes=nbytes, money=money, energy=energy)


class Prices:
    """A weighted sum of figures as prices of single moves and steps, if nothing overlaps.

    Attributes
    ----------
    held, moves, run
        ``H x S``, ``T x S x S`` and ``T x S``: bringing a held item to a site, a result from one to
        another, running a step.
    """

    def __init__(self, problem: Problem, weights: Mapping[Measure, float]) -> None:
        self.problem = problem
        seconds = weights.get("seconds", 0.0)
        per_byte: float | Floats = weights.get("bytes", 0.0)
        run = seconds * problem.seconds
        if problem.egress is not None and weights.get("money"):
            per_byte = per_byte + weights["money"] * problem.egress
        if problem.watts is not None and weights.get("energy"):
            run = run + weights["energy"] * problem.seconds * problem.watts
        self.run: Floats = run
        if isinstance(per_byte, float):
            self.held: Floats = seconds * problem.held_seconds + per_byte * problem.held_bytes
            self.moves: Floats = seconds * problem.move_seconds + per_byte * problem.move_bytes
        else:
            target = np.arange(len(problem.sites))
            self.held = (
                seconds * problem.held_seconds
                + per_byte[problem.held_source, target] * problem.held_bytes
            )
            self.moves = seconds * problem.move_seconds + per_byte * problem.move_bytes
