"""Search: which datasets answer a description. Pure: facts in, facts out."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fnmatch import translate
from functools import lru_cache
from types import EllipsisType
from typing import Any

from dataflow.datasets import Dataset, Variable

#: Entries are lengths, ``None`` for any length, and at most one ``...`` for any dimensions.
ShapePattern = Sequence[int | EllipsisType | None]
#: ``{"run": "7"}``, ``{"run": None}`` for any value, or just the names; values may be globs.
TagPattern = Mapping[str, str | None] | Collection[str] | str
#: User → that user's tags.
UserTags = Mapping[str, Mapping[str, str]]

_NOBODY: UserTags = {}


def matches(
    dataset: Dataset,
    *,
    tags: TagPattern | None = None,
    owner: str | None = None,
    name: str | None = None,
    kind: str | None = None,
    shape: ShapePattern | None = None,
    dims: Sequence[str] | None = None,
    dtype: str | None = None,
    site: str | None = None,
    text: str | None = None,
    user_tags: UserTags = _NOBODY,
    copies_at: Collection[str] = (),
) -> bool:
    """Whether a dataset has everything that is asked for; what is ``None`` is not asked.

    Parameters
    ----------
    dataset
        The candidate.
    tags
        All must be there, each given by the owner or by any user.
    owner, kind, site
        Exact; ``site`` means the site of the record or of any copy.
    name
        Exact, or a glob such as ``"run*"``; capitals count.
    shape, dims, dtype
        One and the same variable must have all three. ``(None, 3)`` is two dimensions with three
        columns, ``(..., 3)`` any number with three columns; ``dtype`` may be a glob (``"float*"``)
        or any spelling NumPy knows.
    text
        Somewhere in name, id, owner, operation or tags; capitals do not count.
    user_tags
        Tags that users gave to the same data.
    copies_at
        Sites that hold a copy.

    Examples
    --------
    >>> from dataflow.datasets import Extent
    >>> run = Dataset(id="1", name="run1", key="k", kind="array", site="uva",
    ...               extent=Extent(nbytes=8), tags={"system": "adk"})
    >>> matches(run, tags={"system": "adk"}, name="run*")
    True
    >>> matches(run, tags={"system": "adk"}, site="amc")
    False
    """
    return (
        (owner is None or dataset.owner == owner)
        and (kind is None or dataset.kind == kind)
        and (site is None or dataset.site == site or site in copies_at)
        and (name is None or like(dataset.name, name))
        and (tags is None or _has_tags(tags, [dataset.tags, *user_tags.values()]))
        and _some_variable(dataset.extent.variables, shape, dims, dtype)
        and (text is None or text.casefold() in _prose(dataset, user_tags))
    )


def search(
    datasets: Iterable[Dataset],
    *,
    tags_of: Callable[[Dataset], UserTags] | None = None,
    copies_of: Callable[[Dataset], Collection[str]] | None = None,
    **asked: Any,
) -> list[Dataset]:
    """Those that match, sorted by name, then site, then id.

    Takes what :func:`matches` takes; the two functions give the tags of users and the sites with
    a copy where those are known.
    """
    no_tags: UserTags = {}
    found = [
        dataset
        for dataset in datasets
        if matches(
            dataset,
            user_tags=tags_of(dataset) if tags_of else no_tags,
            copies_at=copies_of(dataset) if copies_of else (),
            **asked,
        )
    ]
    return sorted(found, key=order)


def order(dataset: Dataset) -> tuple[str, str, str]:
    """Sort key of every listing: name, then site, then id."""
    return dataset.name, dataset.site, dataset.id


def like(value: str, pattern: str) -> bool:
    """Whether ``value`` is ``pattern``, or fits it as a glob; capitals count."""
    return value == pattern or _glob(pattern).match(value) is not None


@lru_cache(maxsize=512)
def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))


def tag_pattern(tags: TagPattern) -> Mapping[str, str | None]:
    """The one form of a tag pattern: name → value, glob, or ``None`` for any."""
    if isinstance(tags, Mapping):
        return tags
    return dict.fromkeys([tags] if isinstance(tags, str) else tags)


def _has_tags(asked: TagPattern, given: Sequence[Mapping[str, str]]) -> bool:
    return all(
        any(name in tags and (value is None or like(tags[name], str(value))) for tags in given)
        for name, value in tag_pattern(asked).items()
    )


def _some_variable(
    variables: Sequence[Variable],
    shape: ShapePattern | None,
    dims: Sequence[str] | None,
    dtype: str | None,
) -> bool:
    if shape is None and dims is None and dtype is None:
        return True
    return any(
        (shape is None or _fits(variable.shape, tuple(shape)))
        and (dims is None or variable.dims == tuple(dims))
        and (dtype is None or _same_type(variable.dtype, dtype))
        for variable in variables
    )


def _fits(shape: tuple[int, ...], pattern: tuple[int | EllipsisType | None, ...]) -> bool:
    if ... in pattern:
        at = pattern.index(...)
        head, tail = pattern[:at], pattern[at + 1 :]
        if ... in tail:
            raise ValueError("a shape pattern may hold one '...' only")
        if len(shape) < len(head) + len(tail):
            return False
        return _fits(shape[:at], head) and _fits(shape[len(shape) - len(tail) :], tail)
    return len(shape) == len(pattern) and all(
        asked is None or length == asked for length, asked in zip(shape, pattern, strict=True)
    )


def _same_type(dtype: str, asked: str) -> bool:
    return like(dtype, asked) or like(_type_name(dtype), asked) or _type_name(asked) == dtype


@lru_cache(maxsize=512)
def _type_name(dtype: str) -> str:
    """NumPy's own name of a type, so that ``<f8`` and ``float64`` are one; else the text."""
    import numpy as np

    try:
        return np.dtype(dtype).name
    except (TypeError, ValueError, SyntaxError):
        return dtype


def _prose(dataset: Dataset, user_tags: UserTags) -> str:
    words = [dataset.name, dataset.id, dataset.owner]
    if dataset.lineage is not None:
        words.append(dataset.lineage.operation)
    for tags in (dataset.tags, *user_tags.values()):
        words.extend(word for pair in tags.items() for word in pair)
    return "\n".join(words).casefold()
