"""Steady: whether work that is planned once more is worth putting elsewhere. Pure.

Predictions are not exact, and to change one's mind costs: orders that were prepared, copies that are on their
way. So the present placement is kept unless another one is better by more than the noise:

    it is better by at least a tenth at the middle of what is expected, and it is not worse at
    either end, where everything is quick and where everything is slow.

A placement that keeps the limits (deadline, budget) wins over one that does not, however little it is
better.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from dataflow.errors import PlacementError, PolicyError
from dataflow.placement.aim import Aim, Figures, better
from dataflow.placement.plan import Plan

#: A new placement has to be better by this share.
LEAST_GAIN = 0.1


@dataclass(frozen=True, slots=True)
class Standing:
    """What a placement comes to: at the middle, and where all is quick, and slow, if that is known."""

    middle: Figures
    ends: tuple[Figures, Figures] | None = None


def standing(plan: Plan) -> Standing:
    """What a plan comes to."""
    middle = Figures(seconds=plan.seconds, nbytes=plan.nbytes, money=plan.money, energy=plan.energy)
    if plan.likely is None:
        return Standing(middle)
    ends = [
        Figures(seconds=seconds, nbytes=nbytes, money=plan.money, energy=plan.energy)
        for seconds, nbytes in zip(plan.likely.seconds, plan.likely.nbytes, strict=True)
    ]
    return Standing(middle, (ends[0], ends[1]))


def wins(new: Standing, present: Standing, aim: Aim) -> bool:
    """Whether another placement is better than the present one by more than the noise."""
    mine, theirs = aim.score(new.middle), aim.score(present.middle)
    if mine[0] or theirs[0]:  # one of them does not keep to the limits
        if better(mine[:1], theirs[:1]):
            return True
        if better(theirs[:1], mine[:1]):
            return False
    if not _by_far(mine[1:], theirs[1:]):
        return False
    if new.ends is None or present.ends is None:
        return True
    return not any(
        better(aim.score(then)[1:], aim.score(now)[1:])
        for now, then in zip(new.ends, present.ends, strict=True)
    )


def steadily(
    made: Callable[[Mapping[str, str]], Plan], plan: Plan, gone: Collection[str], aim: Aim
) -> Plan:
    """A new plan for what another one was for: with its placement, unless a new one wins.

    Parameters
    ----------
    made
        A plan with these steps (by key) pinned to these sites, if there is any.
    plan
        What is carried out now.
    gone
        Sites that are no longer used: what they were to run goes elsewhere.

    Raises
    ------
    PlacementError, PolicyError
        If there is no plan.
    """
    new = made({})
    placed = {a.key: a.site for a in new.assignments if a.reused is None}
    present = {
        a.key: a.site
        for a in plan.assignments
        if a.reused is None and a.site not in gone and a.key in placed
    }
    if all(placed[key] == site for key, site in present.items()):
        return new
    try:
        kept = made(present)
    except (PlacementError, PolicyError):
        return new
    return new if wins(standing(new), standing(kept), aim) else kept


def _by_far(mine: Sequence[float], theirs: Sequence[float]) -> bool:
    """Whether the first of the sums that are not alike is less by more than the least gain."""
    for new, present in zip(mine, theirs, strict=True):
        noise = LEAST_GAIN * max(abs(present), abs(new))
        if abs(new - present) > noise:
            return new < present
    return False
