"""Refusals: what this site's agent said no to is written into the audit log, however often.

Strangers can knock as often as they like, and the log must not grow with it: of those without a
name only some are written down each second, and the next entry says how many were not.
"""

from __future__ import annotations

from collections.abc import Callable

from dataflow.participant.audit import Audit

#: Entries about strangers: so many at once, and so many a second.
BURST, EACH_SECOND = 100.0, 1.0


class Refusals:
    """Entries of what was refused at the door of one site."""

    def __init__(self, audit: Audit, clock: Callable[[], float]) -> None:
        self._audit, self._clock = audit, clock
        self._left, self._at, self._more = BURST, clock(), 0

    def write(self, user: str, what: str, because: str) -> None:
        """Write one down; ``user`` is empty for strangers."""
        if user:
            self._audit.write(user=user, what="refused", object=what, allowed=False, clause=because)
            return
        now = self._clock()
        self._left = min(BURST, self._left + max(now - self._at, 0.0) * EACH_SECOND)
        self._at = now
        if self._left < 1:
            self._more += 1
            return
        self._left -= 1
        more, self._more = self._more, 0
        self._audit.write(
            user="", what="refused", object=what, allowed=False, clause=because, more=more
        )
