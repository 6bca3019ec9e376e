"""Graph: datasets, steps and results, immutable; built by calling operations in a notebook.

Inside, a graph is a tuple of terms that point at their inputs, so that building is linear however
long the graph grows; the tables of sources, steps and extents are made when first looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, SupportsIndex

from dataflow.datasets import Dataset, Extent
from dataflow.errors import GraphError
from dataflow.graph.extents import check_shapes, estimate
from dataflow.graph.keys import step_key
from dataflow.graph.operation import Functions, Step

if TYPE_CHECKING:
    from dataflow.graph.operation import OperationFunction


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """A dataset, or one step with the terms it reads."""

    key: str
    extent: Extent
    dataset: Dataset | None = None
    step: Step | None = None
    functions: Functions | None = None
    inputs: tuple[Term, ...] = ()

    @property
    def name(self) -> str:
        """What a person would call it."""
        if self.dataset is not None:
            return self.dataset.name
        return self.step.label if self.step is not None else self.key


class Graph:
    """Operations and what they are applied to; building one runs nothing.

    Parameters
    ----------
    terms
        One per result asked for.
    """

    #: NumPy's numbers leave ``number * graph`` to the graph.
    __array_ufunc__ = None

    def __init__(self, terms: Sequence[Term]) -> None:
        self.terms = tuple({term.key: term for term in terms}.values())

    @classmethod
    def assemble(
        cls,
        sources: Mapping[str, Dataset],
        steps: Mapping[str, Step],
        outputs: Sequence[str],
        extents: Mapping[str, Extent],
        functions: Mapping[str, Functions] | None = None,
    ) -> Graph:
        """A graph from its tables; steps must come after what they read.

        Raises
        ------
        GraphError
            If a step or an output names a key that is not there (before it).
        """
        terms: dict[str, Term] = {
            key: Term(key, extents.get(key, dataset.extent), dataset=dataset)
            for key, dataset in sources.items()
        }
        for key, step in steps.items():
            missing = [wanted for wanted in step.inputs if wanted not in terms]
            if missing:
                raise GraphError(
                    f"step {step.label!r} reads {missing[0]!r}, which is not before it"
                )
            terms[key] = Term(
                key,
                extents[key],
                step=step,
                functions=(functions or {}).get(step.operation.code),
                inputs=tuple(terms[wanted] for wanted in step.inputs),
            )
        unknown = [key for key in outputs if key not in terms]
        if unknown:
            raise GraphError(f"the graph has no result {unknown[0]!r}")
        return cls([terms[key] for key in outputs])

    @property
    def terms_by_key(self) -> Mapping[str, Term]:
        """All datasets and steps by key, inputs before users."""
        return self._order

    @cached_property
    def _order(self) -> Mapping[str, Term]:
        """All terms by key, inputs before users, in the order of first reading."""
        done: dict[str, Term] = {}
        for root in self.terms:
            stack: list[tuple[Term, bool]] = [(root, False)]
            while stack:
                term, ready = stack.pop()
                if term.key in done:
                    continue
                if ready:
                    done[term.key] = term
                else:
                    stack.append((term, True))
                    stack.extend((i, False) for i in reversed(term.inputs) if i.key not in done)
        return done

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Keys of the results asked for."""
        return tuple(dict.fromkeys(term.key for term in self.terms))

    @cached_property
    def sources(self) -> Mapping[str, Dataset]:
        """Registered datasets by key."""
        return {k: t.dataset for k, t in self._order.items() if t.dataset is not None}

    @cached_property
    def steps(self) -> Mapping[str, Step]:
        """Steps by key, inputs before users; labels are distinct."""
        steps: dict[str, Step] = {}
        numbers: dict[str, int] = {}
        taken: set[str] = set()
        for key, term in self._order.items():
            if term.step is None:
                continue
            label = term.step.label
            if label in taken:
                stem = re.sub(r"-\d+$", "", label)
                number = numbers.get(stem, 1)
                while label in taken:
                    number += 1
                    label = f"{stem}-{number}"
                numbers[stem] = number
            taken.add(label)
            steps[key] = term.step if label == term.step.label else replace(term.step, label=label)
        return steps

    @cached_property
    def extents(self) -> Mapping[str, Extent]:
        """What is known or guessed of each source's and step's size, by key."""
        return {key: term.extent for key, term in self._order.items()}

    @cached_property
    def functions(self) -> Mapping[str, Functions]:
        """The Python callables by code digest; they stay in this process until submission."""
        return {
            term.step.operation.code: term.functions
            for term in self._order.values()
            if term.step is not None and term.functions is not None
        }

    @cached_property
    def users(self) -> Mapping[str, tuple[str, ...]]:
        """For each key the steps that read it."""
        found: dict[str, list[str]] = {key: [] for key in (*self.sources, *self.steps)}
        for step in self.steps.values():
            for key in dict.fromkeys(step.inputs):
                found[key].append(step.key)
        return {key: tuple(steps) for key, steps in found.items()}

    @property
    def extent(self) -> Extent:
        """Extent of the result (of a graph with one)."""
        return self._only().extent

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of the result as far as it is known."""
        return self.extent.shape

    @property
    def key(self) -> str:
        """Key of the result (of a graph with one)."""
        return self._only().key

    @property
    def dataset(self) -> Dataset | None:
        """The dataset, if this graph is nothing but one."""
        return self._only().dataset

    def label(self, key: str) -> str:
        """A word for a key: the dataset's name or the step's label."""
        if key in self.sources:
            return self.sources[key].name
        return self.steps[key].label

    def _only(self) -> Term:
        if len(self.terms) != 1:
            raise GraphError(
                f"this graph has {len(self.terms)} results; choose one, as in graph[0]"
            )
        return self.terms[0]

    def __len__(self) -> int:
        return len(self.terms)

    def __iter__(self) -> Iterator[Graph]:
        return (self[i] for i in range(len(self.outputs)))

    def __getitem__(self, index: SupportsIndex) -> Graph:
        """The graph of one result only, without the steps that do not lead to it.

        Raises
        ------
        GraphError
            For anything but a whole number.
        IndexError
            If there are fewer results.
        """
        if not isinstance(index, SupportsIndex):
            raise GraphError(
                f"graph[{index!r}]: a graph is indexed by the number of a result; parts of an array "
                "are cut out by an operation"
            )
        try:
            return Graph([self.terms[index]])
        except IndexError:
            results = "one result" if len(self) == 1 else f"{len(self)} results"
            raise IndexError(f"graph[{index!r}]: this graph has {results}") from None

    def __add__(self, other: Any) -> Graph:
        return _arithmetic("add", self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Graph:
        return _arithmetic("subtract", self, other)

    def __rsub__(self, other: Any) -> Graph:
        return _arithmetic("subtract", other, self)

    def __mul__(self, other: Any) -> Graph:
        return _arithmetic("multiply", self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Graph:
        return _arithmetic("divide", self, other)

    def __rtruediv__(self, other: Any) -> Graph:
        return _arithmetic("divide", other, self)

    def __pow__(self, other: Any) -> Graph:
        return _arithmetic("power", self, other)

    def __neg__(self) -> Graph:
        return _arithmetic("multiply", self, -1)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        dataset = self.terms[0].dataset if len(self.terms) == 1 else None
        if dataset is not None:
            shape = f" {dataset.extent.shape}" if dataset.extent.shape is not None else ""
            return (
                f"<Graph: dataset {dataset.name!r}{shape} {dataset.extent.dtype or dataset.kind}>"
            )
        names = ", ".join(self.label(key) for key in self.outputs)
        return f"<Graph {len(self.steps)} operations over {len(self.sources)} datasets → {names}>"

    def _repr_html_(self) -> str:
        from dataflow.graph.picture import html

        return html(self)


def of_dataset(dataset: Dataset) -> Graph:
    """A graph that is just one dataset: the leaf from which others are built."""
    return Graph([Term(dataset.key, dataset.extent, dataset=dataset)])


def apply(
    function: OperationFunction[..., Any],
    inputs: Sequence[Graph],
    *,
    slots: tuple[str, ...],
    parameters: Mapping[str, Any],
    pieces: bool,
) -> Graph:
    """The graph of an operation applied to the results of other graphs.

    Raises
    ------
    ShapeMismatch
        Before anything runs, if the operation needs inputs of one shape.
    """
    operation = function.operation
    terms = [graph._only() for graph in inputs]
    extents = [term.extent for term in terms]
    check_shapes(operation, extents, _distinct([term.name for term in terms]))
    keys = tuple(term.key for term in terms)
    step = Step(
        key=step_key(operation.name, operation.version, parameters, slots, keys, pieces=pieces),
        label=operation.name,
        operation=operation,
        inputs=keys,
        slots=slots,
        parameters=parameters,
        pieces=pieces,
    )
    extent = estimate(operation, extents)
    return Graph([Term(step.key, extent, None, step, function.functions, tuple(terms))])


def merge(graphs: Iterable[Graph]) -> Graph:
    """One graph with the results of all; equal steps become one."""
    terms: dict[str, Term] = {}
    for graph in graphs:
        for term in graph.terms:
            terms.setdefault(term.key, term)
    return Graph(list(terms.values()))


def _distinct(names: Sequence[str]) -> list[str]:
    """Names with a number added where they repeat, for messages."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return out


def _arithmetic(name: str, left: Any, right: Any) -> Graph:
    from dataflow.graph import arithmetic

    return arithmetic.binary(name, left, right)
