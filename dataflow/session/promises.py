"""Promises: what authors say of their operations, tried once on a sample before a plan relies on it."""

from __future__ import annotations

from collections.abc import Mapping

from dataflow.datasets import Extent
from dataflow.graph.keys import digest
from dataflow.graph.operation import Functions, Step
from dataflow.placement.plan import Plan


class Promises:
    """What was tried so far, by code, arguments and the form of what goes in.

    Parameters
    ----------
    functions
        Code digest → functions; looked up when a promise is tried.
    """

    def __init__(self, functions: Mapping[str, Functions]) -> None:
        self._functions = functions
        self._tried: dict[str, str] = {}

    def notes_on(self, plan: Plan) -> list[str]:
        """Try what the plan relies on; a note on each promise that could not be tried.

        Raises
        ------
        NotLinear
            If a promise is not kept.
        """
        from dataflow.placement.make import relied_upon

        notes = (self._try(step, plan) for step in relied_upon(plan))
        return [note for note in notes if note]

    def _try(self, step: Step, plan: Plan) -> str:
        functions = self._functions.get(step.operation.code)
        if functions is None:
            return f"the promise of {step.label} was not tried here: its code is elsewhere"
        extents = {key: _likely(plan, key) for key in step.inputs}
        shapes = [str(extents[key].variables) for key in step.inputs]
        token = digest([step.operation.code, step.parameters, step.slots, step.pieces, shapes])
        if token not in self._tried:
            from dataflow.execution.trial import try_promise  # a second of imports

            self._tried[token] = try_promise(step, functions, extents)
        reason = self._tried[token]
        return f"the promise of {step.label} is taken at its word: {reason}" if reason else ""


def _likely(plan: Plan, key: str) -> Extent:
    """The form of a key for a trial: where only a size is known, that of what it is made of."""
    while not plan.extents[key].variables:
        step = plan.step_by_key.get(key) or next((s for s in plan.originals if s.key == key), None)
        if step is None or not step.inputs:
            break
        key = step.inputs[0]
    return plan.extents[key]
