"""Forcing: services that owners put before everything else, woven into a graph. Pure.

An owner's relation names services that his rows must go through first, asked for or not. They are
put between the rows and whoever reads them, where the user has not done so himself; what cannot be
put in is left as it is, and the owner refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dataflow.graph.extents import estimate
from dataflow.graph.graph import Graph, Term
from dataflow.graph.hiding import Forced, first_of, last_of, service_of
from dataflow.graph.keys import step_key
from dataflow.graph.operation import Operation, Step
from dataflow.policy.rights import Right, Rows, least, passed_on

#: Site → the operations that it has installed.
Offered = Mapping[str, Sequence[Operation]]


@dataclass(frozen=True, slots=True)
class Woven:
    """A graph with what owners force; and for each step that was put in, by key, the clause."""

    graph: Graph
    added: Mapping[str, str] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """For the reader of the plan."""
        steps = self.graph.steps
        return tuple(
            f"{steps[key].label} was put in: {clause} forces it"
            for key, clause in self.added.items()
            if key in steps
        )


def weave(
    graph: Graph,
    rights: Mapping[str, Sequence[Right]],
    given: Mapping[str, Rows],
    offered: Offered,
) -> Woven:
    """A graph in which forced services come first.

    Parameters
    ----------
    rights
        By key of the dataset.
    given
        Rows that stored results among the sources carry.
    offered
        What each owner has installed: only his own service serves.
    """
    if not any(right.forced for found in rights.values() for right in found):
        return Woven(graph)
    rows: dict[str, Rows] = {**given, **{key: {key: 0} for key in rights}}
    new: dict[str, Term] = {}
    added: dict[str, str] = {}
    for old, term in graph.terms_by_key.items():
        if term.step is None:
            new[old] = term
            continue
        inputs = tuple(
            _served(new[wanted.key], term.step, rows, rights, offered, added)
            for wanted in term.inputs
        )
        new[old] = _again(term, inputs)
        reads = least(rows.get(one.key, {}) for one in inputs)
        rows[new[old].key] = passed_on(new[old].step or term.step, reads, rights)
    return Woven(Graph([new[key] for key in graph.outputs]), added)


def _served(
    term: Term,
    reader: Step,
    rows: dict[str, Rows],
    rights: Mapping[str, Sequence[Right]],
    offered: Offered,
    added: dict[str, str],
) -> Term:
    """What a reader gets in place of a term: the same, after what is still to be applied."""
    behind = [
        (right, applied)
        for key, applied in rows.get(term.key, {}).items()
        for right in _forcing(rights.get(key, ()))
        if applied < len(right.forced)
    ]
    if len(behind) != 1:
        return term  # nothing is missing, or rows of several owners: each comes first, at home
    ((right, applied),) = behind
    if service_of(reader) == right.forced[applied]:
        return term
    for name in right.forced[applied:]:
        before = rows[term.key]
        own = _own(right).get(name)
        if own is not None:
            found = _applied(own.function.operation, term, own.parameters)
            term = replace(found, functions=own.function.functions)
        else:
            known = offered.get(right.site, ())
            service = next((o for o in reversed(known) if o.name == name), None)
            if service is None:
                return term
            term = _applied(service, term)
        assert term.step is not None
        rows[term.key] = passed_on(term.step, before, rights)
        added.setdefault(term.key, right.grants[0].clause)
    return term


def _forcing(rights: Sequence[Right]) -> list[Right]:
    """The right that says what is forced; the same one that following rows asks."""
    return [right for right in rights if right.forced and right.grants][:1]


def _own(right: Right) -> dict[str, Forced]:
    """Forced services that every site has, by the word for them."""
    relation = right.grants[0].relation
    return {own.word: own for own in (first_of(relation), last_of(relation)) if own is not None}


def _applied(service: Operation, term: Term, parameters: Mapping[str, Any] | None = None) -> Term:
    slots, inputs, parameters = service.slots[:1], (term.key,), parameters or {}
    step = Step(
        key=step_key(service.name, service.version, parameters, slots, inputs),
        label=service.name,
        operation=service,
        inputs=inputs,
        slots=slots,
        parameters=parameters,
    )
    return Term(step.key, estimate(service, [term.extent]), step=step, inputs=(term,))


def _again(term: Term, inputs: tuple[Term, ...]) -> Term:
    """A step over other inputs; itself if they are the same."""
    step = term.step
    assert step is not None
    keys = tuple(one.key for one in inputs)
    if keys == step.inputs:
        return term if inputs == term.inputs else replace(term, inputs=inputs)
    operation = step.operation
    key = step_key(
        operation.name, operation.version, step.parameters, step.slots, keys, pieces=step.pieces
    )
    extent = estimate(operation, [one.extent for one in inputs])
    return replace(
        term, key=key, extent=extent, step=replace(step, key=key, inputs=keys), inputs=inputs
    )
