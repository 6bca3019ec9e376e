"""Verifying: whether a result is still what was stored, and whether the same work gives it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dataflow import _html
from dataflow._quantities import format_bytes
from dataflow.datasets import Dataset, Replica
from dataflow.errors import PlacementError, UnknownDataset
from dataflow.execution.compare_run import differing
from dataflow.execution.events import Errand, Stored, UnitReported
from dataflow.graph.graph import Graph
from dataflow.participant.owners import asked_again
from dataflow.placement.plan import Plan
from dataflow.storage.verify import Checked, chunk_of, verify

if TYPE_CHECKING:
    from dataflow.session.session import Session

Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Recomputed:
    """What a second run of the same work came to.

    Attributes
    ----------
    job, site
        The run, and where its result is now.
    differs
        Paths of the files that are not the same in both.
    reused
        Labels of steps that it took from what was stored, and did not compute.
    """

    job: str
    site: str
    differs: tuple[str, ...] = ()
    reused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Verified:
    """What was found of one copy of a result; true if all of it holds.

    Attributes
    ----------
    name, key, site, url
        Which copy was read.
    checked
        Its files beside the digests that were noted when they were written.
    recomputed
        What the same work came to elsewhere, if that was asked for.
    """

    name: str
    key: str
    site: str
    url: str
    checked: Checked
    recomputed: Recomputed | None = None

    def __bool__(self) -> bool:
        found, again = self.checked, self.recomputed
        return not (found.wrong or found.bare) and (again is None or not again.differs)

    def reasons(self) -> tuple[str, ...]:
        """Everything that does not hold, one line each."""
        lines = [str(one) for one in self.checked.wrong]
        lines += [f"{chunk_of(path)}: nobody noted a digest of it" for path in self.checked.bare]
        if self.recomputed is not None:
            where = self.recomputed.site
            lines += [f"{chunk_of(p)}: not the same at {where}" for p in self.recomputed.differs]
        return tuple(lines)

    def __repr__(self) -> str:
        found, again = self.checked, self.recomputed
        said = "holds" if self else f"{len(self.reasons())} differ: {self.reasons()[0]}"
        read = f"{found.files} files, {format_bytes(found.nbytes)}"
        second = f"; computed again at {again.site}" if again is not None else ""
        return f"<Verified {self.name} at {self.site}: {said}; {read}{second}>"

    def _repr_html_(self) -> str:
        return _html.block(repr(self).strip("<>"), _html.listing(self.reasons())).text


def verified(
    session: Session,
    what: str | Dataset,
    *,
    site: str | None = None,
    recompute: bool = False,
    told: Told = lambda done, total: None,
) -> Verified:
    """See :meth:`Session.verify`."""
    participant = session.participant
    dataset = session._record(what)
    copy = _copy(session, dataset, site)
    errand = Errand(user=session.user)
    source = participant.source_of(copy, errand)
    found = Verified(
        name=dataset.name,
        key=dataset.key,
        site=copy.site,
        url=copy.url,
        checked=session._run(verify(source, copy, told=told)),
    )
    if not recompute or found.checked.wrong:
        return found
    plan = plan_elsewhere(session, dataset)
    job = session.submit(plan, tags={"verifies": dataset.key[:12]}, attach=False)
    job.result()
    stored = [
        event.report
        for event in job.events()
        if isinstance(event, UnitReported) and isinstance(event.report, Stored)
    ]
    made = next(one for one in stored if one.key == dataset.key and one.replica.site != copy.site)
    second = participant.source_of(made.replica, errand)
    said = Recomputed(
        job=job.id,
        site=made.replica.site,
        differs=tuple(session._run(differing(source, second))),
        reused=tuple(plan.label(one.key) for one in stored if one.reused),
    )
    return replace(found, recomputed=said)


def _copy(session: Session, dataset: Dataset, site: str | None) -> Replica:
    """The copy to be read: at a site, or the one that costs least to read."""
    snapshot, participant = session._snapshot(), session.participant
    copies = [
        copy for copy in snapshot.replicas_of(dataset.key) if site is None or copy.site == site
    ]
    if not copies:
        where = f" at {site}" if site is not None else ""
        raise UnknownDataset(f"{dataset.name}{where}: there is no copy")
    away = participant.topology().away
    return min(copies, key=lambda c: (participant.store_of(c) is None, c.site in away, c.site))


def plan_elsewhere(session: Session, dataset: Dataset) -> Plan:
    """The work that made a result, planned for a site that has none of it yet.

    Raises
    ------
    PlacementError
        If it is no result, or there is no other site that could do it.
    """
    if dataset.lineage is None or not dataset.lineage.job:
        raise PlacementError(f"{dataset.name} was registered; there is nothing to compute again")
    before = session.job(dataset.lineage.job).plan
    graph = made_by(before, dataset.key)
    topology, snapshot = session.topology(), session._snapshot()
    have = {copy.site for key in graph.steps for copy in snapshot.replicas_of(key)}
    gone = topology.away | topology.stores_only
    failed = PlacementError(
        f"every site that could compute {dataset.name} again has it already. What you can do: "
        "join another site that may read its inputs"
    )
    for site in topology.sites:
        if site.name in have | gone or not site.workers:
            continue
        try:
            return session.participant.plan(
                graph,
                reuse=False,
                result_at=site.name,
                pinned={step.label: site.name for step in graph.steps.values()},
                asking=asked_again(before.request, session.user, 0.0),
            )
        except PlacementError as error:
            failed = error
    raise failed


def made_by(plan: Plan, key: str) -> Graph:
    """The part of a plan's graph that one of its results needs.

    Raises
    ------
    PlacementError
        If the plan does not make it.
    """
    from dataflow.placement.make import graph_of  # NumPy comes with it: not for who only connects

    term = graph_of(plan).terms_by_key.get(key)
    if term is None or term.step is None:
        raise PlacementError(f"plan {plan.id} makes nothing with the key {key}")
    return Graph([term])
