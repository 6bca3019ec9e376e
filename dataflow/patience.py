"""Patience: how long answers of one agent take, and how long to wait for the next one.

A limit that fits a laboratory cuts off whoever sits behind a slow road, and one that fits the slow road
waits half a minute for every dead machine. So limits follow what was seen: each grows with the
round trips of late. As long as nothing comes, most tries stay short, so that a site which is back
is met soon, and now and then one is long enough for a road that nobody has seen yet.
"""

from __future__ import annotations

from collections import deque
from math import inf
from statistics import median

#: So many round trips may pass beyond the usual limit: one for the answer, the others for what is
#: lost and sent again.
ROUND_TRIPS = 5.0
#: No limit is stretched beyond this (s).
LONGEST = 60.0
#: How much longer the longer tries are.
STEP = 3.0
#: Who has nobody else to ask begins no further try after so many seconds.
BEARABLE = 6.0
#: Whoever was heard of within so many seconds is there, as far as a user's own question goes.
LATELY = 15.0


class Patience:
    """What is known of the time that one agent's answers take.

    Examples
    --------
    >>> patience = Patience()
    >>> patience.stretched(2.0)
    2.0
    >>> patience.answered(4.0)
    >>> patience.stretched(2.0)
    22.0
    """

    def __init__(self) -> None:
        self._taken: deque[float] = deque(maxlen=5)
        self._road = 0.0
        self._heard_at = -inf
        self._failures = 0

    def answered(self, seconds: float) -> None:
        """A question was answered at once; asking and answering took so long."""
        self._taken.append(max(seconds, 0.0))
        self._road = min(self._road, seconds)
        self._failures = 0

    def took(self, seconds: float) -> None:
        """An answer that may have been held back has taken at least so long on the way."""
        if seconds > self.round_trip:
            self.answered(seconds)

    def connected(self, seconds: float) -> None:
        """The kernels say of a new connection how long it is there and back.

        That is known before anything was answered, and where the road has just become slow it is
        all that is known for a while.
        """
        self._road = max(seconds, 0.0)

    def heard(self, at: float) -> None:
        """Something came from the agent's own machine at this time (s), be it no answer yet."""
        self._heard_at = max(self._heard_at, at)

    def is_there(self, now: float, *, silent: float = inf) -> bool:
        """Whether the agent was heard of lately; others know that it is ``silent`` for so long (s)."""
        return min(silent, now - self._heard_at) < LATELY + self.more

    def failed(self) -> None:
        """Nothing came in time."""
        self._failures += 1

    @property
    def round_trip(self) -> float:
        """The usual time of late (s), or that of the road, if it is longer; 0 if nothing is known."""
        return max(self._road, median(self._taken) if self._taken else 0.0)

    @property
    def shortest(self) -> float | None:
        """The shortest time of late (s): a busy machine only makes it longer."""
        return min(self._taken, default=None)

    @property
    def more(self) -> float:
        """Seconds that an answer may take beyond the usual."""
        return min(ROUND_TRIPS * self.round_trip, LONGEST)

    def stretched(self, usual: float) -> float:
        """The limit for the next try, where ``usual`` is that of a fast road.

        Of tries that fail every second is three times as long, every fourth nine times, and so on.
        """
        doublings = (self._failures & -self._failures).bit_length() - 1 if self._failures else 0
        return max(usual, min((usual + self.more) * STEP**doublings, LONGEST))
