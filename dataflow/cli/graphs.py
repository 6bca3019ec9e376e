"""``dataflow plan`` and ``run``: graphs that a Python file builds, from the command line."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import yaml

from dataflow.errors import ConfigError

if TYPE_CHECKING:
    from dataflow.graph.graph import Graph
    from dataflow.session import Session

#: The function that is called where none is named.
DEFAULT = "graph"


def graph_of(source: str, session: Session, parameters: Mapping[str, str]) -> Graph:
    """The graph that a function of a file builds.

    Parameters
    ----------
    source
        ``FILE.py`` or ``FILE.py:FUNCTION``; the function gets the session first, then the parameters.
    parameters
        By name; the values are read as YAML, so that ``3`` is a number.

    Raises
    ------
    ConfigError
        If there is no such function, it takes other parameters, or gives no graph.
    """
    from dataflow.graph.graph import Graph

    name, function = _function(source)
    values = {key: yaml.safe_load(text) for key, text in parameters.items()}
    try:
        inspect.signature(function).bind(session, **values)
    except TypeError as error:
        raise ConfigError(f"{name}: {error}; give parameters as -p NAME=VALUE", source) from None
    found = function(session, **values)
    if not isinstance(found, Graph):
        raise ConfigError(f"{name} gives {type(found).__name__}, not a graph", source)
    return found


def _function(source: str) -> tuple[str, Any]:
    text, mark, name = source.rpartition(":")
    file, name = (Path(text), name) if mark and name.isidentifier() else (Path(source), DEFAULT)
    if not file.is_file():
        raise ConfigError("there is no such file", str(file))
    module = _loaded(file)
    function = getattr(module, name, None)
    if not callable(function):
        known = [n for n, f in vars(module).items() if inspect.isfunction(f)]
        words = f"; functions there: {', '.join(known)}" if known else ""
        raise ConfigError(f"there is no function {name!r}{words}", str(file))
    return name, function


def _loaded(file: Path) -> ModuleType:
    # As if it were run: its functions then travel by value, and need not be installed anywhere.
    spec = importlib.util.spec_from_file_location("__main__", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.absolute().parent))
    spec.loader.exec_module(module)
    return module
