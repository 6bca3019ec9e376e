"""Digest of a function's code: what makes a key change when the code does.

Counted: the function's source without comments, layout, docstring and decorators; its default
values; the values in its closure; and the global names it uses, followed into functions of the
same package (or notebook). Not counted: what imported libraries do inside. Their versions are
recorded with each result, and the reproducible-science archetype compares digests of results.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from dataflow.documents import canonical_json
from dataflow.errors import GraphError
from dataflow.graph.keys import encode


def code_digest(*functions: Callable[..., Any] | None) -> str:
    """SHA-256 (hex) over the code of the functions, in order; ``None`` counts as absent."""
    seen: set[int] = set()
    return _hash([_describe(f, seen) if f is not None else None for f in functions])


def _hash(document: Any) -> str:
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()


def _describe(value: Any, seen: set[int]) -> Any:
    operation = getattr(value, "operation", None)
    if operation is not None and hasattr(operation, "version"):
        return ["operation", operation.name, operation.version]
    if isinstance(value, FunctionType):
        return _describe_function(value, seen)
    if inspect.ismodule(value):
        return ["module", value.__name__]
    if inspect.isclass(value):
        return ["class", value.__module__, value.__qualname__, _class_source(value)]
    if inspect.isbuiltin(value) or inspect.isroutine(value):
        return ["routine", getattr(value, "__module__", None), getattr(value, "__qualname__", "")]
    partial = getattr(value, "func", None)
    if partial is not None and hasattr(value, "keywords"):
        parts = [_describe(part, seen) for part in (partial, *value.args)]
        named = {name: _describe(part, seen) for name, part in value.keywords.items()}
        return ["partial", parts, named]
    try:
        return ["value", encode(value)]
    except GraphError:
        # NumPy's ufuncs and the like are told apart by their own name only.
        name = getattr(value, "__name__", None)
        return ["object", type(value).__module__, type(value).__qualname__, name]


def _describe_function(function: FunctionType, seen: set[int]) -> Any:
    if id(function) in seen:
        return ["again", function.__qualname__]
    seen.add(id(function))
    defaults = [_describe(value, seen) for value in function.__defaults__ or ()]
    keyword_defaults = {
        name: _describe(value, seen) for name, value in (function.__kwdefaults__ or {}).items()
    }
    closure = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            closure.append([name, _describe(cell.cell_contents, seen)])
        except ValueError:  # a cell that is not filled yet
            closure.append([name, None])
    used = {}
    for name in sorted(set(_global_names(function.__code__))):
        if name in function.__globals__:
            value = function.__globals__[name]
            if isinstance(value, FunctionType) and not _same_package(function, value):
                used[name] = ["routine", value.__module__, value.__qualname__]
            else:
                used[name] = _describe(value, seen)
    return ["function", _body(function), defaults, keyword_defaults, closure, used]


def _body(function: FunctionType) -> Any:
    """Normalised source, or byte code where there is no source to be had."""
    if function.__name__ != "<lambda>":
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function.__code__)))
        except (OSError, TypeError, SyntaxError):
            return _byte_code(function.__code__)
        definition = tree.body[0]
        if isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef):
            definition.decorator_list = []
            first = definition.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                definition.body = definition.body[1:] or [ast.Pass()]
            return ast.unparse(definition)
    return _byte_code(function.__code__)


def _byte_code(code: CodeType) -> Any:
    constants = [_constant(item) for item in code.co_consts]
    return [code.co_code.hex(), constants, list(code.co_names), list(code.co_varnames)]


def _constant(item: Any) -> Any:
    if isinstance(item, CodeType):
        return _byte_code(item)
    if isinstance(item, frozenset):  # its text differs from process to process
        return ["frozenset", *sorted(map(repr, item))]
    return repr(item)


def _global_names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)


def _same_package(user: FunctionType, used: FunctionType) -> bool:
    return user.__module__.split(".")[0] == used.__module__.split(".")[0]


def _class_source(cls: type) -> str:
    module = inspect.getmodule(cls)
    if isinstance(module, ModuleType) and (module.__name__ == "__main__"):
        try:
            return ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(cls))))
        except (OSError, TypeError, SyntaxError):
            return ""
    return ""
