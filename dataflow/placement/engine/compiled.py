"""Compiled: which functions run as machine code, and when.

The inner loops are written once, in plain Python over arrays. Where Numba is installed they are
compiled, once per machine, and kept beside the sources; without it, or when :data:`PLAIN` is set
before the loops are loaded, they run as they stand: the same plans, a hundred times slower, which
nobody notices on a graph of a hundred steps.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Environment variable that switches compiling off when it is 1.
VARIABLE = "DATAFLOW_PLACEMENT_PLAIN"
#: Whether the loops run as plain Python, whatever is installed.
PLAIN = os.environ.get(VARIABLE) == "1"


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile an inner loop on first use and keep the result for other processes."""
    if PLAIN:
        return function
    try:
        from numba import njit
    except ImportError:  # the plain loops do the same
        return function
    compiled: Callable[..., Any] = njit(cache=True, nogil=True, error_model="numpy")(function)
    return compiled


def is_kept() -> bool:
    """Whether earlier processes have left compiled loops, of these sources, for this one."""
    if PLAIN:
        return True
    try:
        import numba  # noqa: F401
    except ImportError:
        return True
    here = Path(__file__).parent
    version = f"py{sys.version_info.major}{sys.version_info.minor}"
    places = [here / "__pycache__", Path(os.environ.get("NUMBA_CACHE_DIR", "~/.cache/numba"))]
    newest = max(source.stat().st_mtime for source in here.glob("*.py"))
    return any(
        kept.stat().st_mtime >= newest
        for place in places
        for kept in place.expanduser().glob(f"**/cuts.gather-*{version}*.nbi")
    )
