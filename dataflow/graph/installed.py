"""Whether a module is installed: found by name at a site, as here, or has to travel by value."""

from __future__ import annotations

import functools
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

_INSTALLED = frozenset({"site-packages", "dist-packages"})


def is_installed(name: str) -> bool:
    """Whether a site can be expected to have this module, by the package that it is in."""
    top = name.partition(".")[0]
    if top in sys.modules and _places(sys.modules[top]):
        return _top_is_installed(top, _places(sys.modules[top])[0])
    return _found_installed(name, top)


@functools.lru_cache(maxsize=4096)
def _top_is_installed(top: str, place: str) -> bool:
    """The same for a package; ``place`` is where it lies, should another take its name."""
    return _found_installed(top, top)


def _found_installed(name: str, top: str) -> bool:
    if top == "dataflow" or top in sys.stdlib_module_names:
        return True
    if top == "__main__":
        return False
    places = _places(sys.modules.get(top)) or _places(sys.modules.get(name))
    # A module that is nowhere was made by some library as it went along.
    return not places or any(_below_installed(place) for place in places)


def _places(module: ModuleType | None) -> list[str]:
    """Where a module lies: its file, or the directories of a package without one."""
    file = getattr(module, "__file__", None)
    if file:
        return [str(file)]
    try:
        return [str(path) for path in getattr(module, "__path__", ())]
    except (AttributeError, KeyError):  # a namespace package whose parent is gone
        return []


def _below_installed(place: str) -> bool:
    path = Path(place)
    return not _INSTALLED.isdisjoint(path.parts) or any(path.is_relative_to(r) for r in _roots())


@functools.cache
def _roots() -> tuple[str, ...]:
    found = (sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib"))
    return tuple(root for root in found if root is not None)
