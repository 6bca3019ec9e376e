"""Lifetimes: where workers do not live long enough for a step. Pure.

Only what was measured counts: a guess rules nothing out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dataflow._quantities import format_seconds
from dataflow.graph.operation import Step
from dataflow.placement.problem import Floats
from dataflow.policy.check import Verdict
from dataflow.sites import Site

WALLTIME = "walltime"


def within_walltime(
    verdicts: Mapping[str, Mapping[str, Verdict]],
    steps: Sequence[Step],
    seconds: Floats,
    sites: Sequence[Site],
    measured: Sequence[bool],
) -> Mapping[str, Mapping[str, Verdict]]:
    """The verdicts, and a refusal where a step takes longer than a worker lives.

    Parameters
    ----------
    seconds
        ``T x S``, predicted.
    measured
        Per step whether that rests on a run. Programs ask for a walltime of their own, and are left
        as they are.
    """
    if not any(site.walltime for site in sites):
        return verdicts
    found = dict(verdicts)
    for task, step in enumerate(steps):
        if not measured[task] or step.operation.command:
            continue
        too_long = {
            site.name: float(seconds[task, number])
            for number, site in enumerate(sites)
            if site.walltime and seconds[task, number] > site.walltime
        }
        row = found[step.key]
        if any(name in row and row[name].allowed for name in too_long):
            limits = {site.name: site.walltime for site in sites}
            found[step.key] = {
                name: _refusal(too_long[name], limits[name])
                if name in too_long and verdict.allowed
                else verdict
                for name, verdict in row.items()
            }
    return found


def _refusal(takes: float, lives: float) -> Verdict:
    return Verdict(
        False,
        WALLTIME,
        f"it takes {format_seconds(takes)}, and workers there live {format_seconds(lives)}",
    )
