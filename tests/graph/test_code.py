"""Digests of code: what changes them, and what does not."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from dataflow.graph.code import code_digest
from dataflow.graph.operation import operation

Define = Callable[..., Any]

BASE = """
    LIMIT = 3

    def helper(x):
        return x + 1

    def f(x, scale=2, *, power=1):
        return helper(x * scale) ** power if x > LIMIT else x
"""


@pytest.fixture
def define(tmp_path: Path) -> Define:
    """Run the text of a module as a notebook would, and give one of its names."""
    count = 0

    def run(text: str, name: str = "f", *, package: str = "notebook", **given: Any) -> Any:
        nonlocal count
        count += 1
        file = tmp_path / f"cell{count}.py"
        file.write_text(dedent(text))
        names: dict[str, Any] = {"__name__": package, **given}
        exec(compile(file.read_text(), str(file), "exec"), names)
        return names[name]

    return run


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x * scale", "x - scale"),
        ("scale=2", "scale=2.0"),
        ("power=1", "power=2"),
        ("LIMIT = 3", "LIMIT = 4"),
        ("x + 1", "x + 2"),
        ("x > LIMIT", "x >= LIMIT"),
        ("def f(x, scale=2,", "def f(y, scale=2,"),
    ],
)
def test_what_changes_it(define: Define, old: str, new: str) -> None:
    assert old in BASE
    assert code_digest(define(BASE)) != code_digest(define(BASE.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def f(x, scale=2, *, power=1):", "def f(x, scale=2, *, power=1):  # a comment"),
        ("def f(x, scale=2, *, power=1):", "def f(\n    x,\n    scale = 2,\n    *, power=1):\n"),
        ("power=1):", "power=1):\n        '''What it does.'''"),
        ("x + 1", "(x  +  1)"),
        ("LIMIT = 3", "OTHER = 5\n    LIMIT = 3"),
        (
            "    def f(",
            "    import functools\n\n    @functools.cache\n    def helped(): ...\n\n    def f(",
        ),
        ("def helper(x):", "def helper(x):\n        'A helper.'\n        # of f"),
    ],
)
def test_what_does_not(define: Define, old: str, new: str) -> None:
    assert old in BASE
    changed = BASE.replace(old, new)
    assert code_digest(define(BASE)) == code_digest(define(changed))


def test_its_own_decorator_is_not_counted(define: Define) -> None:
    bare = define(BASE)
    text = BASE.replace("    def f(", "    @operation(kind='linear')\n    def f(")
    decorated = define(text, operation=operation)
    assert decorated.operation.code == operation(kind="linear")(bare).operation.code
    assert decorated.operation.code == code_digest(bare, None, None)


def test_a_function_around_another_is_counted_with_it(define: Define) -> None:
    text = """
        import functools

        def twice(function):
            @functools.wraps(function)
            def wrapper(x):
                return 2 * function(x)
            return wrapper

        @twice
        def f(x):
            return x
    """
    digests = {
        code_digest(define(text)),
        code_digest(define(text.replace("2 * ", "3 * "))),
        code_digest(define(text.replace("return x\n", "return -x\n"))),
        code_digest(define(text.replace("@twice", ""))),
    }
    assert len(digests) == 4
    assert code_digest(define(text)) in digests


def test_closures(define: Define) -> None:
    text = """
        def make(n):
            def f(x):
                return x + n
            return f
    """
    make, again = define(text, "make"), define(text, "make")
    assert code_digest(make(1)) == code_digest(again(1))
    values = (1, 2, 1.0, "1", [1], np.arange(2), np.arange(3), len, make, make(1), make(2))
    assert len({code_digest(make(value)) for value in values}) == len(values)


def test_a_closure_that_is_not_filled_yet() -> None:
    def f(x: Any) -> Any:
        return later(x)

    before = code_digest(f)

    def later(x: Any) -> Any:
        return x

    assert code_digest(f) != before


def test_functions_of_other_packages_count_by_name(define: Define) -> None:
    text = "def f(x):\n    return g(x)\n"
    ours = [define(f"def g(x):\n    return x + {n}\n", "g") for n in (1, 2)]
    assert code_digest(define(text, g=ours[0])) != code_digest(define(text, g=ours[1]))
    theirs = [define(f"def g(x):\n    return x + {n}\n", "g", package="numpy") for n in (1, 2)]
    assert code_digest(define(text, g=theirs[0])) == code_digest(define(text, g=theirs[1]))
    assert code_digest(define(text, g=theirs[0])) != code_digest(define(text, g=ours[0]))
    inside = code_digest(define(text, g=theirs[0], package="numpy.other"))
    assert inside != code_digest(define(text, g=theirs[1], package="numpy.other"))


def test_imported_functions_that_go_by_another_name(define: Define) -> None:
    text = "from numpy import {} as best\n\ndef f(x):\n    return best(x, 0)\n"
    names = ("maximum", "minimum", "mean", "sum")
    assert len({code_digest(define(text.format(name))) for name in names}) == len(names)
    assert len({code_digest(abs, np.maximum), code_digest(abs, np.minimum)}) == 2


def test_operations_count_by_name_and_version(define: Define) -> None:
    text = "def f(x):\n    return g(x)\n"

    def digest(name: str, version: str, body: str) -> str:
        made = define(f"def g(x):\n    return {body}\n", "g")
        return code_digest(define(text, g=operation(name=name, version=version)(made)))

    assert digest("g", "1", "x") == digest("g", "1", "-x")
    assert len({digest(name, version, "x") for name in "gh" for version in "12"}) == 4


def test_lambdas(define: Define) -> None:
    text = "f = lambda x: x + {}\n"
    assert code_digest(define(text.format(1))) == code_digest(define("\n# here\n" + text.format(1)))
    assert code_digest(define(text.format(1))) != code_digest(define(text.format(2)))
    inner = "f = lambda xs: [(lambda y: y {} 1)(x) for x in xs]\n"
    assert code_digest(define(inner.format("+"))) != code_digest(define(inner.format("-")))
    pair = define("f = (lambda x: x + 1, lambda x: x + 2)\n")
    assert code_digest(pair[0]) != code_digest(pair[1]), "two in one line"
    named = "N = {}\nf = lambda x: x + N\n"
    assert code_digest(define(named.format(1))) != code_digest(define(named.format(2)))


def test_nested_functions_and_names_used_inside_them(define: Define) -> None:
    text = """
        N = 1

        def f(x):
            def inner(y):
                return y + N
            return inner(x)
    """
    digests = {
        code_digest(define(text)),
        code_digest(define(text.replace("N = 1", "N = 2"))),
        code_digest(define(text.replace("y + N", "y - N"))),
    }
    assert len(digests) == 3


def test_partials(define: Define) -> None:
    f, g = define(BASE), define(BASE.replace("x + 1", "x + 2"))
    made = [
        f,
        functools.partial(f),
        functools.partial(f, scale=2),
        functools.partial(f, scale=3),
        functools.partial(f, 3),
        functools.partial(g, 3),
    ]
    assert len({code_digest(function) for function in made}) == len(made)
    assert code_digest(functools.partial(define(BASE), 3)) == code_digest(made[4])


def test_recursion(define: Define) -> None:
    text = """
        def even(n):
            return n == 0 or odd(n - 1)

        def odd(n):
            return n != 0 and even(n - 1)
    """
    first = code_digest(define(text, "even"))
    assert first == code_digest(define(text, "even"))
    assert first != code_digest(define(text.replace("n != 0", "n > 0"), "even"))
    assert first != code_digest(define(text, "odd"))


def test_without_source() -> None:
    def made(body: str) -> Any:
        names: dict[str, Any] = {"__name__": "notebook"}
        exec(f"def f(x, n=1):\n    return {body}\n", names)
        return names["f"]

    assert code_digest(made("x + 1")) == code_digest(made("x + 1"))
    bodies = ("x + 1", "x - 1", "x + 2", "x + n", "x in {1, 2}", "x.a", "x.b")
    assert len({code_digest(made(body)) for body in bodies}) == len(bodies)


def test_none_and_order_count() -> None:
    def f(x: Any) -> Any:
        return x

    def g(x: Any) -> Any:
        return -x

    made = [(f, g), (g, f), (f, None), (None, f), (f,), (f, f), ()]
    assert len({code_digest(*functions) for functions in made}) == len(made)


CLASS = """
import sys
from dataflow.graph.code import code_digest

class Settings:
    limit = 3

    def apply(self, x):
        return x + self.limit

def f(x):
    return Settings().apply(x)

print(code_digest(f), code_digest(lambda x: x in {"one", "two", "three", "four", b"five", 6}))
"""


def test_classes_of_a_script_and_other_processes(tmp_path: Path) -> None:
    def run(text: str, seed: int) -> list[str]:
        script = tmp_path / "script.py"
        script.write_text(text)
        environment = os.environ | {"PYTHONHASHSEED": str(seed)}
        done = subprocess.run(
            [sys.executable, str(script)],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout.split()

    first = run(CLASS, 1)
    assert run(CLASS.replace("limit = 3", "limit = 3  # at most"), 2) == first
    assert run(CLASS.replace("limit = 3", "limit = 4"), 1)[0] != first[0]


HELPER = """
FACTOR = 2
def other(x):
    return x
def inner(x):
    return x * FACTOR
def scale(x):
    return inner(x)
class Gain:
    def __init__(self, by):
        self.by = by
        self.like = [self]
    def apply(self, x):
        return x * self.by + FACTOR
gain = Gain(5)
steps = {"gain": [gain.apply], "kinds": {Gain, len}}
"""
USES = """
import sys
import helper
from helper import Gain, gain, scale, steps
from dataflow.graph.code import code_digest

def by_module(x): return helper.scale(x)
def by_name(x): return scale(x)
def by_class(x): return Gain(1).apply(x)
def by_instance(x): return gain.apply(x)
def by_container(x): return steps["gain"][0](x)

print(*map(code_digest, (by_module, by_name, by_class, by_instance, by_container)))
"""


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("FACTOR = 2", "FACTOR = 3", "11111"),
        ("x * FACTOR", "x / FACTOR", "11000"),
        ("x * self.by", "x / self.by", "00111"),
        ("Gain(5)", "Gain(6)", "00011"),
        ("return x\n", "return -x\n", "00000"),
        ("def inner(x):", "def inner(x):  # a comment", "00000"),
    ],
)
def test_modules_beside_a_notebook(tmp_path: Path, old: str, new: str, changed: str) -> None:
    def run(text: str, directory: Path, seed: int) -> list[str]:
        directory.mkdir()
        (directory / "helper.py").write_text(text)
        (directory / "script.py").write_text(USES)
        done = subprocess.run(
            [sys.executable, "-B", str(directory / "script.py")],
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout.split()

    assert old in HELPER
    before = run(HELPER, tmp_path / "a", 1)
    after = run(HELPER.replace(old, new), tmp_path / "b", 2)
    assert "".join(str(int(x != y)) for x, y in zip(before, after, strict=True)) == changed


def test_an_operation_has_the_code_of_now(define: Define) -> None:
    text = "N = 2\n@operation(version=version)\ndef f(x):\n    return f.function(x) if x else N\n"
    for version in (None, "1"):
        f = define(text, operation=operation, version=version)
        first = f.operation
        f.function.__globals__["N"] = 3
        second = f.operation
        assert first.code != second.code
        assert (first.version == second.version) == (version == "1")
        f.function.__globals__["N"] = 2
        assert f.operation == first
