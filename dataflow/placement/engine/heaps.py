"""Heaps in arrays: the least (key, number) first. Many heaps share two arrays, each at its base."""

from __future__ import annotations

from typing import Any

from dataflow.placement.engine.compiled import kernel


@kernel
def push(keys: Any, names: Any, base: int, count: int, key: float, name: int) -> int:
    """Add one; the new count."""
    at = count
    while at > 0:
        above = (at - 1) >> 1
        other = keys[base + above]
        if other < key or (other == key and names[base + above] <= name):
            break
        keys[base + at] = other
        names[base + at] = names[base + above]
        at = above
    keys[base + at] = key
    names[base + at] = name
    return count + 1


@kernel
def pop(keys: Any, names: Any, base: int, count: int) -> int:
    """Remove the least, which the caller has read at ``base``; the new count."""
    count -= 1
    if count == 0:
        return 0
    key = keys[base + count]
    name = names[base + count]
    at = 0
    while True:
        below = 2 * at + 1
        if below >= count:
            break
        right = below + 1
        if right < count and (
            keys[base + right] < keys[base + below]
            or (
                keys[base + right] == keys[base + below]
                and names[base + right] < names[base + below]
            )
        ):
            below = right
        other = keys[base + below]
        if key < other or (key == other and name <= names[base + below]):
            break
        keys[base + at] = other
        names[base + at] = names[base + below]
        at = below
    keys[base + at] = key
    names[base + at] = name
    return count


@kernel
def sink(keys: Any, base: int, count: int, key: float) -> None:
    """Replace the least of a heap without names."""
    at = 0
    while True:
        below = 2 * at + 1
        if below >= count:
            break
        if below + 1 < count and keys[base + below + 1] < keys[base + below]:
            below += 1
        if key <= keys[base + below]:
            break
        keys[base + at] = keys[base + below]
        at = below
    keys[base + at] = key
