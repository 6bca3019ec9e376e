"""Limits: a plan that does not keep a deadline or a budget is refused, and what it would take. Pure."""

from __future__ import annotations

from dataflow._quantities import format_seconds
from dataflow.errors import PlacementError
from dataflow.placement.aim import Aim
from dataflow.placement.plan import Plan

_ROUNDING = 1e-9


def keep_limits(plan: Plan, aim: Aim) -> Plan:
    """The plan, if it is over in time and within the budget.

    Raises
    ------
    PlacementError
        If it is not; with what was found, and whether any plan could be better.
    """
    deadline, budget = aim.deadline, aim.budget
    late = deadline is not None and plan.seconds > deadline * (1 + _ROUNDING)
    dear = budget is not None and plan.money > budget * (1 + _ROUNDING) + 1e-12
    if not (late or dear):
        return plan
    problems, changes = [], []
    if late and deadline is not None:
        least = plan.least.seconds if plan.least is not None else 0.0
        problems.append(_late(plan, deadline, least))
        changes.append(f"deadline={plan.seconds:.3g} or more")
    if dear and budget is not None:
        problems.append(
            f"no plan was found that costs at most {budget:g}: "
            f"{'the cheapest that ends in time' if deadline is not None else 'the cheapest'} "
            f"costs {plan.money:.6g}"
        )
        changes.append(f"budget={plan.money:.6g} or more")
    raise PlacementError("; ".join(problems) + "\nWhat you can do: " + " and ".join(changes) + ".")


def _late(plan: Plan, deadline: float, least: float) -> str:
    if least > deadline:
        return (
            f"no plan ends within {format_seconds(deadline)}: these steps take at least "
            f"{format_seconds(least)} at the sites that may run them; the best that was found takes "
            f"{format_seconds(plan.seconds)}"
        )
    return (
        f"no plan was found that ends within {format_seconds(deadline)}: the best one takes "
        f"{format_seconds(plan.seconds)}"
    )
