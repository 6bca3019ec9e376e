"""Errors: every class arrives whole, by pickle and as a document, and says what happened."""

from __future__ import annotations

import inspect
import json
import pickle
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from dataflow import errors
from dataflow.errors import (
    AmbiguousDataset,
    ConfigError,
    DataflowError,
    JobCancelled,
    NoAllowedSite,
    OperationFailed,
    PolicyError,
    ShapeMismatch,
    SiteError,
    SiteRefused,
    StorageError,
    TransferFailed,
    UnknownDataset,
    UnknownJob,
    from_document,
    to_document,
)


def classes(root: type[DataflowError] = DataflowError) -> Iterator[type[DataflowError]]:
    """The tree, in the order in which it is drawn."""
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from classes(child)


EVERY = list(classes())


def sample(cls: type[DataflowError], *, full: bool = True) -> DataflowError:
    """An error of this class, with arguments made up from its signature."""
    if cls.__init__ is DataflowError.__init__:
        return cls("one", "two", "three", "four") if full else cls()
    hints = typing.get_type_hints(cls.__init__)
    values = [
        value(hints[name], name)
        for name, parameter in inspect.signature(cls).parameters.items()
        if full or parameter.default is parameter.empty
    ]
    return cls(*values)


def value(hint: Any, name: str) -> Any:
    if hint in (str, int, float):
        return {str: f"<{name}>", int: 17, float: 0.25}[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Sequence:
        return [value(arguments[0], f"{name}-{n}") for n in range(2)]
    if origin is Mapping:
        return {f"{name}-{n}": value(arguments[1], f"{name}-{n}") for n in range(2)}
    raise NotImplementedError(f"say here what {name}: {hint} may be")


def contents(error: DataflowError) -> tuple[Any, ...]:
    return type(error), error.args, str(error), vars(error)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_every_error_arrives_whole(cls: type[DataflowError], full: bool) -> None:
    error = sample(cls, full=full)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert contents(pickle.loads(pickle.dumps(error, protocol))) == contents(error)
    document = json.loads(json.dumps(to_document(error)))
    assert document["kind"] == cls.kind
    assert contents(from_document(document)) == contents(error)
    assert to_document(from_document(document)) == to_document(error)


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_every_error_says_all_it_knows(cls: type[DataflowError]) -> None:
    error = sample(cls)
    text = str(error)
    assert not re.search(r"[{}]", text), text
    assert "\n\n" not in text
    named = [error.args] if cls.__init__ is DataflowError.__init__ else vars(error).values()
    for part in flat(named):
        assert part in text, f"{part} is not said in {text!r}"
    assert len(str(sample(cls, full=False))) > 5 or cls.__init__ is DataflowError.__init__


def flat(part: Any) -> Iterator[str]:
    if isinstance(part, Mapping):
        yield from flat([*part.keys(), *part.values()])
    elif isinstance(part, str):
        yield part
    elif isinstance(part, int | float):
        yield f"{part:g}"
    else:
        for item in part:
            yield from flat(item)


def test_kinds_are_distinct() -> None:
    assert len({cls.kind for cls in EVERY}) == len(EVERY)
    assert all("kind" in vars(cls) for cls in EVERY), "each says its own"


def test_the_tree_in_the_text_is_the_tree() -> None:
    drawn: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ([│├└─ ]*)([A-Z]\w+)(?=  |$)", line)
        if found:
            drawn.append((len(found[1]) // 4, found[2]))
    depth = [
        (len([c for c in cls.__mro__ if issubclass(c, DataflowError)]) - 1, cls.__name__)
        for cls in EVERY
    ]
    assert drawn == depth


def test_builtin_relatives() -> None:
    """Programs that know nothing of this package catch what they always caught."""
    for cls in EVERY:
        assert issubclass(cls, Exception)
    assert issubclass(UnknownDataset, KeyError)
    assert issubclass(ConfigError, ValueError)
    assert issubclass(PolicyError, PermissionError)
    assert issubclass(StorageError, OSError)
    assert issubclass(SiteError, ConnectionError)


def test_errors_of_the_system_take_nothing_apart() -> None:
    for cls in (StorageError, SiteError, PolicyError):
        error = cls("a", "b", "c", "d")
        assert (error.args, str(error), error.errno) == (("a", "b", "c", "d"), "a b c d", None)
    lost = TransferFailed("run1", "ams", "uva", "no space")
    assert lost.args == ("run1", "ams", "uva", "no space")
    assert str(lost) == "run1 did not get from ams to uva: no space"
    assert SiteRefused("ams", "no").errno is None


def test_an_error_of_a_newer_site() -> None:
    error = from_document({"kind": "quota-exceeded", "args": ["ams", 17]})
    assert type(error) is DataflowError
    assert str(error) == "quota-exceeded: ams 17"
    assert str(from_document({"kind": "quota-exceeded"})) == "quota-exceeded: "
    assert isinstance(from_document({}), DataflowError)


@pytest.mark.parametrize(
    "document",
    [
        {"kind": "site-refused", "args": ["ams"]},
        {"kind": "site-refused", "args": ["ams", "no", "and", "more"]},
        {"kind": "shape-mismatch", "args": ["f", 3]},
        {"kind": "job-timed-out", "args": ["j1", "long"]},
        {"kind": "ambiguous-dataset", "args": ["run1", []]},
        {"kind": "unknown-dataset", "args": ["run1", 3]},
    ],
)
def test_arguments_of_another_version(document: dict[str, Any]) -> None:
    error = from_document(document)
    assert type(error) is DataflowError
    assert str(error).startswith(f"{document['kind']}: ")
    assert str(document["args"][0]) in str(error)


def test_errors_of_others_keep_their_name_and_text() -> None:
    document = to_document(ZeroDivisionError("division by zero"))
    assert document == {"kind": "dataflow", "args": ["ZeroDivisionError: division by zero"]}
    assert str(from_document(document)) == "ZeroDivisionError: division by zero"


def test_subclasses_of_elsewhere_are_known_too() -> None:
    class Special(SiteError):
        kind = "special-of-this-test"

    assert type(from_document(to_document(Special("x")))) is Special


def test_texts() -> None:
    assert str(ConfigError("wrong", "sites.yaml", "sites.ams", 3)) == (
        "sites.yaml:3: sites.ams: wrong"
    )
    assert str(ConfigError("wrong")) == "wrong"
    assert str(ConfigError("wrong", "sites.yaml")) == "sites.yaml: wrong"
    assert str(UnknownDataset("rum1", ["run1", "run2"])).startswith(
        "unknown dataset 'rum1'; did you mean 'run1', 'run2'?\nWhat you can do: "
    )
    assert "did you mean" not in str(UnknownDataset("rum1"))
    assert "session['ams/run1']" in str(AmbiguousDataset("run1", ["ams/run1", "uva/run1"]))
    assert "a has (2, 3), b has (3,)" in str(ShapeMismatch("f", {"a": [2, 3], "b": [3]}))
    assert str(NoAllowedSite("f", {})) == "no site may run 'f':\n  - there are no sites"
    assert str(NoAllowedSite("f", {"ams": "the owner said no"})) == (
        "no site may run 'f':\n  - ams: the owner said no"
    )
    failed = OperationFailed("f", "ams", "ValueError: x", "Traceback\n  here\n\n")
    assert str(failed) == "operation 'f' failed at 'ams': ValueError: x\nTraceback\n  here"
    assert str(JobCancelled("j1")) == "job j1 was cancelled"
    assert str(UnknownJob("j1", ["ams", "uva"])) == "unknown job 'j1' (asked: ams, uva)"
