"""Homes: the sites that hold something, and what therefore lies together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

#: Key → the sites that hold it.
Homes = Mapping[str, frozenset[str]]

#: The home of what is made of things at different sites: not known before it is placed.
MIXED: frozenset[str] = frozenset()


def common(homes: Sequence[frozenset[str]]) -> frozenset[str]:
    """Sites that all share; empty for "at different sites"."""
    return frozenset.intersection(*homes) if homes else MIXED


def together(inputs: Sequence[str], homes: Homes, *, adjacent: bool) -> list[list[int]]:
    """Positions of the inputs, grouped by a site that holds all of a group.

    With ``adjacent`` the order of the inputs is kept, as combining need not be commutative.
    """
    groups: list[list[int]] = []
    shared: list[frozenset[str]] = []
    for position, key in enumerate(inputs):
        for number in range(len(groups) - 1 if adjacent and groups else 0, len(groups)):
            both = shared[number] & homes[key]
            same = key in (inputs[i] for i in groups[number])
            if both or same:
                groups[number].append(position)
                shared[number] = both
                break
        else:
            groups.append([position])
            shared.append(homes[key])
    return groups
