"""Chains: which services a request of some type goes through at a site, in which order.

A chain is the order of operations for one role in an archetype: it is generated from what the
request type requires and the user's options, and it is refused, with the services named, where it
has a circle, falls apart, or has a service that the archetype rules out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from dataflow.errors import GraphError

#: The role of a site that has the data and computes with them; every label fits.
ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """An operation as a link of chains.

    Attributes
    ----------
    label
        Role that runs it: ``dataProvider`` or ``computeProvider``.
    outputs
        Services that may come next.
    invalid_archetypes
        Archetypes in which it makes no sense.
    """

    name: str
    label: str
    outputs: tuple[str, ...] = ()
    invalid_archetypes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestType:
    """What a kind of request needs: services always, and services by the name of an option."""

    name: str
    required: tuple[str, ...] = ()
    optional: Mapping[str, str] = field(default_factory=dict)


def chain(
    request: RequestType,
    services: Mapping[str, Service],
    role: str,
    options: Collection[str] = (),
    *,
    forced: Sequence[str] = (),
    archetype: str = "",
) -> tuple[str, ...]:
    """Names of the services for one role, in order; the same for the same facts.

    Parameters
    ----------
    request, services
        What is needed, and what there is, by name.
    role
        ``all``, ``dataProvider`` or ``computeProvider``.
    options
        Options that are on.
    forced
        Services that the owner adds.
    archetype
        Refuse services for which it is invalid.

    Raises
    ------
    GraphError
        If a service is unknown or invalid here, or the selection is circular or not connected.

    Examples
    --------
    >>> services = {
    ...     "query": Service(name="query", label="dataProvider", outputs=("mean",)),
    ...     "mean": Service(name="mean", label="computeProvider"),
    ... }
    >>> chain(RequestType(name="sql", required=("mean", "query")), services, "all")
    ('query', 'mean')
    """
    added = (name for name, option in request.optional.items() if option in options)
    names = dict.fromkeys((*request.required, *added, *forced))
    unknown = sorted(name for name in names if name not in services)
    if unknown:
        raise GraphError(f"request type {request.name!r} needs {_list(unknown)}, which is unknown")
    selected = [name for name in names if role in (ALL, services[name].label)]
    invalid = sorted(n for n in selected if archetype in services[n].invalid_archetypes)
    if archetype and invalid:
        raise GraphError(f"{_list(invalid)} cannot be used under archetype {archetype!r}")
    order = _ordered(sorted(selected), services)
    ends = [name for name in order if not set(services[name].outputs) & set(selected)]
    if len(ends) > 1:
        raise GraphError(
            f"the services {_list(order)} are not connected: nothing takes what "
            f"{' and '.join(ends)} give, and only the last may be left over"
        )
    return tuple(order)


def edges(names: Sequence[str], services: Mapping[str, Service]) -> list[tuple[str, str]]:
    """Who hands on to whom in a selection."""
    return [(a, b) for a in names for b in names if b in services[a].outputs]


def picture(names: Sequence[str], services: Mapping[str, Service]) -> str:
    """The chain as text, each service with its label.

    Examples
    --------
    >>> picture(["query"], {"query": Service(name="query", label="dataProvider")})
    'query (dataProvider)'
    """
    return " → ".join(f"{name} ({services[name].label})" for name in names)


def _ordered(names: Sequence[str], services: Mapping[str, Service]) -> list[str]:
    """Topological order by depth-first search, names in alphabetical order where it is free."""
    order: list[str] = []
    under_way: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        if name in under_way:
            circle = [*under_way[under_way.index(name) :], name]
            raise GraphError(f"these services go round in a circle: {' → '.join(circle)}")
        under_way.append(name)
        for other in reversed(names):
            if other in services[name].outputs:
                visit(other)
        under_way.pop()
        order.insert(0, name)

    for name in reversed(names):
        visit(name)
    return order


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
