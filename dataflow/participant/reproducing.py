"""Reproducing: whether a plan needs a second run, and where; pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from dataflow.catalog.snapshot import Snapshot
from dataflow.datasets import Replica
from dataflow.graph.hiding import SERVICES
from dataflow.participant.owners import Answer
from dataflow.placement.again import run_again
from dataflow.placement.plan import Plan
from dataflow.policy.twice import is_wanted, second_run


def reproduced(
    plan: Plan,
    answer: Answer,
    snapshot: Snapshot,
    replicas: Mapping[str, Sequence[Replica]],
    excluded: Mapping[str, str],
    *,
    compared: Collection[str] = (),
) -> Plan:
    """The plan, with a second run if an owner wants one.

    Parameters
    ----------
    compared
        Results that this job has compared already.

    Raises
    ------
    NotGranted
        If no site may do it, with each one's reason.
    """
    if not is_wanted(answer.rights):
        return plan
    outputs = [
        key
        for key in plan.outputs
        if key in plan.step_by_key and key not in compared and not _known_equal(snapshot, key)
    ]
    if not outputs:
        return plan
    installed = {
        site.name: frozenset((*site.operations, *SERVICES)) for site in snapshot.topology.sites
    }
    first = sorted({made.reused.site if made.reused else made.site for made in plan.assignments})
    second = second_run(
        plan.steps,
        outputs,
        answer.rights,
        answer.given,
        snapshot.topology,
        first=first,
        excluded=excluded,
        installed=installed,
    )
    return run_again(plan, second, outputs, topology=snapshot.topology, replicas=replicas)


def _known_equal(snapshot: Snapshot, key: str) -> bool:
    """Whether a result was made twice already, and came to the same."""
    lineages = [dataset.lineage for dataset in snapshot.with_key(key)]
    return any(x is not None and x.reproduced is not None and x.reproduced.equal for x in lineages)
