"""Compiled: which functions run as machine code, and when.

The inner loops are written once, in plain Python over arrays. Numba compiles each when it is first
called, once per machine, and keeps the result beside the sources. Without Numba, when :data:`PLAIN`
is set, or inside of :func:`plainly`, they run as they stand: the same plans, a hundred times
slower, which nobody notices on a graph of twenty steps. Numba itself is not even imported then.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property, update_wrapper
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import Any

#: Environment variable that switches compiling off when it is 1.
VARIABLE = "DATAFLOW_PLACEMENT_PLAIN"
#: Whether the loops run as plain Python, whatever is installed.
PLAIN = os.environ.get(VARIABLE) == "1"

_AS_IT_STANDS: ContextVar[bool] = ContextVar("placement loops as they stand", default=False)


class Loop:
    """An inner loop: as it stands, and as machine code from its first call on."""

    def __init__(self, function: FunctionType) -> None:
        self.plain = function
        update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> Any:
        run = self.plain if PLAIN or _AS_IT_STANDS.get() else self.fast
        return run(*arguments)

    @cached_property
    def fast(self) -> Callable[..., Any]:
        """The loop as machine code; as it stands where there is no Numba."""
        try:
            from numba import njit
        except ImportError:  # the plain loops do the same
            return self.plain
        plain = self.plain
        known = plain.__globals__
        called = {name: known[name] for name in plain.__code__.co_names if name in known}
        loops = {name: one.fast for name, one in called.items() if isinstance(one, Loop)}
        # machine code calls machine code: what stands in the module decides at each call
        function = FunctionType(plain.__code__, {**known, **loops}, plain.__name__)
        found: Callable[..., Any] = njit(cache=True, nogil=True, error_model="numpy")(function)
        return found


def kernel(function: Callable[..., Any]) -> Loop:
    """Compile an inner loop on first use and keep the result for other processes."""
    assert isinstance(function, FunctionType)
    return Loop(function)


def is_plain() -> bool:
    """Whether a loop that is called now runs as it stands."""
    return PLAIN or _AS_IT_STANDS.get()


@contextmanager
def plainly() -> Iterator[None]:
    """Run loops as they stand, in this context: for graphs that are done before Numba is loaded."""
    token = _AS_IT_STANDS.set(True)
    try:
        yield
    finally:
        _AS_IT_STANDS.reset(token)


def has_compiler() -> bool:
    """Whether loops can be compiled here: the extra ``placement`` is installed."""
    return not PLAIN and find_spec("numba") is not None


def is_kept() -> bool:
    """Whether an earlier process has left compiled loops, of these sources, for this one."""
    return has_compiler() and any(mark.exists() for mark in _marks())


def remember() -> None:
    """Note that all loops are compiled, and kept; to be called when all of them have run."""
    if not has_compiler():
        return
    for mark in _marks():
        try:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        except OSError:
            continue  # an installation that is only read: the next place
        return


def _marks() -> list[Path]:
    """Where it is noted, by what compiled loops depend on: their sources, Python, Numba, the machine."""
    here = Path(__file__).parent
    digest = sha256(f"{sys.version} {version('numba')} {platform.machine()}".encode())
    for source in sorted(here.glob("*.py")):
        text = source.read_bytes()
        if b"\n@kernel\n" in text:
            digest.update(text)
    name = f"placement-loops-{digest.hexdigest()[:16]}.kept"
    home = Path(os.environ.get("NUMBA_CACHE_DIR", "~/.cache/numba")).expanduser()
    return [here / "__pycache__" / name, home / name]
