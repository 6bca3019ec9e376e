"""Whether a step has the key that it must have: a key says what a result is, so nobody may choose it.

What a step says of itself is enough for most keys. The key of a ``combine`` is that of a step
whose inputs it does not name, and so is that of a linear ``merge`` whose parts are not at hand: these
are told by the originals, the steps as the user built them (:mod:`dataflow.graph.shares`). Whether
the code is that of the named version is asked nowhere here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dataflow.graph.keys import digest, step_key
from dataflow.graph.operation import Step
from dataflow.graph.shares import proven


def forged(
    step: Step,
    others: Mapping[str, Step] | None = None,
    originals: Mapping[str, Step] | None = None,
) -> bool:
    """Whether the key of a step is not its own, as far as what came with it shows that it is.

    Parameters
    ----------
    step
        As it came.
    others
        Steps by key that came with it, where its parts may be, and how they were cut.
    originals
        Steps by key as the user built them.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from dataflow.graph.operation import Operation
    >>> mean = Operation(name="mean", version="1", kind="opaque", code="")
    >>> key = step_key("mean", "1", {}, ("x",), ("run1",))
    >>> step = Step(
    ...     key=key, label="mean", operation=mean, inputs=("run1",), slots=("x",), parameters={}
    ... )
    >>> forged(step), forged(replace(step, inputs=("run2",)))
    (False, True)
    """
    match step.stage:
        case "combine":
            return not proven(step, originals or {}, others or {})
        case "merge":
            own = _of_merge(step, others or {})
            if own is None:
                return not proven(step, originals or {}, others or {})
            return step.key != own
        case "part" if step.absent:
            return step.mother != _of_mother(step) or step.key != digest(
                ["part", step.mother, list(step.parts)]
            )
        case "part" if step.operation.kind == "reduction":
            return step.key != digest(["partial", _key(step, step.slots, step.inputs)])
    return step.key != _key(step, step.slots, step.inputs, pieces=step.pieces)


def _of_merge(step: Step, others: Mapping[str, Step]) -> str | None:
    """The key of a merge; empty if its parts are of something else, ``None`` if it cannot be told."""
    if step.operation.kind == "reduction":
        return digest(["merge", *step.inputs])
    slots: list[str] = []
    inputs: list[str] = []
    missing = False
    for key in step.inputs:
        part = others.get(key)
        if part is None or part.stage not in ("whole", "part") or part.absent:
            missing = True
            continue
        if key != _key(step, part.slots, part.inputs):
            return ""
        slots += part.slots
        inputs += part.inputs
    return None if missing else _key(step, slots, inputs, pieces=True)


def _of_mother(step: Step) -> str | None:
    """The key of the step whose arguments are partly here and partly absent."""
    if not len(step.slots) == len(step.inputs) == len(step.parts):
        return None
    at = dict(zip(step.parts, zip(step.slots, step.inputs, strict=True), strict=True))
    positions = range(len(step.inputs) + len(step.absent))
    rest = [position for position in positions if position not in at]
    if len(rest) != len(step.absent):
        return None
    at.update(zip(rest, step.absent, strict=True))
    slots = [at[position][0] for position in positions]
    return _key(step, slots, [at[position][1] for position in positions], pieces=step.pieces)


def _key(step: Step, slots: Sequence[str], inputs: Sequence[str], *, pieces: bool = False) -> str:
    operation = step.operation
    return step_key(
        operation.name, operation.version, step.parameters, slots, inputs, pieces=pieces
    )
