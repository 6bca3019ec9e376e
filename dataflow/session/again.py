"""Again: work planned once more, with something decided, or when a site may be back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from dataflow.errors import PlacementError
from dataflow.participant import Participant
from dataflow.participant.owners import asked_again
from dataflow.placement.plan import Plan

#: What a plan's options remember of how it was asked for, and planning takes.
_OPTIONS = ("excluded", "rule", "reuse", "objective", "deadline", "budget", "quantile")

#: How long (s) sites that are away have to answer before it is said that there is no plan without them:
#: enough for a connection that is being made anew; who is cut off is told within two seconds.
BACK_SECONDS = 1.0


def plan_once_back(
    plan: Callable[[], Plan],
    away: Callable[[], Collection[str]],
    ask_again: Callable[[Collection[str]], bool],
) -> Plan:
    """A plan; where there is none, one with sites that were away and answer when asked again.

    A connection that was cut is made anew in moments, and nobody wants to hear of it in between.

    Parameters
    ----------
    away
        Sites that do not answer. Only one that the refusal names can be what it is about.
    ask_again
        Asks sites once more; whether one answers now.

    Raises
    ------
    PlacementError
        If no plan is possible.
    """
    try:
        return plan()
    except PlacementError as error:
        named = [site for site in away() if site in str(error)]
        if not named or not ask_again(named):
            raise
    return plan()


def plan_again(participant: Participant, plan: Plan, user: str, pinned: Mapping[str, str]) -> Plan:
    """A new plan for the work of an old one, with steps (label or key → site) pinned.

    Raises
    ------
    PlacementError
        If it is a move of data, or a step cannot be where it is wanted.
    NotGranted
        If owners do not grant it any more.
    """
    from dataflow.placement.make import graph_of

    if plan.releases:
        raise PlacementError("a move of a dataset has no steps to be put elsewhere")
    options: Mapping[str, Any] = plan.options
    known = {step.key: step.label for step in (*plan.originals, *plan.steps)}
    labels = list(known.values())

    def word(step: str) -> str:
        """The label where it is clear, so that people can read it; else the key."""
        label = known.get(step, step)
        return label if labels.count(label) == 1 else step

    asked = {name: options[name] for name in _OPTIONS if options.get(name) is not None}
    decided = {**(options.get("pinned") or {}), **{word(k): site for k, site in pinned.items()}}
    new = participant.plan(
        graph_of(plan),
        **asked,
        scope=options.get("scope") or None,
        partial=bool(options.get("partial")),
        result_at=plan.result_at,
        keep=plan.keep,
        pinned=decided,
        asking=asked_again(plan.request, user, 0.0),
    )
    return replace(new, missing={**plan.missing, **new.missing})
