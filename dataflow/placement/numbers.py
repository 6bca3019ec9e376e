"""Numbers: the model of a plan, out of the facts that the solver was given."""

from __future__ import annotations

from typing import Any

import numpy as np

from dataflow.placement.aim import Aim
from dataflow.placement.facts import Facts
from dataflow.placement.model import KEPT_NUMBERS, Model


def model_of(facts: Facts, aim: Aim) -> Model | None:
    """The numbers that are kept with a plan; ``None`` if they are too many."""
    problem, world = facts.problem, facts.world
    if len(problem.tasks) * len(problem.sites) > KEPT_NUMBERS:
        return None
    keys = (*problem.held, *problem.tasks)
    number = {key: i for i, key in enumerate(keys)}
    where = {name: i for i, name in enumerate(problem.sites)}
    bandwidth = np.where(np.isfinite(problem.bandwidth), problem.bandwidth, 0.0)
    copies = []
    for key in problem.held:
        near = sorted(world.copies[key], key=lambda copy: (copy.nbytes, copy.site, copy.url))
        copies.append(tuple((where[copy.site], float(copy.nbytes)) for copy in near))
    return Model(
        sites=problem.sites,
        workers=problem.workers,
        bandwidth=_rows(bandwidth),
        latency=_rows(problem.latency),
        held=problem.held,
        copies=tuple(copies),
        tasks=problem.tasks,
        reads=tuple(tuple(number[key] for key in step.inputs) for step in facts.steps),
        sizes=tuple(float(facts.sizes[key]) for key in keys),
        fixed=_rows(facts.fixed),
        per_byte=_rows(facts.per_byte),
        allowed=_rows(problem.allowed),
        within=_rows(problem.within),
        deliver=problem.deliver,
        client=problem.client,
        collectors=problem.collectors,
        input_bytes=tuple(
            tuple((problem.input_bytes or {})[task].tolist()) for task in problem.collectors
        ),
        egress=None if problem.egress is None else _rows(problem.egress),
        watts=None if problem.watts is None else tuple(problem.watts.tolist()),
        aim=aim,
        moves=tuple(problem.nbytes.tolist()),
        begins=None if problem.begins is None else tuple(problem.begins.tolist()),
        lead=problem.lead,
    )


def _rows(table: Any) -> Any:
    return tuple(map(tuple, table.tolist()))
