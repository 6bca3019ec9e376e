"""Whether what is combined are the shares of a step: only then the result may have that step's key.

A combined step names its shares and not what they are shares of. So the steps as the user built
them come with it (the *originals*), and how each share was cut (the *cuts*). Nothing in them is
believed: keys are digests of what they stand for, and are made again here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dataflow.graph.keys import digest, step_key
from dataflow.graph.operation import Step

#: Terms of a sum, and sums in a sum, that are looked at; nobody builds more by hand.
MOST_TERMS = 100_000
_SUMS = ("add", "subtract", "scale")


def proven(step: Step, originals: Mapping[str, Step], cuts: Mapping[str, Step]) -> bool:
    """Whether a combined or merged step is made of just the shares that its key stands for.

    Parameters
    ----------
    originals
        Steps as the user built them, by key.
    cuts
        Shares as they were cut, by key.
    """
    whole = _whole(step, originals)
    if whole is None or not _same(step, whole):
        return False
    if step.stage == "merge":
        return _cut(whole, step) and step.inputs == tuple(
            _ones(whole)[position] for position in step.parts
        )
    if step.key != whole.key:
        return False
    if whole.pieces and len(whole.inputs) > 1:
        return _of_pieces(step, whole, cuts)
    if whole.operation.kind != "linear":
        return False
    if len(whole.inputs) == 1:
        return _of_sum(step, whole, originals)
    return _of_arguments(step, whole, cuts)


def _whole(step: Step, originals: Mapping[str, Step]) -> Step | None:
    """The step that this one is, or is a share of, as the user built it; checked."""
    found = originals.get(step.key) if step.stage == "combine" else originals.get(step.mother)
    if found is None and step.stage == "combine":
        mother = originals.get(step.mother)  # one piece of it, taken apart once more
        if mother is None or not _is_itself(mother):
            return None
        positions = range(len(mother.inputs))
        return next((one for i in positions if (one := _one(mother, i)).key == step.key), None)
    return found if found is not None and _is_itself(found) else None


def _is_itself(step: Step) -> bool:
    own = _key(step, step.slots, step.inputs, pieces=step.pieces)
    return step.stage == "whole" and len(step.slots) == len(step.inputs) and step.key == own


def _same(step: Step, whole: Step) -> bool:
    return step.operation == whole.operation and step.parameters == whole.parameters


def _one(whole: Step, position: int) -> Step:
    """The ordinary step of one piece."""
    slots, inputs = whole.slots[position : position + 1], whole.inputs[position : position + 1]
    key = _key(whole, slots, inputs)
    return replace(whole, key=key, slots=slots, inputs=inputs, pieces=False)


def _ones(whole: Step) -> list[str]:
    """Keys of the shares of the single pieces."""
    keys = [_one(whole, position).key for position in range(len(whole.inputs))]
    if whole.operation.kind == "linear":
        return keys
    return [digest(["partial", key]) for key in keys]


def _cut(whole: Step, merge: Step) -> bool:
    """Whether a merge has the key of the pieces that it says it has."""
    group = merge.parts
    if not group or not set(group) <= set(range(len(whole.inputs))):
        return False
    if whole.operation.kind == "linear":
        slots = tuple(whole.slots[i] for i in group)
        inputs = tuple(whole.inputs[i] for i in group)
        return merge.key == _key(whole, slots, inputs, pieces=True)
    ones = _ones(whole)
    return merge.key == digest(["merge", *(ones[i] for i in group)])


def _of_pieces(step: Step, whole: Step, cuts: Mapping[str, Step]) -> bool:
    left: dict[str, list[int]] = {}
    for position, key in enumerate(_ones(whole)):
        left.setdefault(key, []).append(position)
    order: list[int] = []
    for key in step.inputs:
        cut = cuts.get(key)
        if left.get(key):
            order.append(left[key].pop(0))
        elif cut is not None and cut.stage == "merge" and _cut(whole, cut):
            order += cut.parts
        elif cut is not None and cut.pieces and _is_itself(cut) and _same(cut, whole):
            order += _positions(cut, whole)  # somebody asked for just these pieces as well
        else:
            return False
    wanted = list(range(len(whole.inputs)))
    return order == wanted if whole.operation.kind == "reduction" else sorted(order) == wanted


def _positions(cut: Step, whole: Step) -> list[int]:
    left: dict[tuple[str, str], list[int]] = {}
    for position, pair in enumerate(zip(whole.slots, whole.inputs, strict=True)):
        left.setdefault(pair, []).append(position)
    pairs = zip(cut.slots, cut.inputs, strict=True)
    return [left[pair].pop(0) if left.get(pair) else -1 for pair in pairs]


def _of_arguments(step: Step, whole: Step, cuts: Mapping[str, Step]) -> bool:
    order: list[int] = []
    for key in step.inputs:
        cut = cuts.get(key)
        if cut is None or key != digest(["part", whole.key, list(cut.parts)]):
            return False
        order += cut.parts
    return sorted(order) == list(range(len(whole.inputs)))


def _of_sum(step: Step, whole: Step, originals: Mapping[str, Step]) -> bool:
    """``f(a + b)`` of ``f(a)`` and ``f(b)``: sums are opened until the shares are found."""
    from dataflow.graph.arithmetic import scale

    left = Counter(step.inputs)
    stack: list[tuple[str, float]] = [(whole.inputs[0], 1)]
    for _ in range(MOST_TERMS):
        if not stack:
            return not +left
        key, factor = stack.pop()
        share = _key(whole, whole.slots[:1], (key,))
        if factor != 1:
            share = scale.key((share,), ("x",), {"factor": factor}, False)
        if left[share]:
            left[share] -= 1
            continue
        opened = originals.get(key)
        if opened is None or not _is_itself(opened) or opened.operation.name not in _SUMS:
            return False
        if not _is_ours(opened):
            return False
        if opened.operation.name == "scale":
            number = opened.parameters.get("factor")
            if isinstance(number, bool) or not isinstance(number, int | float):
                return False
            stack.append((opened.inputs[0], factor * number))
            continue
        signs = (1, -1) if opened.operation.name == "subtract" else (1,) * len(opened.inputs)
        if len(signs) != len(opened.inputs):
            return False
        pairs = [(k, factor * sign) for k, sign in zip(opened.inputs, signs, strict=True)]
        stack.extend(reversed(pairs))
    return False


def _is_ours(step: Step) -> bool:
    """Whether an operation is that of :mod:`.arithmetic`: anybody may call one of his own "add"."""
    from dataflow.graph import arithmetic

    own = getattr(arithmetic, step.operation.name, None)
    return own is not None and own.operation == step.operation


def _key(step: Step, slots: Sequence[str], inputs: Sequence[str], *, pieces: bool = False) -> str:
    operation = step.operation
    return step_key(
        operation.name, operation.version, step.parameters, slots, inputs, pieces=pieces
    )
