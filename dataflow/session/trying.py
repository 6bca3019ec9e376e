"""Trying: what the owners and the rules would say to a request, without planning or sending it."""

from __future__ import annotations

import time
from collections.abc import Mapping

from dataflow.catalog.snapshot import Snapshot
from dataflow.errors import NotGranted
from dataflow.graph.graph import Graph
from dataflow.participant.owners import Asking, ask_owners
from dataflow.policy.archetype import Wish
from dataflow.policy.scope import Scope, scope_of
from dataflow.policy.table import Verdicts


def verdicts(
    graph: Graph,
    snapshot: Snapshot,
    *,
    user: str,
    request: str = "",
    purpose: str = "",
    archetype: str = "",
    scope: Scope | str | Mapping[str, str] | None = None,
) -> Verdicts:
    """Who may run what, where, by what is known now; a refusal is an answer, not an error."""
    asking = Asking(
        user=user,
        type=request,
        purpose=purpose,
        wish=Wish(archetype=archetype),
        time=time.time(),
    )
    try:
        answer = ask_owners(graph, snapshot, asking, scope=scope_of(scope), excluded={})
    except NotGranted as refused:
        return Verdicts({}, missing=refused.refusals)
    labels: dict[str, str] = {}
    for key, step in answer.graph.steps.items():
        taken = step.label in labels.values()
        labels[key] = f"{step.label} {key[:6]}" if taken else step.label
    return Verdicts(
        {label: answer.verdicts[key] for key, label in labels.items()},
        missing=answer.missing,
        notes=answer.notes,
    )
