"""Submitting: what travels with a plan, and which site keeps the job."""

from __future__ import annotations

from collections.abc import Mapping

from dataflow.errors import (
    DataflowError,
    GraphError,
    PlacementError,
    SiteRefused,
    SiteUnreachable,
)
from dataflow.execution.code import pack
from dataflow.execution.events import JobCreated
from dataflow.graph.code import code_digest
from dataflow.graph.operation import Functions
from dataflow.participant import Participant
from dataflow.placement.plan import Plan


async def submit(
    participant: Participant,
    created: JobCreated,
    payloads: Mapping[str, bytes],
    coordinator: str | None,
) -> None:
    """Hand a job to the first site that takes it; to ``coordinator`` alone, if that is given.

    Raises
    ------
    SiteUnreachable, SiteRefused
        What the last that was asked had to say.
    """
    failed: DataflowError | None = None
    asked = keepers(participant, created.plan, coordinator)
    for site in asked:
        try:
            await participant.hand_over(created, payloads, site, last=site == asked[-1])
            return
        except (SiteUnreachable, SiteRefused) as error:
            failed = error
    raise failed or SiteUnreachable("the federation", "no site answers that could keep the job")


def keepers(participant: Participant, plan: Plan, coordinator: str | None) -> list[str]:
    """Sites that may keep the job, in order."""
    over = {transfer.via for transfer in plan.transfers if transfer.via}
    if coordinator is not None:
        if over - {coordinator}:
            raise PlacementError(
                f"this plan carries copies over {', '.join(sorted(over))}, and has to be kept "
                f"there, not at {coordinator!r}"
            )
        return [coordinator]
    here = participant.federation.me
    used = {part.site for part in plan.segments} | {t.target for t in plan.transfers}
    if here is not None and (here in used or not participant.federation.peers):
        return [here]
    if over:
        return [participant.name]  # over which it goes
    used |= {transfer.source for transfer in plan.transfers}
    only_from_here = {site for site in used if participant.ways.by_ssh(site)}
    topology = participant.topology()
    named = [peer.site for peer in participant.federation.peers if peer.site]
    names = [*named, *(s.name for s in topology.sites if s.name not in named)]
    sites = topology.site_by_name
    gone = topology.away | topology.stores_only
    fit = [n for n in names if n not in gone and n in sites and n != here]
    able = [n for n in fit if sites[n].trust == "lab" and not only_from_here - {n}]
    return able + ([participant.name] if here is not None or only_from_here else [])


class Payloads:
    """The code of a session's operations, packed when it first travels.

    Parameters
    ----------
    functions
        Code digest → functions; looked up when they are packed.
    """

    def __init__(self, functions: Mapping[str, Functions]) -> None:
        self._functions = functions
        self._packed: dict[str, bytes] = {}

    def of(self, plan: Plan) -> dict[str, bytes]:
        """What the steps of a plan need, by code digest; without what is not known here.

        Raises
        ------
        GraphError
            If code is not any more what it was when the graph was built.
        """
        steps = (*plan.steps, *plan.originals)
        codes = {s.operation.code: s.operation.name for s in steps if not s.operation.command}
        for code, name in codes.items():
            found = self._functions.get(code)
            if code in self._packed or found is None:
                continue
            payload = pack(found)
            if code_digest(found.function, found.combine, found.finish) != code:
                raise GraphError(
                    f"the code of {name!r} has changed since the graph was built; build it again"
                )
            self._packed[code] = payload
        return {code: self._packed[code] for code in codes if code in self._packed}
