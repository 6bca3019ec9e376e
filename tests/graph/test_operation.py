"""Operations: what may be declared, how arguments are bound, and what is said when it is wrong."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dataflow.errors import GraphError
from dataflow.graph.graph import Graph, merge, of_dataset
from dataflow.graph.keys import decode
from dataflow.graph.operation import OperationFunction, Step, operation, shell
from dataflow.testing.strategies import centre, dataset, lowest_top, square, total, weighted

a, b, c = (of_dataset(dataset(name)) for name in ("run1", "run2", "run3"))


def only(graph: Graph) -> Step:
    (step,) = graph.steps.values()
    return step


def bound(graph: Graph) -> tuple[dict[str, str], dict[str, Any], bool]:
    step = only(graph)
    parameters = {name: decode(value) for name, value in step.parameters.items()}
    return dict(zip(step.slots, step.inputs, strict=True)), parameters, step.pieces


@operation
def mixed(x: Any, y: Any, scale: int = 2, *, mask: Any = None, **more: Any) -> Any:
    """Says what it gets."""
    return x, y, scale, mask, more


@operation
def many(*runs: Any, how: str = "mean") -> Any:
    return runs, how


# --- declaring ---------------------------------------------------------------------------------


def test_what_a_bare_decorator_makes() -> None:
    made = mixed.operation
    assert (made.name, made.kind, made.output, made.lazy, made.role) == (
        "mixed",
        "opaque",
        "",
        True,
        "",
    )
    assert made.slots == ("x", "y")
    assert not made.same_shape
    assert made.version == made.code[:16]
    assert made.reference == f"{__name__}:mixed"
    assert (mixed.__name__, mixed.__doc__) == ("mixed", "Says what it gets.")
    assert repr(mixed) == f"<operation mixed opaque {made.version[:8]}>"


def test_what_may_be_said() -> None:
    def f(x: Any) -> Any:
        return x

    made = operation(
        kind="elementwise", name="a.b-c", version="2024", output=80, lazy=False, role="r"
    )(f).operation
    assert (made.name, made.version, made.output, made.lazy, made.role) == (
        "a.b-c",
        "2024",
        "80",
        False,
        "r",
    )
    assert made.reference == "", "nobody else finds what is inside a function"
    assert operation(kind="elementwise")(f).operation.same_shape
    assert operation(kind="elementwise")(f).operation.output == "same"
    assert not operation(kind="elementwise", same_shape=False)(f).operation.same_shape
    assert operation(same_shape=True)(f).operation.same_shape
    assert operation(name="given")(lambda x: x).operation.name == "given"
    assert operation(lambda x: x).operation.name == "lambda"


def test_slots() -> None:
    def f(x: Any, /, y: Any, z: Any = 1, *rest: Any, w: Any, v: Any = 2, **more: Any) -> Any: ...

    assert operation(f).operation.slots == ("x", "y", "*", "w")
    assert many.operation.slots == ("*",)


def test_a_version_of_the_author_overrides_the_code() -> None:
    def first(x: Any) -> Any:
        return x

    def second(x: Any) -> Any:
        return x + 0

    def made(function: Any, version: str | None) -> OperationFunction[..., Any]:
        return operation(name="f", version=version)(function)

    assert made(first, "1")(a).key == made(second, "1")(a).key != made(first, "2")(a).key
    assert made(first, None)(a).key != made(second, None)(a).key
    assert made(first, "1").operation.code != made(second, "1").operation.code


def test_the_code_of_combine_and_finish_counts() -> None:
    def version(combine: Any, finish: Any = None) -> str:
        @operation(kind="reduction", combine=combine, finish=finish)
        def top(x: Any) -> Any:
            return x.max()

        return top.operation.version

    versions = {
        version(np.maximum),
        version(np.minimum),
        version(np.maximum, np.negative),
        version(np.maximum, np.positive),
        version(max),
    }
    assert len(versions) == 5
    assert version(np.maximum) in versions


def test_what_cannot_be_found_by_name_has_no_reference() -> None:
    def f(x: Any, y: Any) -> Any:
        return x, y

    made = operation(name="part")(functools.partial(f, y=1)).operation
    assert (made.reference, made.slots) == ("", ("x",))
    assert operation(functools.partial(f, y=1)).operation.name == "operation"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "local"}, "f: kind 'local' is none of elementwise, linear, reduction, opaque"),
        ({"name": "my operation"}, "name 'my operation' must be letters, digits"),
        ({"name": "1st"}, "name '1st' must be"),
        ({"name": "x\n"}, r"name 'x\\n' must be"),
        ({"kind": "reduction"}, "f: a reduction needs combine="),
        ({"kind": "linear", "combine": max}, "f: combine= and finish= are for kind='reduction'"),
        ({"finish": abs}, "f: combine= and finish= are for kind='reduction' only"),
    ],
)
def test_what_may_not_be_said(given: dict[str, Any], message: str) -> None:
    def f(x: Any) -> Any:
        return x

    with pytest.raises(GraphError, match=message):
        operation(**given)(f)


@pytest.mark.parametrize("function", [max, int, "abs", 5])
def test_what_does_not_tell_its_arguments(function: Any) -> None:
    with pytest.raises(GraphError, match="a function that tells its arguments"):
        operation(function)


def test_an_operation_is_not_made_of_another() -> None:
    with pytest.raises(GraphError, match=r"square is an operation already.*square\.function"):
        operation(kind="linear")(square)


# --- binding -----------------------------------------------------------------------------------


def test_inputs_and_parameters() -> None:
    assert bound(mixed(a, b)) == ({"x": "run1", "y": "run2"}, {}, False)
    assert bound(mixed(y=b, x=a)) == bound(mixed(a, b))
    assert bound(mixed(a, 5, 3)) == ({"x": "run1"}, {"y": 5, "scale": 3}, False)
    assert bound(mixed(a, b, scale=3)) == bound(mixed(a, b, 3))
    assert mixed(a, b, scale=3).key == mixed(a, b, 3).key
    assert bound(mixed(1, 2, mask=a)) == ({"mask": "run1"}, {"x": 1, "y": 2}, False)
    assert bound(mixed(a, b, c)) == ({"x": "run1", "y": "run2", "scale": "run3"}, {}, False)
    assert bound(mixed(a, b, free=(1,), extra=c)) == (
        {"x": "run1", "y": "run2", "extra": "run3"},
        {"free": (1,)},
        False,
    )


def test_one_input_twice() -> None:
    assert bound(mixed(a, a)) == ({"x": "run1", "y": "run1"}, {}, False)
    assert only(total(a, a)).inputs == ("run1", "run1")


def test_any_number_of_inputs() -> None:
    step = only(many(a, b, a, how="sum"))
    assert (step.inputs, step.slots) == (("run1", "run2", "run1"), ("*", "*", "*"))
    assert step.parameters == {"how": "sum"}
    assert not step.pieces
    assert only(many()).inputs == ()
    with pytest.raises(GraphError, match=r"many: arguments in \*args must all be datasets"):
        many(a, 3)


def test_pieces() -> None:
    for function in (total, lowest_top):
        assert not only(function(a)).pieces
        step = only(function(a, b, c))
        assert (step.slots, step.pieces) == (("x", "x", "x"), True)
    with pytest.raises(GraphError, match=r"square\(x.*\).*: too many positional arguments"):
        square(a, b)
    with pytest.raises(GraphError, match=r"centre.*: too many positional arguments"):
        centre(a, b)
    with pytest.raises(GraphError, match=r"total.*: too many positional arguments"):
        total(a, 3)
    with pytest.raises(GraphError, match=r"weighted.*: too many positional arguments"):
        weighted(a, b, c)
    assert not only(weighted(a, b)).pieces


def test_pieces_with_parameters() -> None:
    @operation(kind="linear")
    def f(x: Any, scale: int = 1, *, other: Any = None, **options: Any) -> Any:
        return x, scale, other, options

    step = only(f(a, b, scale=2, free=3))
    assert (step.slots, step.pieces) == (("x", "x"), True)
    assert step.parameters == {"scale": 2, "free": 3}
    assert only(f(a, scale=2, free=3)).parameters == step.parameters
    with pytest.raises(GraphError, match="f: 2 pieces of 'x' and another dataset for 'other'"):
        f(a, b, other=c)
    with pytest.raises(GraphError, match="multiple values for argument 'x'"):
        f(a, b, x=c)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, r"weighted\(x.*y.*\).*: missing a required argument: 'x'"),
        ((a,), {}, "missing a required argument: 'y'"),
        ((a, b, c), {}, "too many positional arguments"),
        ((a, b), {"z": 1}, "got an unexpected keyword argument 'z'"),
        ((a, b), {"x": 1}, "multiple values for argument 'x'"),
    ],
)
def test_arguments_that_do_not_fit(args: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        weighted(*args, **kwargs)


def test_unexpected_arguments_of_pieces() -> None:
    with pytest.raises(GraphError, match=r"total\(x.*\).*: got an unexpected keyword argument 'z'"):
        total(a, b, z=1)


def test_several_results_are_not_one_input() -> None:
    with pytest.raises(GraphError, match=r"argument 'x' is a graph of 2 results; .* graph\[0\]"):
        square(merge([a, b]))
    with pytest.raises(GraphError, match=r"argument 'x' is a graph of 0 results"):
        square(Graph([]))


def test_data_in_memory_is_not_an_input() -> None:
    array = xr.DataArray(np.zeros(3), dims="x")
    for value in (array, array.to_dataset(name="v"), array.chunk()):
        with pytest.raises(
            GraphError, match=r"square: argument 'x' is data in memory.*register it"
        ):
            square(value)
        with pytest.raises(GraphError, match=r"or call mixed\.function\(…\)"):
            mixed(a, b, mask=value)
    with pytest.raises(GraphError, match=r"DataFrame cannot be part of a key.*register large data"):
        square(pd.DataFrame({"x": [1]}))


def test_parameters_without_an_agreed_form() -> None:
    with pytest.raises(GraphError, match=r"mixed: parameter 'scale': a builtins\.object cannot"):
        mixed(a, b, scale=object())


def test_the_function_itself() -> None:
    assert mixed.function(1, 2, mask=3, free=4) == (1, 2, 2, 3, {"free": 4})
    assert square.function(np.arange(3)).tolist() == [0, 1, 4]
    with pytest.raises(GraphError, match="'wc' is a shell command, not a function"):
        shell("wc {x} > {output}").function


# --- shell commands ----------------------------------------------------------------------------


def test_shell() -> None:
    join = shell("join -t {sep} {left} {right} {left} > {output:out.csv}", output=100, role="r")
    made = join.operation
    assert (made.name, made.kind, made.lazy, made.output, made.role) == (
        "join",
        "opaque",
        False,
        "100",
        "r",
    )
    assert made.slots == ("sep", "left", "right")
    assert made.reference == ""
    assert join.functions.function is None
    assert bound(join(",", a, b)) == ({"left": "run1", "right": "run2"}, {"sep": ","}, False)
    assert join(",", a, b).key == join(right=b, left=a, sep=",").key
    assert join(",", a, b).key != join(",", b, a).key
    assert join(",", a, b).extent.nbytes == 100


def test_versions_of_commands() -> None:
    command = "wc -l {x} > {output}"
    assert shell(command)(a).key == shell(command)(a).key
    assert shell(command)(a).key != shell("wc -c {x} > {output}", name="wc")(a).key
    fixed = shell("wc  -l {x} > {output}", version="1")
    assert shell(command, version="1")(a).key == fixed(a).key


def test_names_of_commands() -> None:
    assert shell("/usr/bin/wc {x} > {output}").operation.name == "_usr_bin_wc"
    assert shell("wc {x} > {output}", name="count").operation.name == "count"
    with pytest.raises(GraphError, match="operation name '7z' must be"):
        shell("7z a {output} {x}")
    with pytest.raises(GraphError, match="operation name 'a b' must be"):
        shell("wc {x} > {output}", name="a b")


def test_braces_of_the_shell_are_doubled() -> None:
    awk = shell("awk '{{print $1}}' {x} > {output}")
    assert awk.operation.slots == ("x",)
    with pytest.raises(GraphError, match=r"placeholder \{print \$1\} is no name"):
        shell("awk '{print $1}' {x} > {output}")
    for broken in ("wc {x} > {output} }", "wc {x > {output}", "wc {"):
        with pytest.raises(GraphError, match=r"shell command 'wc .* write \{\{ and \}\}"):
            shell(broken)


@pytest.mark.parametrize("command", ["wc {} > {output}", "wc {0} > {output}", "wc {x.y} {output}"])
def test_placeholders_are_names(command: str) -> None:
    with pytest.raises(GraphError, match=r"placeholder \{.*\} is no name"):
        shell(command)


@pytest.mark.parametrize("command", ["", "wc {x}", "wc {x} > output", "wc {x} > {{output}}"])
def test_something_must_be_written(command: str) -> None:
    with pytest.raises(GraphError, match=r"writes no \{output\}"):
        shell(command)


def test_arguments_of_commands() -> None:
    wc = shell("wc {flag} {x} > {output}")
    with pytest.raises(GraphError, match=r"wc takes 2 arguments \(flag, x\), 3 were given"):
        wc("-l", a, b)
    with pytest.raises(GraphError, match="wc: no value for x"):
        wc("-l")
    with pytest.raises(GraphError, match="wc: no value for flag, x"):
        wc()
    with pytest.raises(GraphError, match="wc: unexpected or repeated argument 'y'"):
        wc("-l", a, y=b)
    with pytest.raises(GraphError, match="wc: unexpected or repeated argument 'x'"):
        wc("-l", a, x=b)
    with pytest.raises(GraphError, match="unexpected or repeated argument 'output'"):
        wc("-l", a, output="here")
