"""Names that a package shows and loads on first use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module

Lookup = Callable[[str], object]
Listing = Callable[[], list[str]]


def lazy(package: str, modules: Mapping[str, str]) -> tuple[Lookup, Listing]:
    """A package's ``__getattr__`` and ``__dir__``.

    Parameters
    ----------
    package
        The package's ``__name__``.
    modules
        Public name → module below the package that defines it.
    """

    def lookup(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)  # from now on it is found without us
        return value

    def listing() -> list[str]:
        names = vars(sys.modules[package])
        return sorted({*names, *names["__all__"]})

    return lookup, listing
