"""Chance: the same numbers from the same seed, compiled or not."""

from __future__ import annotations

from typing import Any

from dataflow.placement.engine.compiled import kernel


@kernel
def draw(state: Any) -> float:
    """The next number from 0 to below 1; ``state`` is an array of one whole number from 1 on."""
    state[0] = (state[0] * 48271) % 2147483647
    return float(state[0] - 1) / 2147483646.0


@kernel
def below(state: Any, end: int) -> int:
    """The next whole number from 0 to below ``end``."""
    return min(end - 1, int(draw(state) * end))
