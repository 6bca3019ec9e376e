"""Exact: bounds by integer programming, for problems of up to a few hundred steps.

Two programmes over "step t runs at site s" and "item i comes to site s". The fewest bytes are exactly
its optimum. For the makespan it forgets when things happen and keeps what has to happen: no site
can work, and no site can receive or give away, more in that time than it is able to. Stopped early,
what is proven by then counts.
"""

from __future__ import annotations

import time
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np

from dataflow.errors import PlacementError
from dataflow.placement.engine.bounds import Bounds
from dataflow.placement.engine.fluid import slowest_impossible
from dataflow.placement.engine.instance import Instance

#: More variables than this are not tried.
_MOST = 200_000
#: The solver takes a price for nothing that is less (seconds, or shares of the largest item), of every variable.
_BLUR = 1e-7
#: And the whole for reached if it is as near as this.
_NEAR = 2e-6


def proven(
    instance: Instance, known: Bounds, seconds: float, *, makespan: float = np.inf
) -> Bounds:
    """Better bounds than those known, if so many seconds find any.

    Parameters
    ----------
    seconds
        How long to look: half of it for the makespan, first as a fluid, then by whole steps; half for bytes.
    makespan
        What some plan reaches (seconds), if it is known: nothing that is slower is looked at.

    Raises
    ------
    PlacementError
        SciPy is not installed.
    """
    if find_spec("scipy") is None:
        raise PlacementError(
            "bounds by integer programming need scipy: pip install 'jupyter-dataflow[placement]'"
        )
    begun = time.monotonic()
    span = slowest_impossible(instance, known.makespan, seconds / 2, makespan=makespan)
    known = replace(known, makespan=span)
    if not instance.steps or 2 * (instance.steps + instance.items) * instance.width > _MOST:
        return known
    model = _Model(instance)
    left = seconds / 2 - (time.monotonic() - begun)
    if left > 0 and span < makespan * (1 - 1e-6):  # else nothing is left to prove
        span = max(span, model.least(left, makespan=True))
    rest = max(seconds / 2, seconds - (time.monotonic() - begun))
    return Bounds(makespan=span, nbytes=max(known.nbytes, model.least(rest, makespan=False)))


class _Model:
    """Rows of ``least <= A v <= most``; variables: placements, arrivals, departures, makespan."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        width = instance.width
        self.arrivals = instance.steps * width
        self.leaves = self.arrivals + instance.items * width
        self.makespan = self.leaves + instance.items
        self.row: list[int] = []
        self.column: list[int] = []
        self.value: list[float] = []
        self.low: list[float] = []
        self._rows()

    def _at_least(self, low: float, *terms: tuple[int, float]) -> None:
        for column, value in terms:
            self.row.append(len(self.low))
            self.column.append(column)
            self.value.append(value)
        self.low.append(low)

    def _rows(self) -> None:
        one = self.instance
        width = one.width
        for step in range(one.steps):
            here = [(step * width + site, 1.0) for site in range(width)]
            self._at_least(1.0, *here)
            self._at_least(-1.0, *[(column, -1.0) for column, _ in here])
        for item in range(one.items):
            maker = int(one.producer[item])
            homes = one.homes[one.home_at[item] : one.home_at[item + 1]].tolist()
            readers = one.readers[one.reader_at[item] : one.reader_at[item + 1]].tolist()
            for site in range(width):
                if site in homes:
                    continue
                comes = (self.arrivals + item * width + site, 1.0)
                made = [(maker * width + site, 1.0)] if maker >= 0 else []
                for reader in readers:
                    self._at_least(0.0, comes, *made, (reader * width + site, -1.0))
                if one.deliver[item] and site == one.client:
                    self._at_least(1.0, comes, *made)
            if len(homes) == 1:
                for reader in readers:
                    at_home = (reader * width + homes[0], 1.0)
                    self._at_least(1.0, (self.leaves + item, 1.0), at_home)
        self._capacities(width)

    def _capacities(self, width: int) -> None:
        one = self.instance
        for site in range(width):
            work = [
                (step * width + site, -float(one.seconds[step, site]))
                for step in np.flatnonzero(np.isfinite(one.seconds[:, site])).tolist()
            ]
            self._at_least(0.0, (self.makespan, float(one.workers[site])), *work)
            if width == 1:
                continue
            others = np.arange(width) != site
            received = [
                (self.arrivals + item * width + site, -float(one.size[item]))
                for item in range(one.items)
            ]
            able = float((1.0 / one.pace[others, site]).sum())
            self._at_least(0.0, (self.makespan, able), *received)
            given = [
                (self.leaves + item, -float(one.size[item]))
                for item in np.flatnonzero(np.diff(one.home_at) == 1).tolist()
                if one.homes[one.home_at[item]] == site
            ]
            able = float((1.0 / one.pace[site, others]).sum())
            self._at_least(0.0, (self.makespan, able), *given)

    def least(self, seconds: float, *, makespan: bool) -> float:
        """What is proven to be the least within a time limit."""
        from scipy.optimize import Bounds as Box
        from scipy.optimize import LinearConstraint, milp
        from scipy.sparse import csr_array

        one = self.instance
        count = self.makespan + 1
        cost = np.zeros(count)
        unit = 1.0
        if makespan:
            cost[self.makespan] = 1.0
        else:
            unit = float(one.size.max(initial=0.0)) or 1.0
            cost[self.arrivals : self.leaves] = np.repeat(one.size / unit, one.width)
        upper = np.ones(count)
        upper[self.makespan] = np.inf
        upper[: self.arrivals] = np.isfinite(one.seconds).ravel()
        whole = np.zeros(count)
        whole[: self.arrivals] = 1
        rows: Any = csr_array((self.value, (self.row, self.column)), shape=(len(self.low), count))
        result = milp(
            cost,
            integrality=whole,
            bounds=Box(np.zeros(count), upper),
            constraints=LinearConstraint(rows, np.array(self.low), np.inf),
            options={"time_limit": seconds, "mip_rel_gap": 1e-9},
        )
        bound = result.mip_dual_bound
        if bound is None or not np.isfinite(bound):
            return 0.0
        # by the sum of what it may have taken for nothing; 2.9e-6 above an optimum has been seen
        blur = max(_NEAR, _BLUR * (len(whole) if makespan else np.count_nonzero(cost)))
        return max(0.0, float(bound) * (1 - 1e-7) - blur) * unit
