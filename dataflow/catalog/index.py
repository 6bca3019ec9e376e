"""Index: which datasets can answer a description at all, without a look at each of a million. Pure.

Each index is made when it is first asked for, by one pass over the datasets. What comes out is a
superset: whether a dataset fits is still for :func:`dataflow.catalog.search.matches` to say.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from dataflow.catalog.search import tag_pattern
from dataflow.datasets import Dataset, Replica

#: What makes a glob of a text.
_GLOB = "*?["

Positions = Sequence[int]


class Index:
    """Positions of datasets by what descriptions name.

    Parameters
    ----------
    datasets
        Sorted by name.
    replicas
        Copies by key.
    tags
        Key → user → tags that users gave.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        replicas: Mapping[str, Sequence[Replica]],
        tags: Mapping[str, Mapping[str, Mapping[str, str]]],
    ) -> None:
        self._datasets, self._replicas, self._tags = datasets, replicas, tags
        self._by_tag: dict[str, Mapping[str | None, Positions]] = {}

    def candidates(
        self,
        *,
        name: str | None = None,
        tags: Any = None,
        owner: str | None = None,
        site: str | None = None,
        **others: Any,
    ) -> Sequence[Dataset]:
        """Datasets among which all are that fit, in their order; all, where nothing narrows them."""
        del others
        found: list[Positions] = []
        if name is not None:
            found.append(self._named(name))
        if tags is not None:
            for word, value in tag_pattern(tags).items():
                exact = value is not None and not _is_glob(str(value))
                found.append(self._tagged(word).get(str(value) if exact else None, ()))
        if owner is not None:
            found.append(self._by_owner.get(owner, ()))
        if site is not None:
            found.append(self._by_site.get(site, ()))
        if not found:
            return self._datasets
        return [self._datasets[at] for at in min(found, key=len)]

    def _named(self, name: str) -> range:
        """Those whose names begin as a pattern does before its first sign."""
        head = name[: min((name.index(sign) for sign in _GLOB if sign in name), default=len(name))]
        first = bisect_left(self._datasets, head, key=_name)
        if head == name:
            return range(first, bisect_right(self._datasets, head, lo=first, key=_name))
        length = len(head)
        return range(
            first, bisect_right(self._datasets, head, lo=first, key=lambda d: d.name[:length])
        )

    @cached_property
    def _by_owner(self) -> Mapping[str, Positions]:
        found: dict[str, list[int]] = defaultdict(list)
        for at, dataset in enumerate(self._datasets):
            found[dataset.owner].append(at)
        return dict(found)

    @cached_property
    def _by_site(self) -> Mapping[str, Positions]:
        found: dict[str, list[int]] = defaultdict(list)
        for at, dataset in enumerate(self._datasets):
            copies = self._replicas.get(dataset.key, ())
            for site in {dataset.site, *(copy.site for copy in copies)}:
                found[site].append(at)
        return dict(found)

    def _tagged(self, name: str) -> Mapping[str | None, Positions]:
        """By value of one tag, and by ``None`` all that have it, whoever gave it."""
        if name not in self._by_tag:
            found: dict[str | None, list[int]] = defaultdict(list)
            for at, dataset in enumerate(self._datasets):
                given = self._tags.get(dataset.key)
                values = {dataset.tags[name]} if name in dataset.tags else set()
                if given:
                    values |= {tags[name] for tags in given.values() if name in tags}
                for value in values:
                    found[value].append(at)
                if values:
                    found[None].append(at)
            self._by_tag[name] = dict(found)
        return self._by_tag[name]


def _name(dataset: Dataset) -> str:
    return dataset.name


def _is_glob(text: str) -> bool:
    return any(sign in text for sign in _GLOB)
