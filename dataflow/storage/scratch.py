"""Where the function of a step may put files that it returns; gone when they are stored."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_made_by: ContextVar[Callable[[], Path] | None] = ContextVar("scratch", default=None)


@contextmanager
def drawing_into(make: Callable[[], Path]) -> Iterator[None]:
    """Have :func:`scratch` ask ``make`` for directories, inside the block."""
    before = _made_by.set(make)
    try:
        yield
    finally:
        _made_by.reset(before)


def scratch() -> Path:
    """A fresh directory; outside of a step one in the system's place for temporary files."""
    make = _made_by.get()
    return Path(tempfile.mkdtemp(prefix="dataflow-")) if make is None else make()
