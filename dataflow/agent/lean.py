"""Lean: what libraries would load for nothing, left out while they are imported.

Whoever connects waits for the imports of the agent that is started for them: every tenth counts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: Loaded, if they are there, by structlog for a coloured console, and by FastAPI to tell whoever
#: declares a model of the old kind that it may not. An agent has neither.
UNUSED = ("rich", "pydantic.v1")


@contextmanager
def without(*names: str) -> Iterator[None]:
    """While this holds, modules that are not loaded yet are as if they were not installed."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
