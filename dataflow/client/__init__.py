"""Other sites' agents, reached over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataflow.client.agent_client import AgentClient, AgentSource

__all__ = ["AgentClient", "AgentSource"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module("dataflow.client.agent_client"), name)
    globals()[name] = value
    return value
