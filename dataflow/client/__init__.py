"""Other sites' agents, reached over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataflow._lazy import lazy

if TYPE_CHECKING:
    from dataflow.client.agent_client import AgentClient, AgentSource

__all__ = ["AgentClient", "AgentSource"]

__getattr__, __dir__ = lazy(__name__, dict.fromkeys(__all__, "agent_client"))
