"""One participant of a federation: what an agent serves and a session speaks for."""

from __future__ import annotations

from dataflow.participant.participant import Participant

__all__ = ["Participant"]
