"""Race: the plans that a search has met, best first, and the effort that it has left.

Every plan is judged by playing it on the network that it is made for. One that has to do on any network is
played with queues on links and without, and its makespan is a weighted geometric mean of both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

from dataflow.placement.engine.effort import CALL, Effort
from dataflow.placement.engine.instance import Instance
from dataflow.placement.engine.loads import at_least
from dataflow.placement.engine.simulate import Choice, Network, Outcome, simulate, simulate_defaults

Objective = Literal["makespan", "bytes"] | float
#: What a plan is made for: one network, or any, where nobody knows how its links behave.
AnyNetwork = Network | Literal["any"]
#: Score, makespan, bytes, plan, which part of the search found it.
Entry = tuple[float, float, float, Choice, str]

#: Seconds that a change takes beyond playing it.
PLAN = 4e-6
#: Of the makespan on any network, the share of the one without queues (an exponent).
_FREE_SHARE = 0.8
#: What playing a plan takes on a network, as a multiple.
PLAYS: Mapping[AnyNetwork, float] = {"serial": 1.0, "free": 1.0, "fair": 2.0, "any": 1.6}


def exchange_rate(objective: Objective) -> float:
    """What a factor in bytes is worth as a factor in seconds (an exponent).

    ``makespan`` takes bytes only where they cost next to nothing, ``bytes`` seconds; a weight from
    0 to 1 lies between them: with 0.5, a tenth of the bytes is worth a sixth more time.
    """
    if objective == "makespan":
        return 0.02
    if objective == "bytes":
        return math.inf
    weight = float(objective)
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"a weight is from 0 (makespan) to 1 (bytes), not {weight:g}")
    return math.inf if weight == 1.0 else 0.02 + 0.05 * weight / (1.0 - weight)


class Race:
    """The plans so far, best first, and the effort that is left."""

    def __init__(
        self,
        instance: Instance,
        exchange: float,
        effort: float,
        seconds: float,
        clock: Callable[[], float] | None,
        network: AnyNetwork,
    ) -> None:
        self.instance, self.exchange = instance, exchange
        self.network: Network = "serial" if network == "any" else network
        self.share = _FREE_SHARE if network == "any" else 0.0
        self.left = effort
        self._clock = clock
        self._begun = clock() if clock else 0.0
        self._limit, self.whole = seconds, effort
        self.takes = Effort(instance, PLAYS[network])
        self.moves = float(instance.steps)
        self.found: list[Entry] = []
        self.fastest: Entry | None = None
        self.outcome: Outcome | None = None  # of the best plan, if it was played with all its times
        self.straight = math.inf  # the best score of a plan whose copies all go the default way
        self.plans = 0

    def over(self) -> bool:
        late = self._clock is not None and self._clock() - self._begun >= self._limit
        return late or self.left <= 0

    def pay(self, seconds: float) -> None:
        """Count effort, see :class:`~dataflow.placement.engine.effort.Effort`."""
        self.left -= seconds

    @property
    def one(self) -> float:
        """What playing one more plan takes, as far as can be told."""
        return self.takes.playing(self.moves) + PLAN

    def affordable(self) -> int:
        """How many plans can still be played."""
        left = self.left
        if self._clock is not None:
            left = min(left, self._limit - (self._clock() - self._begun))
        return max(0, int(left / self.one))

    def score(self, makespan: float, nbytes: float) -> float:
        if math.isinf(self.exchange):
            return nbytes + makespan * 1e-9
        total = self.instance.total_bytes
        return math.log(makespan + 1e-12) + self.exchange * math.log(nbytes + 0.01 * total + 1e-12)

    def best(self, slower: float) -> Entry:
        """The best plan that is at most so many times slower than the fastest."""
        assert self.fastest is not None
        limit = self.fastest[1] * slower
        return next((one for one in self.found if one[1] <= limit), self.fastest)

    def enter(self, choice: Choice, origin: str, *, exact: bool = False) -> tuple[float, float]:
        """Play a plan and keep it, unless its loads alone show that it has lost; what it takes.

        Of a plan that has lost that is the least that it can take.
        """
        instance = self.instance
        loaded = self.network != "free" and not self.share  # else links carry any amount at once
        if self.found and not exact and loaded:
            span, nbytes = at_least(*instance.graph, choice.site)
            self.pay(self.takes.loads)
            behind = self.score(span, nbytes) > self.found[min(2, len(self.found) - 1)][0]
            slower = self.fastest is not None and span > self.fastest[1]
            if behind and (slower or math.isinf(self.exchange)):
                return float(span), float(nbytes)
        outcome = simulate_defaults(instance, choice, self.network)
        self.moves = len(outcome.moves)
        self.pay(self.takes.playing(self.moves) + CALL)
        self.plans += 1
        self.keep(choice, outcome.makespan, outcome.nbytes, origin, outcome)
        return outcome.makespan, outcome.nbytes

    def keep(
        self,
        choice: Choice,
        makespan: float,
        nbytes: float,
        origin: str,
        outcome: Outcome | None = None,
    ) -> None:
        if self.share:
            free = simulate(self.instance, choice, "free").makespan
            makespan = float(makespan ** (1 - self.share) * free**self.share)
        entry = (self.score(makespan, nbytes), makespan, nbytes, choice, origin)
        if self.fastest is None or makespan < self.fastest[1]:
            self.fastest = entry
        if not len(choice.transfers):
            self.straight = min(self.straight, entry[0])
        self.found.append(entry)
        self.found.sort(key=lambda one: one[0])
        if self.found[0] is entry:
            self.outcome = outcome
        del self.found[12:]
