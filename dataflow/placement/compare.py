"""Compare: two plans side by side, as data, as text and as HTML."""

from __future__ import annotations

from dataclasses import dataclass

from dataflow._html import Markup, block, escape, plain_table, table
from dataflow._quantities import format_bytes, format_seconds
from dataflow.placement.likely import alike
from dataflow.placement.plan import Plan

_HEADER = ("what", "before", "after")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A step, or a transfer of one key, that the plans do otherwise; empty where one has it not.

    For a step the sites; for a transfer ``source → target`` of all its copies.
    """

    label: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Difference:
    """What is otherwise in one plan than in another.

    Attributes
    ----------
    steps, transfers
        What runs elsewhere, or in one of them only; and what moves otherwise.
    seconds, nbytes, money, energy
        Of the second plan less those of the first.
    alike
        Whether nothing follows from the predicted seconds and bytes: they are within 3 %, or one plan
        is better where all goes well and the other where all goes badly.
    """

    steps: tuple[Moved, ...]
    transfers: tuple[Moved, ...]
    seconds: float
    nbytes: int
    money: float = 0.0
    energy: float = 0.0
    alike: bool = False

    def __bool__(self) -> bool:
        return bool(self.steps or self.transfers)

    def __repr__(self) -> str:
        if not self:
            return f"the same steps at the same sites; {self.in_figures()}"
        return f"{self.in_figures()}\n" + plain_table(_HEADER, self._rows())

    def _repr_html_(self) -> str:
        parts = [Markup(f"<p>{escape(self.in_figures())}</p>")]
        parts += [table(_HEADER, self._rows())] if self else []
        return block(*parts).text

    def in_figures(self) -> str:
        """By how much it is longer or shorter, and moves more or less, in words."""
        if self.alike:
            return "as long and as many bytes, within what can be predicted"
        later, more = self.seconds >= 0, self.nbytes >= 0
        return (
            f"{format_seconds(abs(self.seconds))} {'longer' if later else 'shorter'}, "
            f"{format_bytes(abs(self.nbytes))} {'more' if more else 'less'} moved"
        )

    def _rows(self) -> list[tuple[str, str, str]]:
        rows = [(one.label, one.before or "-", one.after or "-") for one in self.steps]
        return rows + [
            (f"{one.label} moves", one.before or "-", one.after or "-") for one in self.transfers
        ]


def difference(before: Plan, after: Plan) -> Difference:
    """What is otherwise in ``after``; steps are known by their keys."""
    return Difference(
        steps=_moved(before, after, _sites(before), _sites(after)),
        transfers=_moved(before, after, _ways(before), _ways(after)),
        seconds=after.seconds - before.seconds,
        nbytes=after.nbytes - before.nbytes,
        money=after.money - before.money,
        energy=after.energy - before.energy,
        alike=alike(before, after),
    )


def _sites(plan: Plan) -> dict[str, str]:
    return {a.key: a.site if a.reused is None else f"reused at {a.site}" for a in plan.assignments}


def _ways(plan: Plan) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for transfer in plan.transfers:
        found.setdefault(transfer.key, []).append(f"{transfer.source} → {transfer.target}")
    return {key: ", ".join(sorted(ways)) for key, ways in found.items()}


def _moved(
    before: Plan, after: Plan, old: dict[str, str], new: dict[str, str]
) -> tuple[Moved, ...]:
    found = []
    for key in dict.fromkeys((*old, *new)):
        was, now = old.get(key, ""), new.get(key, "")
        if was != now:
            label = (after if key in new else before).label(key)
            found.append(Moved(label=label, before=was, after=now))
    return tuple(found)
