"""Explain: a plan as text and as HTML, and why one step runs where it does."""

from __future__ import annotations

from dataclasses import dataclass

from dataflow._html import Markup, block, disclosure, listing, plain_table, table
from dataflow._quantities import format_bytes, format_seconds
from dataflow.errors import PlacementError
from dataflow.placement.plan import Assignment, Candidate, Plan, Transfer

#: Rows of a table beyond these are counted, not shown.
MOST_ROWS = 200


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Why:
    """Why a step runs where it does.

    ``seconds`` and ``nbytes`` are those of the plan; each candidate has those of the plan with the
    step at its site.
    """

    label: str
    site: str
    because: str
    seconds: float
    nbytes: int
    candidates: tuple[Candidate, ...]

    def __repr__(self) -> str:
        return f"{self.label} at {self.site}: {self.because}\n" + plain_table(
            ("site", "seconds", "moved", "because"), _rows(self.candidates)
        )

    def _repr_html_(self) -> str:
        return block(
            Markup(f"<p><b>{_b(self.label)}</b> at <b>{_b(self.site)}</b>: {_b(self.because)}</p>"),
            _candidates(self.candidates),
        ).text


def why(plan: Plan, label: str) -> Why:
    """Why the step with this label (or key) runs where it does.

    Raises
    ------
    PlacementError
        If the plan has no such step.
    """
    for step in plan.steps:
        if label in (step.label, step.key):
            assignment = plan.assignment_by_key[step.key]
            return Why(
                label=step.label,
                site=assignment.site,
                because=assignment.because,
                seconds=plan.seconds,
                nbytes=plan.nbytes,
                candidates=assignment.candidates,
            )
    known = ", ".join(step.label for step in plan.steps[:20]) or "none"
    raise PlacementError(f"the plan has no step {label!r}; it has {known}")


def text(plan: Plan) -> str:
    """A plan as plain text: a line per step, per transfer and per note."""
    lines = [repr(plan).strip("<>")]
    if plan.result_at:
        lines[0] += f"; results end at {plan.result_at}"
    if plan.assignments:
        lines += ["", plain_table(_HEADER, [_row(plan, a) for a in plan.assignments[:MOST_ROWS]])]
        lines += _more(len(plan.assignments))
    if plan.transfers:
        rows = [_transfer_row(plan, transfer) for transfer in plan.transfers[:MOST_ROWS]]
        lines += ["", plain_table(_TRANSFERS, rows), *_more(len(plan.transfers))]
    if plan.notes:
        lines += ["", *(f"note: {note}" for note in plan.notes)]
    return "\n".join(lines)


def html(plan: Plan) -> str:
    """A plan for a notebook: the picture, and tables to unfold."""
    from dataflow.placement.picture import draw

    assignments = plan.assignments[:MOST_ROWS]
    rows = [
        (
            *_row(plan, a)[:4],
            disclosure(a.because, _candidates(a.candidates)) if a.candidates else a.because,
        )
        for a in assignments
    ]
    reused = [number for number, a in enumerate(assignments) if a.reused is not None]
    folded = [
        disclosure(
            f"{len(plan.assignments)} operations: where, and why",
            table(_HEADER, rows, numbers=(2, 3), faint=reused),
            *_more(len(plan.assignments)),
        )
    ]
    if plan.transfers:
        folded.append(
            disclosure(
                f"{len(plan.transfers)} transfers, {format_bytes(plan.nbytes)}",
                table(
                    _TRANSFERS,
                    [_transfer_row(plan, t) for t in plan.transfers[:MOST_ROWS]],
                    numbers=(3, 4),
                ),
                *_more(len(plan.transfers)),
            )
        )
    if plan.notes:
        folded.append(
            disclosure(
                f"{len(plan.notes)} note{'s' if len(plan.notes) > 1 else ''}", listing(plan.notes)
            )
        )
    headline = repr(plan).strip("<>") + (
        f"; results end at {plan.result_at}" if plan.result_at else ""
    )
    return block(Markup(f"<p>{_b(headline)}</p>"), Markup(draw(plan)), *folded).text


_HEADER = ("operation", "site", "seconds", "memory", "because")
_TRANSFERS = ("data", "from", "to", "size", "seconds", "way")


def _row(plan: Plan, assignment: Assignment) -> tuple[str, str, str, str, str]:
    done = assignment.reused is not None
    return (
        plan.label(assignment.key),
        assignment.site,
        "reused" if done else format_seconds(assignment.seconds),
        "" if done else format_bytes(assignment.memory),
        assignment.because,
    )


def _transfer_row(plan: Plan, transfer: Transfer) -> tuple[str, ...]:
    return (
        plan.label(transfer.key),
        transfer.source,
        transfer.target,
        format_bytes(transfer.nbytes),
        format_seconds(transfer.seconds),
        _way(transfer),
    )


def _way(transfer: Transfer) -> str:
    """How a copy gets there, where that is not by asking the agent of the source."""
    if transfer.via:
        return f"over {transfer.via}"
    if transfer.at:
        return f"{transfer.at} writes to the store"
    return f"{transfer.target} reads the store" if transfer.direct else ""


def _rows(candidates: tuple[Candidate, ...]) -> list[tuple[str, str, str, str]]:
    return [
        (c.site, format_seconds(c.seconds), format_bytes(c.nbytes), c.because)
        if c.allowed
        else (c.site, "-", "-", f"not allowed: {c.because}")
        for c in candidates
    ]


def _candidates(candidates: tuple[Candidate, ...]) -> Markup:
    refused = [number for number, candidate in enumerate(candidates) if not candidate.allowed]
    header = ("site", "seconds", "moved", "because")
    return table(header, _rows(candidates), numbers=(1, 2), faint=refused)


def _more(count: int) -> list[str]:
    return [f"… and {count - MOST_ROWS} more"] if count > MOST_ROWS else []


def _b(value: str) -> str:
    from dataflow._html import escape

    return escape(value)
