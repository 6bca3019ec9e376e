"""What callers of a session pass, as what it means; what means nothing is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dataflow._quantities import parse_seconds
from dataflow.errors import ConfigError, GraphError
from dataflow.graph.graph import Graph, merge


def one_graph(graph: Any) -> Graph:
    """One graph of what was asked for."""
    if isinstance(graph, Graph):
        return graph
    if isinstance(graph, list | tuple) and graph and all(isinstance(g, Graph) for g in graph):
        return merge(graph)
    what = graph if isinstance(graph, str) else f"a {type(graph).__name__}"
    raise GraphError(
        f"{what!s} is no graph\nWhat you can do: call an operation on datasets, as in "
        "f(session['run1']), and pass what it returns, or a list of such."
    )


def words(words: Any, what: str) -> dict[str, str]:
    """A mapping of text to text, as it was given."""
    if words is None:
        return {}
    if not isinstance(words, Mapping):
        raise ConfigError(f"{what} must be a mapping, as in {{'name': 'value'}}, not {words!r}")
    return {str(name): str(value) for name, value in words.items()}


def seconds(window: float) -> float:
    """A span of time that is more than nothing."""
    if isinstance(window, bool) or not isinstance(window, int | float) or not window > 0:
        raise ConfigError(f"window must be seconds, more than nothing, not {window!r}")
    return float(window)


def deadline(given: float | str | None) -> float | None:
    """Seconds from a number or from a text with a unit."""
    return parse_seconds(given, "deadline") if isinstance(given, str) else given


def reasons(without: Mapping[str, str] | Sequence[str] | None) -> dict[str, str]:
    """Site → why it must not be used."""
    if without is None:
        return {}
    if isinstance(without, Mapping):
        return dict(without)
    names = [without] if isinstance(without, str) else without
    return dict.fromkeys(names, "the user says: without it")
