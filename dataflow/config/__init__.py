"""Site files (YAML) and settings (environment, dask.config) as typed, frozen records.

`site_file` reads who is in the federation, `settings` how this process behaves. Configuration is
read at the edge and passed on as values: nothing that decides reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataflow._lazy import lazy

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

__getattr__, __dir__ = lazy(
    __name__,
    {
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
    },
)
