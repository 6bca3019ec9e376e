"""Operation: a step that can be placed; and the decorator that makes one of a function.

``kind`` is a promise about the function, and decides how it may be taken apart:

``elementwise``
    the result has the inputs' shape, each element from the elements at the same place.
``linear``
    ``f(A + B) == f(A) + f(B)``. With several data arguments: linear in all together, so
    ``f(a, b) == f(a, 0) + f(0, b)``. Called on more datasets than it has arguments it means
    ``f(a) + f(b) + …``.
``reduction``
    the function makes a partial result of each piece, ``combine`` merges two of them, ``finish``
    turns the last into the result.
``opaque``
    nothing is promised: all inputs come to one place.

Calling an operation on graphs builds a larger graph and runs nothing.
"""

from __future__ import annotations

import functools
import inspect
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, overload

from dataflow.errors import GraphError
from dataflow.graph.code import described
from dataflow.graph.keys import digest, encode, step_key
from dataflow.graph.needs import Needs, needs_of
from dataflow.graph.reads import Reads

if TYPE_CHECKING:
    from dataflow.graph.graph import Graph

Kind = Literal["elementwise", "linear", "reduction", "opaque"]
Stage = Literal["whole", "part", "merge", "combine"]
P = ParamSpec("P")
R = TypeVar("R")

_KINDS = ("elementwise", "linear", "reduction", "opaque")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What is to be done, apart from what it is done to.

    Attributes
    ----------
    name, version
        Together they say what the operation means; the version is the digest of its code unless
        the author gave one.
    kind
        See the module's text.
    code
        Digest of the code as sent; names the payload that travels beside the plan.
    reference
        ``module:qualname`` where a site that has the module installed finds it; empty for
        functions of a notebook.
    slots
        Names of the arguments that take data, ``("*",)`` if any number.
    same_shape
        Inputs must have one shape; checked when the graph is built.
    output
        What is known of the result's size before it exists: ``"same"`` (as the first input),
        ``"scalar"``, a number of bytes, or empty for unknown.
    lazy
        The function gets Dask-backed objects; otherwise loaded ones.
    command
        Shell command with ``{placeholders}``, for operations that are programs.
    role
        Label that agreements and scopes may name.
    needs
        What the program asks of the place where it runs; no part of what the operation means.
    """

    name: str
    version: str
    kind: Kind
    code: str
    reference: str = ""
    slots: tuple[str, ...] = ("*",)
    same_shape: bool = False
    output: str = ""
    lazy: bool = True
    command: str = ""
    role: str = ""
    needs: Needs = field(default_factory=Needs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One application of an operation: inputs and result by key.

    ``parameters`` is the encoded document (:func:`dataflow.graph.keys.encode`); ``slots[i]`` is
    the argument that ``inputs[i]`` goes to. ``pieces`` says that the inputs are several pieces for
    one argument.

    The rest is set by splitting only and says which share of a step this is; what runs at each
    ``stage`` is in :mod:`dataflow.graph.split`. ``mother`` is the key of the step it is a share
    of, ``parts`` are the positions in the mother's arguments that the inputs have, ``absent`` the
    arguments that get zeros instead: pairs of slot and key, whose extent says how large.
    """

    key: str
    label: str
    operation: Operation
    inputs: tuple[str, ...]
    slots: tuple[str, ...]
    parameters: Mapping[str, Any]
    pieces: bool = False
    stage: Stage = "whole"
    mother: str = ""
    parts: tuple[int, ...] = ()
    absent: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Functions:
    """The Python callables behind one operation code."""

    function: Callable[..., Any] | None
    combine: Callable[..., Any] | None = None
    finish: Callable[..., Any] | None = None


def _trusted(described: tuple[str, Reads] | None) -> tuple[str, Reads] | None:
    """A description that may be kept: one that would show a change."""
    return described if described is not None and described[1].certain else None


class OperationFunction(Generic[P, R]):
    """What :func:`operation` returns: call it on graphs to build, ``.function`` to run here."""

    def __init__(
        self, operation: Operation, functions: Functions, described: tuple[str, Reads] | None = None
    ) -> None:
        self.declared = operation
        self.functions = functions
        self._described = _trusted(described)
        if functions.function is not None:
            functools.update_wrapper(self, functions.function)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_described": None}  # of this process

    @property
    def operation(self) -> Operation:
        """The operation with the code as it is now; the values that it uses may have changed."""
        declared, parts = self.declared, self.functions
        if parts.function is None:
            return declared
        known = self._described
        if known is None or not known[1].same():
            known = described(parts.function, parts.combine, parts.finish)
            self._described = _trusted(known)
        code = known[0]
        if code == declared.code:
            return declared
        own = declared.version != declared.code[:16]
        return replace(declared, code=code, version=declared.version if own else code[:16])

    @property
    def function(self) -> Callable[..., Any]:
        """The undecorated function, for running on data in this process."""
        if self.functions.function is None:
            raise GraphError(f"{self.declared.name!r} is a shell command, not a function")
        return self.functions.function

    def __call__(self, *args: Any, **kwargs: Any) -> Graph:
        inputs, slots, parameters, pieces = self._bind(args, kwargs)
        from dataflow.graph.graph import apply

        return apply(self, inputs, slots=slots, parameters=parameters, pieces=pieces)

    def key(
        self, inputs: tuple[str, ...], slots: tuple[str, ...], parameters: Any, pieces: bool
    ) -> str:
        """Key of this operation applied to inputs with these keys."""
        operation = self.operation
        return step_key(operation.name, operation.version, parameters, slots, inputs, pieces=pieces)

    def _bind(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[list[Graph], tuple[str, ...], dict[str, Any], bool]:
        from dataflow.graph.graph import Graph

        operation = self.declared
        named, pieces = self._arguments(args, kwargs)
        inputs: list[Graph] = []
        slots: list[str] = []
        parameters: dict[str, Any] = {}
        for name, value in named:
            if isinstance(value, Graph):
                if len(value.outputs) != 1:
                    raise GraphError(
                        f"{operation.name}: argument {name!r} is a graph of "
                        f"{len(value.outputs)} results; pass one, as in graph[0]"
                    )
                inputs.append(value)
                slots.append(name)
            elif hasattr(value, "dims") and hasattr(
                value, "data_vars" if hasattr(value, "data_vars") else "data"
            ):
                raise GraphError(
                    f"{operation.name}: argument {name!r} is data in memory, not a dataset; register it "
                    f"(session.register) and pass session[name], or call {operation.name}.function(…) "
                    "to run it here"
                )
            else:
                parameters[name] = encode(value, f"{operation.name}: parameter {name!r}")
        return inputs, tuple(slots), parameters, pieces

    def _arguments(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[list[tuple[str, Any]], bool]:
        """Pairs of argument name and value, and whether the inputs are pieces of one argument."""
        from dataflow.graph.graph import Graph

        operation = self.declared
        if operation.command:
            return _command_arguments(operation, args, kwargs), False
        signature = inspect.signature(self.function)
        data = [p for p in signature.parameters.values() if p.default is p.empty]
        positional = [p for p in data if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if (
            operation.kind in ("linear", "reduction")
            and len(positional) == 1
            and len(args) > 1
            and all(isinstance(arg, Graph) for arg in args)
        ):
            pieces, args = list(args), args[:1]
        else:
            pieces = []
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise GraphError(f"{operation.name}{signature}: {error}") from None
        named: list[tuple[str, Any]] = []
        for name, value in bound.arguments.items():
            kind = signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                named += [("*", item) for item in value]
            elif kind is inspect.Parameter.VAR_KEYWORD:
                named += list(value.items())
            else:
                named.append((name, value))
        if pieces:
            (name, _), *rest = named
            mixed = [key for key, value in rest if isinstance(value, Graph)]
            if mixed:
                raise GraphError(
                    f"{operation.name}: {len(pieces)} pieces of {name!r} and another dataset for "
                    f"{mixed[0]!r}; give one each, or declare both as arguments without default"
                )
            return [(name, piece) for piece in pieces] + rest, True
        if any(name == "*" and not isinstance(value, Graph) for name, value in named):
            raise GraphError(f"{operation.name}: arguments in *args must all be datasets or graphs")
        return named, False

    def __repr__(self) -> str:
        return (
            f"<operation {self.operation.name} {self.operation.kind} {self.operation.version[:8]}>"
        )


@overload
def operation(function: Callable[P, R]) -> OperationFunction[P, R]: ...
@overload
def operation(
    function: None = None,
    *,
    kind: Kind = "opaque",
    name: str | None = None,
    version: str | None = None,
    output: str | int | None = None,
    combine: Callable[..., Any] | None = None,
    finish: Callable[..., Any] | None = None,
    lazy: bool = True,
    same_shape: bool | None = None,
    role: str = "",
) -> Callable[[Callable[P, R]], OperationFunction[P, R]]: ...
def operation(
    function: Callable[P, R] | None = None,
    *,
    kind: Kind = "opaque",
    name: str | None = None,
    version: str | None = None,
    output: str | int | None = None,
    combine: Callable[..., Any] | None = None,
    finish: Callable[..., Any] | None = None,
    lazy: bool = True,
    same_shape: bool | None = None,
    role: str = "",
) -> Any:
    """Make an operation of an ordinary function of xarray objects or tables.

    Parameters
    ----------
    function
        The function. Arguments that get a dataset or graph are inputs, all others parameters.
    kind
        What is promised about it, see :mod:`dataflow.graph.operation`. A promise of linearity is
        tried on a sample of the data before it is first relied upon.
    name, version
        Default: the function's name, and a digest of its code. Give a version to say that a
        change of the code does not change the meaning.
    output
        Size of the result if it can be said beforehand: ``"same"``, ``"scalar"``, or bytes.
    combine, finish
        For a reduction: ``combine(p, q)`` merges two partial results, ``finish(p)`` makes the
        result (default: the partial result itself).
    lazy
        ``False``: the function gets loaded NumPy-backed data (pandas for tables).
    same_shape
        Refuse inputs of different shapes when the graph is built (default for ``elementwise``).
    role
        A label that scopes and agreements may use in place of the name.

    Raises
    ------
    GraphError
        For an unknown kind, a name that is no identifier, or a reduction without ``combine``.

    Examples
    --------
    >>> @operation(kind="elementwise")
    ... def parity(x):
    ...     return x % 2
    >>> parity
    <operation parity elementwise ...>
    """

    def wrap(function: Callable[P, R]) -> OperationFunction[P, R]:
        slots = _slots(function)
        title = name or getattr(function, "__name__", "operation").strip("<>")
        if isinstance(function, OperationFunction):
            raise GraphError(f"{title} is an operation already; make another of {title}.function")
        if kind not in _KINDS:
            raise GraphError(f"{title}: kind {kind!r} is none of {', '.join(_KINDS)}")
        if not _NAME.match(title):
            raise GraphError(f"operation name {title!r} must be letters, digits, '_', '-' or '.'")
        if kind == "reduction" and combine is None:
            raise GraphError(
                f"{title}: a reduction needs combine=, a function of two partial results"
            )
        if kind != "reduction" and (combine or finish):
            raise GraphError(f"{title}: combine= and finish= are for kind='reduction' only")
        found = described(function, combine, finish)
        code = found[0]
        default_output = "same" if kind == "elementwise" else ""
        return OperationFunction(
            Operation(
                name=title,
                version=version or code[:16],
                kind=kind,
                code=code,
                reference=_reference(function),
                slots=slots,
                same_shape=(kind == "elementwise") if same_shape is None else same_shape,
                output=default_output if output is None else str(output),
                lazy=lazy,
                role=role,
            ),
            Functions(function, combine, finish),
            found,
        )

    return wrap if function is None else wrap(function)


def shell(
    command: str,
    *,
    name: str | None = None,
    version: str | None = None,
    output: str | int | None = None,
    role: str = "",
    cores: int = 1,
    memory: str | int = 0,
    walltime: str | float = 0,
    queue: str = "",
) -> OperationFunction[..., Any]:
    """Make an operation of a shell command over files, in any language.

    ``{word}`` stands for an input (the path of its file or directory) or, if no dataset is given
    for it, for a parameter; ``{output}`` or ``{output:name.txt}`` for a file to be written.
    Everything is quoted for the shell. The result is a dataset of kind ``files``; a command that
    ends with a status other than 0 fails, with the end of its stderr as the reason.

    At a site with Grid Engine it is a batch job of its own, elsewhere a process. Its states, streams
    and files are in ``job.programs()`` and ``job.logs()``.

    Parameters
    ----------
    cores, memory
        Slots, and bytes in all (or ``"2 GB"``), that a batch system is asked for.
    walltime
        Seconds (or ``"10 min"``) after which it is ended, everywhere.
    queue
        Of the batch system; default: what the site's own file says. None of these four changes what
        the operation means: a result that is there is used, however it was made.

    Raises
    ------
    GraphError
        If the command has no ``{output}``, or one of these makes no sense.

    Examples
    --------
    >>> count = shell("wc -l < {table} > {output:lines.txt}", name="count_lines")
    >>> count.operation.slots
    ('table',)
    """
    try:
        parsed = list(string.Formatter().parse(command))
    except ValueError as error:
        raise GraphError(
            f"shell command {command!r}: {error}; write {{{{ and }}}} for the characters themselves"
        ) from None
    fields = [field for _, field, _, _ in parsed if field is not None]
    if "output" not in fields:
        raise GraphError(f"shell command {command!r} writes no {{output}}")
    slots = tuple(dict.fromkeys(field for field in fields if field != "output"))
    for slot in slots:
        if not slot.isidentifier():
            raise GraphError(f"shell command {command!r}: placeholder {{{slot}}} is no name")
    title = name or re.sub(r"[^A-Za-z0-9_.-]", "_", command.split()[0])
    if not _NAME.match(title):
        raise GraphError(f"operation name {title!r} must be letters, digits, '_', '-' or '.'")
    code = digest(["shell", command])
    return OperationFunction(
        Operation(
            name=title,
            version=version or code[:16],
            kind="opaque",
            code=code,
            slots=slots,
            output="" if output is None else str(output),
            lazy=False,
            command=command,
            role=role,
            needs=needs_of(title, cores=cores, memory=memory, walltime=walltime, queue=queue),
        ),
        Functions(None),
    )


def _slots(function: Callable[..., Any]) -> tuple[str, ...]:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        name = getattr(function, "__name__", None) or repr(function)
        raise GraphError(
            f"{name}: an operation is made of a function that tells its arguments\nWhat you can do: "
            f"write one around it, as in `def my_{name if name.isidentifier() else 'step'}(x): …`."
        ) from None
    slots = []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            slots.append("*")
        elif parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD:
            slots.append(parameter.name)
    return tuple(slots)


def _reference(function: Callable[..., Any]) -> str:
    module = getattr(function, "__module__", "")
    qualname = getattr(function, "__qualname__", "")
    if not module or not qualname or module == "__main__" or "<" in qualname:
        return ""
    return f"{module}:{qualname}"


def _command_arguments(
    operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[tuple[str, Any]]:
    if len(args) > len(operation.slots):
        raise GraphError(
            f"{operation.name} takes {len(operation.slots)} arguments "
            f"({', '.join(operation.slots)}), {len(args)} were given"
        )
    named = dict(zip(operation.slots, args, strict=False))
    for key, value in kwargs.items():
        if key not in operation.slots or key in named:
            raise GraphError(f"{operation.name}: unexpected or repeated argument {key!r}")
        named[key] = value
    missing = [slot for slot in operation.slots if slot not in named]
    if missing:
        raise GraphError(f"{operation.name}: no value for {', '.join(missing)}")
    return [(slot, named[slot]) for slot in operation.slots]
