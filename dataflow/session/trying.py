"""Trying: what the owners and the rules would say to a request, without planning or sending it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from dataflow.catalog.snapshot import Snapshot
from dataflow.datasets import Dataset
from dataflow.errors import NotGranted
from dataflow.graph.graph import Graph
from dataflow.participant.owners import Asking, ask_owners
from dataflow.policy.archetype import SHIPPED, Wish
from dataflow.policy.offers import Offer, offers
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


def offered(snapshot: Snapshot, *, user: str, **asked: Any) -> list[Offer]:
    """What owners let a user do with the datasets that ``asked`` finds, by what is known now."""
    by_site: dict[str, list[Dataset]] = defaultdict(list)
    site = asked.get("site")
    for dataset in snapshot.records(**asked):
        if dataset.lineage is not None or site not in (None, dataset.site):
            continue  # results are nobody's offer, and a copy elsewhere is not the owner's
        by_site[dataset.site].append(dataset)
    now = time.time()
    return [
        offer
        for site, found in sorted(by_site.items())
        for offer in offers(
            [agreement for agreement in snapshot.agreements if agreement.site == site],
            found,
            user,
            now,
            archetypes=[*SHIPPED, *(one.name for one in snapshot.archetypes.get(site, ()))],
        )
    ]
