"""An event loop with a clock of its own: hours take no time, and every run does the same."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    """Instead of waiting, moves the clock on; and nothing takes no time at all."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everything waits and nothing will ever happen"
            self.now += max(timeout, 0)
        self.now += 1e-9
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose hours take no time."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run(story: Coroutine[Any, Any, T]) -> T:
    """Run a story on a clock of its own."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(story)
