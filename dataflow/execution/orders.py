"""Orders: what must be under way in a job now, and what its sites are told to do. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dataflow.datasets import Dataset, Replica
from dataflow.execution.events import (
    CompareOrder,
    Order,
    ReleaseOrder,
    SegmentOrder,
    TransferOrder,
)
from dataflow.execution.state import JobState
from dataflow.execution.units import attempt_wanted, copy_of, inputs_of
from dataflow.graph.operation import Step
from dataflow.placement.plan import Plan


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the driver must have under way: units by name with their attempt, or a new plan."""

    units: Mapping[str, int] = field(default_factory=dict)
    replan: bool = False


def wanted(state: JobState) -> Wanted:
    """What must be running now; everything else of this job must not."""
    if state.over or state.status in ("created", "queued"):
        return Wanted()
    attempts = {name: attempt_wanted(state, name) for name in state.units}
    return Wanted({name: n for name, n in attempts.items() if n}, replan=bool(state.replan))


def order_id(state: JobState, unit: str, attempt: int) -> str:
    """Identity of an order: the same after every restart of the coordinator."""
    return f"{state.job}:{unit}:{attempt}"


def order_of(
    state: JobState, name: str, attempt: int, datasets: Mapping[str, Dataset] | None = None
) -> Order:
    """The order that makes a site run a unit.

    Parameters
    ----------
    datasets
        Records of results of earlier jobs that the plan reads, as the catalog has them.
    """
    plan = state.plan
    if name in plan.release_by_id:
        return _release(state, name, attempt)
    if name in plan.comparison_by_id:
        return _comparison(state, name, attempt)
    inputs = inputs_of(state, name)
    known = {key: _dataset(state, key, replica, datasets or {}) for key, replica in inputs.items()}
    unit = plan.segment_by_id.get(name)
    if unit is None:
        transfer = plan.transfer_by_id[name]
        return TransferOrder(
            id=order_id(state, name, attempt),
            job=state.job,
            site=transfer.at or transfer.target,
            key=transfer.key,
            replica=inputs[transfer.key],
            dataset=known[transfer.key],
            relayed=bool(transfer.via) and not transfer.at,
            target=transfer.target if transfer.at else "",
            clean=transfer.clean,
            user=state.user,
            request=plan.request,
        )
    steps = tuple(plan.step_by_key[key] for key in unit.steps)
    return SegmentOrder(
        id=order_id(state, name, attempt),
        job=state.job,
        plan=plan.id,
        site=unit.site,
        steps=steps,
        inputs=inputs,
        datasets=known,
        extents={key: plan.extents[key] for step in steps for _, key in step.absent},
        outputs=unit.outputs,
        results=tuple(key for key in unit.outputs if key in plan.outputs),
        tags=state.tags,
        user=state.user,
        request=plan.request,
        seconds={key: plan.assignment_by_key[key].seconds for key in unit.steps},
        memory={key: plan.assignment_by_key[key].memory for key in unit.steps},
        originals=originals_of(plan, steps),
        environment=_environment(state) if plan.again and unit is plan.again.segment else {},
    )


def originals_of(plan: Plan, steps: Sequence[Step]) -> tuple[Step, ...]:
    """What proves the keys of combined steps: what they are shares of, and how those were cut."""
    shares = [step for step in steps if step.stage in ("combine", "merge")]
    if not shares:
        return ()
    known = {step.key: step for step in plan.originals}
    found: dict[str, Step] = {}
    stack = [key for step in shares for key in (step.key, step.mother) if key in known]
    while stack:
        step = known[stack.pop()]
        if step.key not in found:
            found[step.key] = step
            stack += [key for key in step.inputs if key in known]  # sums that were opened
    named = {key for step in shares for key in step.inputs} - {step.key for step in steps}
    cuts = [plan.step_by_key[key] for key in named if key in plan.step_by_key]
    return (*found.values(), *sorted(cuts, key=lambda step: step.key))


def _release(state: JobState, name: str, attempt: int) -> ReleaseOrder:
    release = state.plan.release_by_id[name]
    copy = copy_of(state, release)
    assert copy is not None, "it is not wanted before that"
    return ReleaseOrder(
        id=order_id(state, name, attempt),
        job=state.job,
        site=release.site,
        key=release.key,
        replica=release.replica,
        copy=copy,
        user=state.user,
    )


def _comparison(state: JobState, name: str, attempt: int) -> CompareOrder:
    comparison = state.plan.comparison_by_id[name]
    return CompareOrder(
        id=order_id(state, name, attempt),
        job=state.job,
        site=comparison.site,
        key=comparison.key,
        copy=state.stored[comparison.key, comparison.other].replica,
        user=state.user,
        request=state.plan.request,
    )


def _environment(state: JobState) -> Mapping[str, str]:
    """Versions in which the first run made the results that are to be made again."""
    assert state.plan.again is not None
    for comparison in state.plan.again.comparisons:
        first = state.stored.get((comparison.key, comparison.site))
        if first is not None and first.dataset.lineage is not None:
            return first.dataset.lineage.environment
    return {}


def _dataset(state: JobState, key: str, replica: Replica, known: Mapping[str, Dataset]) -> Dataset:
    if key in state.plan.sources:
        return state.plan.sources[key]
    for (stored_key, _), stored in state.stored.items():
        if stored_key == key:
            return stored.dataset
    if key in known:
        return known[key]
    step = state.plan.step_by_key.get(key)
    extent = state.plan.extents[key]
    kinds = {"parquet": "table", "csv": "table", "files": "files"}
    several = "dataset" if len(extent.variables) > 1 else "array"
    return Dataset(
        id=key,
        name=step.label if step else key,
        key=key,
        kind=kinds.get(replica.format, several),  # type: ignore[arg-type]
        extent=extent,
        site=replica.site,
    )
