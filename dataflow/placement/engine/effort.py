"""Effort: what the parts of a search take, in seconds of an ordinary machine.

Counted, not measured: equal problems get equal effort wherever they are solved. The figures are
those of compiled loops; most time goes into transfers, each of which is queued, sent and told to
its readers.
"""

from __future__ import annotations

import math

from dataflow.placement.engine import compiled
from dataflow.placement.engine.instance import Instance

#: A call of a loop from outside the loops.
CALL = 5e-5
#: Plain Python takes so many times longer.
PLAIN = 150.0
_US = 1e-6


class Effort:
    """Seconds that passes over one instance take; playing a plan takes ``plays`` times what it does with queues."""

    def __init__(self, instance: Instance, plays: float = 1.0) -> None:
        steps = instance.steps
        edges = len(instance.inputs) + len(instance.outputs)
        wide = instance.width / 8
        far = 1.0 + 1.3 * max(0.0, math.log10(max(1, steps) / 1000))  # memory gets slower with size
        slow = far * (PLAIN if compiled.is_plain() else 1.0)
        self._unit = slow * _US
        self._plays = plays
        self._play = plays * self._unit * (0.25 * steps + 0.05 * edges)
        #: One list pass; the table that looks ahead; ranks.
        self.listing = self._unit * (0.05 * steps + 0.05 * edges * wide) + CALL
        self.table = self._unit * (0.04 * steps + 0.05 * edges * wide * wide) + CALL
        self.ranking = self._unit * (0.02 * steps + 0.01 * edges) + 2 * CALL
        #: Loads of a plan; one round of moves on loads, one of moves on bytes; one cut.
        self.loads = self._unit * (0.02 * steps + 0.01 * edges) + CALL / 2
        self.refining = self._unit * (0.1 * steps + 0.15 * edges) * wide
        self.lighter = self._unit * (0.03 * steps + 0.03 * edges) * (0.3 + 0.7 * wide)
        self.cutting = self._unit * (0.08 * steps + 0.12 * edges) + CALL / 2
        #: Bounds, and what is made once for every problem.
        self.bounding = self._unit * (0.3 * steps + 0.1 * edges * wide) + 2 * CALL
        self.start = 2 * CALL

    def playing(self, transfers: float, plans: int = 1) -> float:
        """So many plans with so many transfers in all."""
        return plans * self._play + self._plays * self._unit * 0.42 * transfers
