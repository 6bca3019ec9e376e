"""Plots of what the placement benchmark found: how far from the proven bounds, and time by size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Point:
    """One problem: the plan for makespan, and HEFT's, over what no plan can be below."""

    suite: str
    bound: str
    steps: int
    makespan: float
    heft: float
    nbytes: float
    heft_bytes: float


def draw(folder: Path, points: Sequence[Point], pace: Sequence[tuple[int, float, float]]) -> None:
    """Write ``makespan.png``, ``bytes.png`` and ``time.png``.

    Parameters
    ----------
    points
        Of all suites.
    pace
        Steps, microseconds a step, MiB of the process.
    """
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    if points:
        _ratios(folder / "makespan.png", points, "makespan", "makespan / proven bound")
        _ratios(
            folder / "bytes.png", points, "nbytes", "(bytes + 1 % of all) / (floor + 1 % of all)"
        )
    if pace:
        _pace(folder / "time.png", pace)


def _ratios(file: Path, points: Sequence[Point], what: str, label: str) -> None:
    from matplotlib import pyplot

    suites = list(dict.fromkeys(point.suite for point in points))
    figure, axes = pyplot.subplots(
        1, len(suites), figsize=(5.5 * len(suites), 4), sharey=True, squeeze=False
    )
    rival = {"makespan": "heft", "nbytes": "heft_bytes"}[what]
    for axis, suite in zip(axes[0], suites, strict=True):
        some = [point for point in points if point.suite == suite]
        steps = [point.steps for point in some]
        axis.scatter(
            steps, [getattr(p, rival) for p in some], s=14, facecolors="none",
            edgecolors="0.6", label="HEFT",
        )  # fmt: skip
        for bound, colour in (("d3", "tab:blue"), ("d30", "tab:red")):
            half = [point for point in some if point.bound == bound]
            axis.scatter(
                [p.steps for p in half], [getattr(p, what) for p in half], s=16, color=colour,
                label={"d3": "compute-bound (d3)", "d30": "data-bound (d30)"}[bound],
            )  # fmt: skip
        axis.axhline(1.0, color="black", linewidth=0.8)
        axis.set(xscale="log", yscale="log", xlabel="steps", title=suite)
        marks = [mark for mark in (10, 30, 100, 300, 1000) if mark <= 1.5 * max(steps)]
        axis.set_xticks(marks, [str(mark) for mark in marks])
        axis.set_xticks([], minor=True)
        axis.grid(visible=True, which="major", alpha=0.3)
    axes[0][0].set_ylabel(label)
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def _pace(file: Path, pace: Sequence[tuple[int, float, float]]) -> None:
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(5.5, 4))
    steps = [one[0] for one in pace]
    axis.plot(steps, [one[1] for one in pace], "o-", color="tab:blue")
    axis.set(xscale="log", xlabel="steps (chunk graph, 8 sites)")
    axis.set_ylabel("processor time, µs a step", color="tab:blue")
    axis.set_ylim(bottom=0)
    axis.grid(visible=True, alpha=0.3)
    other = axis.twinx()
    other.plot(steps, [one[2] for one in pace], "s--", color="tab:orange")
    other.set_ylabel("memory of the process, MiB", color="tab:orange")
    other.set_ylim(bottom=0)
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
