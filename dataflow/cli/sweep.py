"""A sweep: a YAML file that says which notebooks are run with which parameters. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataflow.errors import ConfigError

_KEYS = ("notebook", "output", "engine", "parameters", "sweep", "runs", "parallel")
_RUN_KEYS = ("notebook", "output", "parameters", "sweep")


@dataclass(frozen=True, slots=True, kw_only=True)
class NotebookRun:
    """One notebook with its parameters, and where its output goes."""

    notebook: str
    output: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What a file asks for: runs in their order, the engine of all, how many at a time."""

    runs: tuple[NotebookRun, ...]
    engine: str = "dataflow"
    parallel: int = 2


def sweep_of(document: Any, file: str = "") -> Sweep:
    """A sweep out of the document of its file.

    ``sweep`` has a list of values for each parameter; all combinations are run, the last parameter
    changing fastest. What stands at the top holds for each of ``runs``, unless a run says otherwise.

    Raises
    ------
    ConfigError
        If something is not known, is of another kind, or two runs have the same output.

    Examples
    --------
    >>> found = sweep_of({"notebook": "a.ipynb", "output": "{x}.ipynb", "sweep": {"x": [1, 2]}})
    >>> [run.output for run in found.runs]
    ['1.ipynb', '2.ipynb']
    """
    top = _mapping(document, file, "")
    _known(top, _KEYS, file, "")
    listed = top.get("runs", [{}])
    if not isinstance(listed, list) or not listed:
        raise ConfigError("needs a list of runs", file, "runs")
    runs: list[NotebookRun] = []
    for number, said in enumerate(listed):
        path = f"runs.{number}" if "runs" in top else ""
        one = _mapping(said, file, path)
        _known(one, _RUN_KEYS if path else _KEYS, file, path)
        runs += _expanded(top, one, file, path)
    outputs = [run.output for run in runs]
    twice = next((one for one in outputs if outputs.count(one) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"two runs would write {twice}; name their parameters in it, as in {{dataset}}",
            file,
            "output",
        )
    parallel = top.get("parallel", 2)
    if not isinstance(parallel, int) or isinstance(parallel, bool) or parallel < 1:
        raise ConfigError(f"needs a whole number from 1, not {parallel!r}", file, "parallel")
    return Sweep(
        runs=tuple(runs), engine=_text(top, "engine", file, "", "dataflow"), parallel=parallel
    )


def _expanded(
    top: Mapping[str, Any], one: Mapping[str, Any], file: str, path: str
) -> Iterator[NotebookRun]:
    fixed = {
        **_mapping(top.get("parameters", {}), file, "parameters"),
        **_mapping(one.get("parameters", {}), file, _below(path, "parameters")),
    }
    varied = {
        **_mapping(top.get("sweep", {}), file, "sweep"),
        **_mapping(one.get("sweep", {}), file, _below(path, "sweep")),
    }
    for name, values in varied.items():
        if not isinstance(values, list) or not values:
            raise ConfigError("needs a list of values", file, _below(path, f"sweep.{name}"))
    both = {**top, **one}
    notebook = _text(both, "notebook", file, path)
    pattern = _text(both, "output", file, path, f"out/{Path(notebook).stem}-{{number}}.ipynb")
    for number, values in enumerate(itertools.product(*varied.values())):
        parameters = {**fixed, **dict(zip(varied, values, strict=True))}
        words = {**parameters, "number": number, "notebook": Path(notebook).stem}
        try:
            output = pattern.format(**words)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"{pattern!r} names what is no parameter: {error}", file, _below(path, "output")
            ) from None
        yield NotebookRun(notebook=notebook, output=output, parameters=parameters)


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _mapping(value: Any, file: str, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ConfigError("needs a mapping from names", file, path)
    return value


def _known(said: Mapping[str, Any], known: Sequence[str], file: str, path: str) -> None:
    for name in said:
        if name not in known:
            raise ConfigError(
                f"is not known; known are {', '.join(known)}", file, _below(path, name)
            )


def _text(
    said: Mapping[str, Any], name: str, file: str, path: str, otherwise: str | None = None
) -> str:
    found = said.get(name, otherwise)
    if not isinstance(found, str) or not found:
        raise ConfigError("needs a text", file, _below(path, name))
    return found
