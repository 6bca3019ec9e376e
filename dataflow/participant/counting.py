"""Counting: whether an order may go on with the rows that are really there, where an owner has a floor."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dataflow.errors import NotGranted
from dataflow.execution.events import SegmentOrder
from dataflow.participant.answered import Answered
from dataflow.participant.audit import Audit
from dataflow.participant.gate import Gate
from dataflow.policy.differencing import RowSet


class Counting:
    """The row floors of owners, applied once the rows are there."""

    def __init__(
        self, site: str, gate: Gate, answered: Answered, audit: Audit, clock: Callable[[], float]
    ) -> None:
        self._site, self._gate, self._answered = site, gate, answered
        self._audit, self._clock = audit, clock

    def uncounted(self, order: SegmentOrder, keys: Iterable[str]) -> list[str]:
        """Those of ``keys`` whose rows have to be counted before anybody computes with them."""
        return [
            key
            for key in dict.fromkeys(keys)
            if key in order.guarded and not self._answered.knows(key, order.guarded[key])
        ]

    def counted(self, order: SegmentOrder, key: str, rows: RowSet | None) -> None:
        """Let an order compute with rows, and note them; or refuse.

        Parameters
        ----------
        key
            Of what made the rows: an input of a step.
        rows
            As they were counted; ``None`` if nobody could. What is a registered dataset has the rows
            that its owner's record says.

        Raises
        ------
        NotGranted
            If they are fewer than the floor, or differ by less than that from others that were
            computed with here before.
        """
        datasets = order.guarded[key]
        if rows is None and key in datasets and (known := self._gate.rows_of(key)) is not None:
            rows = RowSet(known)
        for about, floor in datasets.items():
            if rows is None or rows.rows < floor:
                because = f"fewer than {floor} rows are not computed with"
                raise self._refused(order, about, because)
        assert rows is not None
        near = self._answered.take(key, rows, datasets, self._clock())
        if near is not None:
            because = (
                f"these rows may differ by fewer than {datasets[near]} from others that were computed "
                "with before, and both results together would tell of those few"
            )
            raise self._refused(order, near, because)

    def _refused(self, order: SegmentOrder, about: str, because: str) -> NotGranted:
        text = f"{self._gate.clause(order, about)}: {because}"
        self._audit.write(
            user=order.user, what="rows", object=order.id, allowed=False, clause=text, job=order.job
        )
        return NotGranted({self._site: text})
