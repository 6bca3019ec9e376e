"""YAML with line numbers, and complaints that use them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from dataflow.errors import ConfigError

Path = tuple[str | int, ...]

#: A site file is written by hand; more than this is an accident, or an attack by aliases.
_MOST_VALUES = 100_000
_DEEPEST = 50


@dataclass(slots=True)
class Marked:
    """A YAML document: its value, the line of everything in it, and what is wrong with it.

    Complaints are collected, so that a file is mended in one go and not error by error.
    """

    file: str
    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    complaints: list[tuple[int, int, Path, str]] = field(default_factory=list)

    def complain(self, path: Sequence[str | int], message: str, line: int = 0) -> None:
        """Note that something is wrong at a path; its line, or that of what holds it, is added."""
        place = tuple(path)
        line = line or self.line(place)
        self.complaints.append((line, len(self.complaints), place, message))

    def line(self, path: Path) -> int:
        """Line of a value, or of the nearest thing around it that is there."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)

    def check(self) -> None:
        """Raise what was collected: the first as the error, the others in its text.

        Raises
        ------
        ConfigError
            With file, dotted path and line of the first complaint by line.
        """
        if not self.complaints:
            return
        errors = [
            ConfigError(message, self.file, dotted(path), line)
            for line, _, path, message in sorted(self.complaints, key=lambda told: told[:2])
        ]
        first, others = errors[0], dict.fromkeys(str(error) for error in errors[1:])
        also = "".join(f"\nalso {text}" for text in others if text != str(first))
        raise ConfigError(first.message + also, first.file, first.path, first.line) from None


def dotted(path: Sequence[str | int]) -> str:
    """``("stores", 0, "url")`` as ``stores[0].url``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read_marked(text: str, file: str, *, words: Collection[str] = ()) -> Marked:
    """Read YAML text.

    Parameters
    ----------
    text
        The document.
    file
        Its name, for complaints.
    words
        Keys whose values are mappings to plain words: ``{run: 7}`` is read as ``{"run": "7"}``.

    Raises
    ------
    ConfigError
        If it is no YAML, with the line at which that shows. A key that stands twice is a
        complaint only.
    """
    marked = Marked(file)
    try:
        loader = yaml.SafeLoader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"not readable as YAML: {error.reason}", file, "", line) from None
    try:
        root = loader.get_single_node()
        if root is not None:
            marked.value = _Reader(loader, marked, frozenset(words)).value(root, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 0
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"not readable as YAML: {problem}", file, "", line) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"not readable as YAML: {error}", file) from error
    finally:
        loader.dispose()
    return marked


class _Reader:
    def __init__(self, loader: yaml.SafeLoader, marked: Marked, words: frozenset[str]) -> None:
        self._loader, self._marked, self._words = loader, marked, words
        self._count = 0
        self._own: dict[int, set[int]] = {}

    def value(self, node: yaml.Node, path: Path) -> Any:
        self._count += 1
        line = node.start_mark.line + 1
        if self._count > _MOST_VALUES or len(path) > _DEEPEST:
            raise ConfigError("too large or too deep for a site file", self._marked.file, "", line)
        self._marked.lines.setdefault(path, line)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if len(path) > 1 and path[-2] in self._words:
            return node.value
        try:
            return self._loader.construct_object(node, deep=True)
        except yaml.YAMLError:
            raise
        except Exception as error:  # a date with a 13th month, "!!int" of nothing: any kind
            self._marked.complain(path, f"{node.value!r} cannot be read: {error}", line)
            return None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        # What a merge (<<) brings in comes first and gives way to what stands here itself.
        own = self._own.setdefault(id(node), {id(key) for key, _ in node.value})
        self._loader.flatten_mapping(node)
        found: dict[str, Any] = {}
        written: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._marked.complain(path, "a key must be a word", line)
                continue
            key = str(key_node.value)
            place = (*path, key)
            if key in written:
                message = f"stands here again; first in line {written[key]}"
                self._marked.complain(place, message, line)
                continue
            if id(key_node) in own:
                written[key] = line
            self._marked.lines[place] = line
            found[key] = self.value(value_node, place)
        return found


def did_you_mean(word: str, known: Collection[str]) -> str:
    """``"; did you mean 'workers'?"``, or nothing if no known word is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
