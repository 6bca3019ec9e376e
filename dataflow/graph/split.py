"""Taking steps apart, so that the operation goes to each input and only partial results travel.

What can be taken apart is what was promised by the operation's ``kind``:

==========================================  ==========================================================
step whose inputs lie at different sites    becomes
==========================================  ==========================================================
linear, ``f(a, b)`` of one-argument ``f``   ``f(a)``, ``f(b)``; their sum
reduction, ``r(a, b)``                      partial results of ``a`` and ``b``; combined and finished
linear, ``f(a, b)`` of two arguments        ``f(a, 0)``, ``f(0, b)``; their sum
linear, ``f(a + b)``                        ``f(a)``, ``f(b)``; their sum
==========================================  ==========================================================

The last one keeps the outer operation on every term, however deep: ``f(a + g(b + c))`` becomes
``f(a) + f(g(b) + g(c))``. It is done only where all terms are known to have one shape (a scalar
that would be spread over the other term is not the same sum) and the result is not known to be as
large as what it is made of.

**What runs at each stage** of a :class:`~dataflow.graph.operation.Step`; ``p`` stands for the
decoded parameters, ``x_i`` for the inputs in order:

``whole``
    ``function(**{slot_i: x_i}, **p)``, positional for the slot ``"*"``. With ``pieces``: for a
    linear operation the sum of ``function(x_i, **p)``; for a reduction ``combine`` folded from the
    left over ``function(x_i, **p)``, then ``finish``. A reduction of one input: ``finish`` of
    ``function(x, **p)``.
``part``
    The function once. ``absent`` empty: ``function(**{slot_i: x_i}, **p)``, no ``finish``.
    Otherwise each argument in ``absent`` gets zeros of the shape, dimensions and type of
    ``extents[key].variables[0]``, the inputs go to the argument positions ``parts`` and the absent
    ones to the other positions, in order.
``merge``
    The partial results of one site, before they travel: linear: ``x_0 + x_1 + …``; reduction:
    ``combine`` folded from the left, *no* ``finish``. Parameters are not used.
``combine``
    The last share; it has the key, label and operation of the original step. Linear: ``x_0 + x_1
    + …``; reduction: ``combine`` folded from the left over all, then ``finish`` once (also if
    there is a single partial result). Parameters are not used.

A missing ``finish`` is the identity. Sums must refuse inputs whose coordinates differ
(xarray: ``arithmetic_join="exact"``): an inner join would make ``f(a + b)`` and ``f(a) + f(b)``
different things.

Guarantees: keys of original steps stay, with their labels; a part of a plain linear step has the
key of the ordinary step ``f(x_i)``, a merge of such parts that of ``f(x_i, x_j)``, and a part of a
reduction depends on nothing but the operation and its input, so that results are shared with
whoever computes the same; the graph given is not changed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from dataflow.datasets import Extent
from dataflow.graph.arithmetic import is_arithmetic, scale
from dataflow.graph.extents import UNKNOWN, estimate, form, is_array
from dataflow.graph.graph import Graph
from dataflow.graph.homes import MIXED, Homes, common, together
from dataflow.graph.keys import digest, step_key
from dataflow.graph.operation import Functions, Operation, Step


def split(
    graph: Graph,
    homes: Homes,
    *,
    only: Collection[str] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Graph:
    """The same results with steps over several sites taken apart; see the module's text.

    Parameters
    ----------
    graph
        As the user built it.
    homes
        The sites that hold each source; and those that already hold the result of a step, which
        is then left alone.
    only
        Keys of the steps that may be taken apart; default all.
    sizes
        Bytes of results that are known better than the graph's extents say.

    Returns
    -------
    Graph
        ``graph`` itself if there is nothing to take apart.

    Examples
    --------
    >>> from dataflow.datasets import Dataset
    >>> from dataflow.graph.graph import of_dataset
    >>> from dataflow.graph.operation import operation
    >>> @operation(kind="linear", output="scalar")
    ... def total(x):
    ...     return x.sum()
    >>> size = Extent(nbytes=800)
    >>> run1, run2 = [
    ...     of_dataset(Dataset(id=n, name=n, key=n, kind="array", extent=size, site="uva"))
    ...     for n in ("run1", "run2")
    ... ]
    >>> homes = {"run1": frozenset({"uva"}), "run2": frozenset({"delft"})}
    >>> [step.label for step in split(total(run1, run2), homes).steps.values()]
    ['total[run1]', 'total[run2]', 'total']
    """
    splitting = _Splitting(graph, homes, only, sizes or {})
    for step in graph.steps.values():
        splitting.add(step)
    if not splitting.changed:
        return graph
    return Graph.assemble(
        graph.sources, splitting.steps, graph.outputs, splitting.extents, splitting.functions
    )


def taken_apart(graph: Graph, split_graph: Graph) -> tuple[str, ...]:
    """Keys of the steps of ``graph`` that are combined from parts in ``split_graph``."""
    after = split_graph.steps
    return tuple(
        key
        for key, step in graph.steps.items()
        if step.stage == "whole" and key in after and after[key].stage == "combine"
    )


def needs_check(graph: Graph, split_graph: Graph) -> list[Step]:
    """Steps (as the user wrote them) whose promised kind ``split_graph`` relies upon.

    The promise is to be tried on a sample of the data before the first such plan runs: for a
    linear one ``f(A + B)`` against ``f(A) + f(B)``, for a reduction the whole against the combined
    halves. A broken promise is :class:`~dataflow.errors.NotLinear`.
    """
    return [graph.steps[key] for key in taken_apart(graph, split_graph)]


class _Splitting:
    """One pass over a graph, inputs before users."""

    def __init__(
        self, graph: Graph, homes: Homes, only: Collection[str] | None, sizes: Mapping[str, int]
    ) -> None:
        self.graph = graph
        self.only = only
        self.sizes = sizes
        self.stored = homes
        self.steps: dict[str, Step] = {}
        self.extents: dict[str, Extent] = dict(graph.extents)
        self.functions: dict[str, Functions] = dict(graph.functions)
        #: Where each key is or will be, as far as it follows from where its inputs are.
        self.homes: dict[str, frozenset[str]] = {
            key: homes.get(key, MIXED) for key in graph.sources
        }
        self.changed = False

    def add(self, step: Step, asked_as: str = "") -> str:
        """Enter a step, or what it is taken apart into; returns its key."""
        key = step.key
        if key in self.steps:
            return key
        step = self.graph.steps.get(key, step)
        shared = common([self.homes[wanted] for wanted in step.inputs])
        final = step
        may = self.only is None or key in self.only or asked_as in self.only
        if key not in self.stored and may and step.inputs and not shared:
            final = self._take_apart(step) or step
        self.changed = self.changed or final is not step
        self.steps[key] = final
        self.homes[key] = self.stored.get(key, shared)
        return key

    def _take_apart(self, step: Step) -> Step | None:
        operation = step.operation
        if operation.kind not in ("linear", "reduction") or is_arithmetic(operation):
            return None
        if step.stage not in ("whole", "part") or step.absent:
            return None
        if step.pieces and len(step.inputs) > 1:
            return self._pieces(step)
        if operation.kind == "linear":
            return self._push(step) if len(step.inputs) == 1 else self._arguments(step)
        return None

    # --- several pieces for one argument --------------------------------------------------------

    def _pieces(self, step: Step) -> Step:
        linear = step.operation.kind == "linear"
        groups = together(step.inputs, self.homes, adjacent=not linear)
        members = [
            [self._part(step, step.inputs[position], position) for position in group]
            for group in groups
        ]
        if len(groups) == 1:
            return self._combined(step, members[0])
        pairs = zip(groups, members, strict=True)
        return self._combined(step, [self._merged(step, *pair) for pair in pairs])

    def _part(self, step: Step, key: str, position: int) -> str:
        """The step that makes one piece's share."""
        slots = step.slots[position : position + 1]
        ordinary = _key(step.operation, step, slots, (key,), pieces=False)
        linear = step.operation.kind == "linear"
        part = replace(
            step,
            key=ordinary if linear else digest(["partial", ordinary]),
            label=f"{step.label}[{self._name(key)}]",
            inputs=(key,),
            slots=slots,
            pieces=False,
            stage="part",
            mother=step.key,
            parts=(position,),
        )
        self._extent(part.key, estimate(step.operation, [self.extents[key]]))
        return self.add(part, step.key)

    def _merged(self, step: Step, group: Sequence[int], parts: Sequence[str]) -> str:
        """One partial result of those that lie at one site."""
        if len(parts) == 1:
            return parts[0]
        inputs = _at(step, group)
        linear = step.operation.kind == "linear"
        slots = tuple(step.slots[position] for position in group)
        ordinary = _key(step.operation, step, slots, inputs, pieces=True)
        merge = replace(
            step,
            key=ordinary if linear else digest(["merge", *parts]),
            label=f"{step.label}[{', '.join(self._name(key) for key in inputs)}]",
            inputs=tuple(parts),
            slots=("*",) * len(parts),
            stage="merge",
            mother=step.key,
            parts=tuple(group),
        )
        self._extent(merge.key, max((self.extents[k] for k in parts), key=lambda e: e.nbytes))
        if merge.key not in self.steps:
            self.steps[merge.key] = self.graph.steps.get(merge.key, merge)
            self.homes[merge.key] = common([self.homes[key] for key in inputs])
        return merge.key

    def _combined(self, step: Step, parts: Sequence[str]) -> Step:
        return replace(
            step,
            inputs=tuple(parts),
            slots=("*",) * len(parts),
            pieces=True,
            stage="combine",
            parts=(),
        )

    # --- several arguments ----------------------------------------------------------------------

    def _arguments(self, step: Step) -> Step | None:
        """``f(a, b)`` as ``f(a, 0) + f(0, b)``, where zeros can be made and something is saved."""
        groups = together(step.inputs, self.homes, adjacent=False)
        if len(groups) < 2 or not all(is_array(self.extents[key]) for key in step.inputs):
            return None
        if not self._unknown(step.key):
            held = [sum({k: self._size(k) for k in _at(step, g)}.values()) for g in groups]
            if self._size(step.key) * (len(groups) - 1) >= sum(held) - max(held):
                return None
        parts = []
        for group in groups:
            inputs = _at(step, group)
            rest = [i for i in range(len(step.inputs)) if i not in group]
            part = replace(
                step,
                key=digest(["part", step.key, list(group)]),
                label=f"{step.label}[{', '.join(dict.fromkeys(map(self._name, inputs)))}]",
                inputs=inputs,
                slots=tuple(step.slots[i] for i in group),
                stage="part",
                mother=step.key,
                parts=tuple(group),
                absent=tuple((step.slots[i], step.inputs[i]) for i in rest),
            )
            self._extent(part.key, self.extents[step.key])
            self.steps[part.key] = part
            self.homes[part.key] = common([self.homes[key] for key in inputs])
            parts.append(part.key)
        return self._combined(step, parts)

    # --- an operation of a sum ------------------------------------------------------------------

    def _push(self, step: Step) -> Step | None:
        """``f(a + b)`` as ``f(a) + f(b)``, where that is the same and may save something."""
        (whole,) = step.inputs
        if not self._may_open(whole) or not self._shrinks(step):
            return None
        terms = list(self._terms(whole, 1))
        one = form(self.extents[whole])
        if len(terms) < 2 or one is None:
            return None
        if any(form(self.extents[key]) != one for key, _ in terms):
            return None
        parts: list[str] = []
        for key, factor in terms:
            ordinary = replace(step, slots=step.slots * len(terms), pieces=False)
            part = self._part(ordinary, key, len(parts))
            parts.append(part if factor == 1 else self._scaled(part, factor, step.key))
        return self._combined(step, parts)

    def _terms(self, key: str, factor: float) -> list[tuple[str, float]]:
        """The sum that ``key`` stands for: terms with their factors, opened only where mixed."""
        found: list[tuple[str, float]] = []
        stack: list[tuple[str, float]] = [(key, factor)]
        while stack:
            key, factor = stack.pop()
            if not self._may_open(key):
                found.append((key, factor))
                continue
            step = self.steps[key]
            if step.operation.name == "scale":
                stack.append((step.inputs[0], factor * step.parameters["factor"]))
            else:
                signs = (1, -1) if step.operation.name == "subtract" else (1,) * len(step.inputs)
                pairs = [(k, factor * sign) for k, sign in zip(step.inputs, signs, strict=True)]
                stack.extend(reversed(pairs))
        return found

    def _may_open(self, key: str) -> bool:
        """Whether ``key`` is a sum over several sites that nobody needs as such."""
        step = self.steps.get(key)
        if step is None or self.homes[key] or key in self.stored or key in self.graph.outputs:
            return False
        operation = step.operation
        if not is_arithmetic(operation) or operation.kind != "linear":
            return False
        if operation.name == "scale":
            factor = step.parameters.get("factor")
            if isinstance(factor, bool) or not isinstance(factor, int | float):
                return False
        return all(self._opens(self.graph.steps[user]) for user in self.graph.users.get(key, ()))

    def _opens(self, user: Step) -> bool:
        if is_arithmetic(user.operation):
            return user.operation.kind == "linear"
        return user.operation.kind == "linear" and (len(user.inputs) == 1 or user.pieces)

    def _shrinks(self, step: Step) -> bool:
        return self._unknown(step.key) or self._size(step.key) < self._size(step.inputs[0])

    def _scaled(self, key: str, factor: float, mother: str) -> str:
        parameters = {"factor": factor}
        step = Step(
            key=scale.key((key,), ("x",), parameters, False),
            label=f"{self.steps[key].label}*{factor:g}",
            operation=scale.operation,
            inputs=(key,),
            slots=("x",),
            parameters=parameters,
            mother=mother,
        )
        self.functions[scale.operation.code] = scale.functions
        self._extent(step.key, estimate(scale.operation, [self.extents[key]]))
        return self.add(step)

    # --- what is known of a key -----------------------------------------------------------------

    def _size(self, key: str) -> int:
        return self.sizes.get(key, self.extents[key].nbytes)

    def _unknown(self, key: str) -> bool:
        return key not in self.sizes and self.extents[key].guessed.startswith(UNKNOWN)

    def _extent(self, key: str, extent: Extent) -> None:
        self.extents.setdefault(key, extent)

    def _name(self, key: str) -> str:
        if key in self.graph.sources:
            return self.graph.sources[key].name
        return (self.steps.get(key) or self.graph.steps[key]).label


def _key(
    operation: Operation,
    step: Step,
    slots: tuple[str, ...],
    inputs: tuple[str, ...],
    *,
    pieces: bool,
) -> str:
    return step_key(
        operation.name, operation.version, step.parameters, slots, inputs, pieces=pieces
    )


def _at(step: Step, group: Sequence[int]) -> tuple[str, ...]:
    return tuple(step.inputs[position] for position in group)
