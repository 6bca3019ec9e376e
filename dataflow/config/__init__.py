"""Site files (YAML) and settings (environment, dask.config) as typed, frozen records.

`site_file` reads who is in the federation, `settings` how this process behaves. Configuration is
read at the edge and passed on as values: nothing that decides reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataflow.config.records import (
        Backend,
        Federation,
        Listen,
        PeerAddress,
        Registration,
    )
    from dataflow.config.settings import Settings, read_settings, state_directory
    from dataflow.config.site_file import load_schema, parse_site_file, read_site_file

__all__ = [
    "Backend",
    "Federation",
    "Listen",
    "PeerAddress",
    "Registration",
    "Settings",
    "load_schema",
    "parse_site_file",
    "read_settings",
    "read_site_file",
    "state_directory",
]

_LAZY = {
    "Backend": "records",
    "Federation": "records",
    "Listen": "records",
    "PeerAddress": "records",
    "Registration": "records",
    "Settings": "settings",
    "load_schema": "site_file",
    "parse_site_file": "site_file",
    "read_settings": "settings",
    "read_site_file": "site_file",
    "state_directory": "settings",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
