"""Explain: a plan as text and as HTML."""

from __future__ import annotations

from dataflow._html import Markup, block, disclosure, listing, plain_table, table
from dataflow._quantities import format_bytes, format_seconds
from dataflow.placement.plan import Assignment, Candidate, Plan, Transfer

#: Rows of a table beyond these are counted, not shown.
MOST_ROWS = 200


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
    told = [words for words in (likely(plan), bounds(plan)) if words]
    lines += ["", *told] if told else []
    if plan.notes:
        lines += ["", *(f"note: {note}" for note in plan.notes)]
    return "\n".join(lines)


def bounds(plan: Plan) -> str:
    """What no plan for these steps can beat, in one line."""
    if plan.least is None:
        return ""
    best = "; by the objective none is better than this one" if plan.least.optimal else ""
    return (
        f"no plan for these steps ends before {format_seconds(plan.least.seconds)} or moves less "
        f"than {format_bytes(plan.least.nbytes)}{best}"
    )


def likely(plan: Plan) -> str:
    """Between what and what its figures are to be expected, in one line; empty if nobody knows."""
    from dataflow.placement.likely import in_words

    return in_words(plan.likely) if plan.likely is not None and plan.assignments else ""


def html(plan: Plan) -> str:
    """A plan for a notebook: the picture, and tables to unfold."""
    from dataflow.placement.picture import draw

    assignments = plan.assignments[:MOST_ROWS]
    rows = [
        (
            *_row(plan, a)[:4],
            disclosure(a.because, candidate_table(a.candidates)) if a.candidates else a.because,
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
    told = [words for words in (likely(plan), bounds(plan)) if words]
    least = [Markup(f"<p><small>{_b('; '.join(told))}</small></p>")] if told else []
    return block(Markup(f"<p>{_b(headline)}</p>"), Markup(draw(plan)), *least, *folded).text


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


def candidate_rows(candidates: tuple[Candidate, ...]) -> list[tuple[str, str, str, str]]:
    """A row per candidate: site, seconds, bytes, and why (not)."""
    return [
        (c.site, format_seconds(c.seconds), format_bytes(c.nbytes), c.because)
        if c.allowed
        else (c.site, "-", "-", f"not allowed{f' ({c.rule})' if c.rule else ''}: {c.because}")
        for c in candidates
    ]


def candidate_table(candidates: tuple[Candidate, ...]) -> Markup:
    """The same as a table for a page."""
    refused = [number for number, candidate in enumerate(candidates) if not candidate.allowed]
    header = ("site", "seconds", "moved", "because")
    return table(header, candidate_rows(candidates), numbers=(1, 2), faint=refused)


def _more(count: int) -> list[str]:
    return [f"… and {count - MOST_ROWS} more"] if count > MOST_ROWS else []


def _b(value: str) -> str:
    from dataflow._html import escape

    return escape(value)
