"""Digest of a function's code: what makes a key change when the code does.

Counted: the function's source without comments, layout, docstring and decorators; its default
values; the values in its closure; and the global names it uses, followed into all that would travel
with it: functions, classes and objects of the same package, of the notebook, and of modules that
are not installed. Of such a module count the names that the code uses anywhere. Not counted: what
installed libraries do inside. Their versions are recorded with each result, and the
reproducible-science archetype compares digests of results.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from dataflow.documents import canonical_json
from dataflow.errors import GraphError
from dataflow.graph.installed import is_installed
from dataflow.graph.keys import encode
from dataflow.graph.reads import MISSING, Reads, pairs


def code_digest(*functions: Callable[..., Any] | None) -> str:
    """SHA-256 (hex) over the code of the functions, in order; ``None`` counts as absent."""
    return described(*functions)[0]


def described(*functions: Callable[..., Any] | None) -> tuple[str, Reads]:
    """The digest, and what it was read from: while that is the same, the digest is."""
    describe = _Describer({_top(f) for f in functions if isinstance(f, FunctionType)})
    found = _hash([describe(f) if f is not None else None for f in functions])
    return found, describe.reads


def _hash(document: Any) -> str:
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()


class _Describer:
    """Describes values as documents; what was met before is only named.

    Parameters
    ----------
    homes
        Packages whose functions are followed although they are installed.
    seen
        What was met before.
    reads
        Is told what is read.
    """

    def __init__(
        self, homes: Collection[str], seen: Collection[Any] = (), reads: Reads | None = None
    ) -> None:
        self.homes = homes
        self.seen = set(seen)
        self.reads = reads or Reads()

    def __call__(self, value: Any, names: Collection[str] = ()) -> Any:
        """``names`` are those that the code which has the value uses, to choose from a module."""
        declared = getattr(value, "declared", None)
        if hasattr(declared, "version") and hasattr(value, "functions"):
            return self._operation(value)
        if isinstance(value, FunctionType):
            self.reads.attributes(value, "__module__", "__qualname__")
            if _top(value) in self.homes or _by_value(value):
                return self._function(value)
            return ["routine", value.__module__, value.__qualname__]
        if isinstance(value, ModuleType):
            return self._module(value, names)
        if inspect.isclass(value):
            return self._class(value)
        if isinstance(value, MethodType) and _by_value(value.__func__):
            return ["method", self(value.__func__), self(value.__self__)]
        wrapped = getattr(value, "__wrapped__", None)
        if isinstance(wrapped, FunctionType) and _by_value(wrapped):  # functools.cache, numba.jit
            self.reads.attributes(value, "__wrapped__")
            return ["wrapped", type(value).__module__, type(value).__qualname__, self(wrapped)]
        if inspect.isbuiltin(value) or inspect.isroutine(value):
            name = getattr(value, "__qualname__", "")
            return ["routine", getattr(value, "__module__", None), name]
        partial = getattr(value, "func", None)
        if partial is not None and hasattr(value, "keywords"):
            self.reads.attributes(value, "func", "args", "keywords")
            self.reads.content(value.keywords, pairs)
            parts = [self(part, names) for part in (partial, *value.args)]
            named = {name: self(part, names) for name, part in value.keywords.items()}
            return ["partial", parts, named]
        try:
            found = ["value", encode(value)]
        except (GraphError, RecursionError):
            return self._object(value, names)
        self.reads.value(value)
        return found

    def _again(self, value: Any, *more: Any) -> bool:
        mark = (id(value), *more)
        known = mark in self.seen
        self.seen.add(mark)
        return known

    def _operation(self, value: Any) -> Any:
        self.reads.attributes(value, "declared", "functions")
        declared = value.declared
        if declared.version != declared.code[:16] or declared.command:
            return ["operation", declared.name, declared.version]
        parts = value.functions
        found = [self(f) for f in (parts.function, parts.combine, parts.finish)]
        return ["operation", declared.name, found]

    def _function(self, function: FunctionType) -> Any:
        if self._again(function):
            return ["again", function.__qualname__]
        self.reads.attributes(function, "__code__", "__defaults__", "__kwdefaults__", "__closure__")
        self.reads.content(function.__kwdefaults__ or {}, pairs)
        names = sorted(set(_global_names(function.__code__)))
        defaults = [self(value, names) for value in function.__defaults__ or ()]
        keyword_defaults = {
            name: self(value, names) for name, value in (function.__kwdefaults__ or {}).items()
        }
        closure = []
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        for name, cell in cells:
            held = self.reads.cell(cell)
            closure.append([name, None if held is MISSING else self(held, names)])
        used = self._used(function.__globals__, names)
        return ["function", _body(function), defaults, keyword_defaults, closure, used]

    def _module(self, module: ModuleType, names: Collection[str]) -> Any:
        if not _travels(module.__name__) or self._again(module, *names):
            return ["module", module.__name__]
        return ["module", module.__name__, self._used(vars(module), names)]

    def _used(self, known: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
        found = {name: self.reads.name(known, name) for name in names}
        return {name: self(value, names) for name, value in found.items() if value is not MISSING}

    def _class(self, cls: type) -> Any:
        about = ["class", cls.__module__, cls.__qualname__]
        if not _travels(cls.__module__):
            return [*about, ""]
        if self._again(cls):
            return ["again", cls.__qualname__]
        self.reads.attributes(cls, "__bases__")
        self.reads.content(cls, _members)
        members: dict[str, Any] = {}
        for name, value in sorted(vars(cls).items()):
            if isinstance(value, property):
                members[name] = [self(f) for f in (value.fget, value.fset, value.fdel)]
            elif isinstance(value, functools.cached_property):
                members[name] = self(value.func)
            elif callable(value) or not (name.startswith("__") and name.endswith("__")):
                members[name] = self(value)
        return [*about, _class_source(cls), [self(base) for base in cls.__bases__], members]

    def _object(self, value: Any, names: Collection[str]) -> Any:
        """What cannot be a parameter: containers of code, and instances."""
        kind = type(value)
        if self._again(value):
            return ["again", kind.__qualname__]
        if kind in (list, tuple):
            self.reads.content(value)
            return [kind.__name__, [self(item, names) for item in value]]
        if kind in (set, frozenset):  # the order of which is another in each process
            self.reads.content(value)
            items = [_Describer(self.homes, self.seen, self.reads)(i, names) for i in value]
            return [kind.__name__, sorted(items, key=canonical_json)]
        if kind is dict:
            self.reads.content(value, pairs)
            keys = [(self(key, names), item) for key, item in value.items()]
            keys.sort(key=lambda pair: canonical_json(pair[0]))
            return ["dict", [[key, self(item, names)] for key, item in keys]]
        if _travels(kind.__module__):
            self.reads.content(value, _held)
            state = {name: self(item, names) for name, item in sorted(_state(value).items())}
            return ["instance", self(kind), state]
        if hasattr(value, "nbytes") or hasattr(value, "memory_usage"):
            self.reads.certain = False  # large, and not to be kept alive for this
        # NumPy's ufuncs and the like are told apart by their own name only.
        return ["object", kind.__module__, kind.__qualname__, getattr(value, "__name__", None)]


def _members(cls: type) -> list[Any]:
    return pairs(vars(cls))


def _held(value: Any) -> list[Any]:
    return pairs(_state(value))


def _state(value: Any) -> dict[str, Any]:
    slots = {
        name: getattr(value, name)
        for cls in type(value).__mro__
        for name, member in vars(cls).items()
        if inspect.ismemberdescriptor(member) and hasattr(value, name)
    }
    return {**slots, **{str(name): item for name, item in getattr(value, "__dict__", {}).items()}}


def _travels(module: str | None) -> bool:
    """Whether what is in a module goes to a site by value; the name may be of no module."""
    return module is None or module not in sys.modules or not is_installed(module)


def _by_value(function: Any) -> bool:
    # What was made inside of a function is not found by name, whoever made it.
    return "<" in getattr(function, "__qualname__", "<") or _travels(function.__module__)


def _top(function: FunctionType) -> str:
    return (function.__module__ or "").partition(".")[0]


def _body(function: FunctionType) -> Any:
    return _text(function.__code__, id(function.__code__), function.__name__ == "<lambda>")


@functools.lru_cache(maxsize=4096)  # of code objects that are equal the sources may differ
def _text(code: CodeType, identity: int, is_lambda: bool) -> Any:
    """Normalised source, or byte code where there is no source to be had.

    Kept, since a file may be edited after it was imported: the first reading is the likeliest.
    """
    if not is_lambda:
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
        except (OSError, TypeError, SyntaxError):
            return _byte_code(code)
        definition = tree.body[0]
        if isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef):
            definition.decorator_list = []
            first = definition.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                definition.body = definition.body[1:] or [ast.Pass()]
            return ast.unparse(definition)
    return _byte_code(code)


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


@functools.lru_cache(maxsize=1024)
def _class_source(cls: type) -> str:
    try:
        return ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(cls))))
    except (OSError, TypeError, SyntaxError):
        return ""
