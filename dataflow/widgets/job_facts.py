"""Job facts: a job's picture, and how far it is, as plain values for a page to draw. Pure."""

from __future__ import annotations

from typing import Any

from dataflow._quantities import format_bytes, format_seconds
from dataflow.errors import from_document
from dataflow.execution.pace import Pace
from dataflow.execution.state import JobState
from dataflow.execution.units import described, part_of
from dataflow.execution.view import ledger_of, view_of
from dataflow.placement.layout import Scene, arrange
from dataflow.placement.picture import describe
from dataflow.placement.plan import Comparison, Plan, Release, Transfer
from dataflow.widgets.plan_facts import Facts, scene_of

#: Units that are told of in words; all are in the picture.
MOST_ROWS = 12

WAITS, RUNS, DONE, FAILED, THERE = "w", "r", "d", "f", "s"


class JobFacts:
    """What a page has to know of a job, from its journal alone.

    The picture changes only with the plan; :meth:`progress` has a letter for each of its boxes.
    """

    def __init__(self) -> None:
        self.pace = Pace()
        self._plan: Plan | None = None
        self._scene = Scene()
        self._facts: Facts = {}

    def facts(self) -> Facts:
        """The picture; the same object as long as the plan is the same."""
        state = self.pace.state
        if state is not None and state.plan is not self._plan:
            self._plan = state.plan
            self._scene = arrange(state.plan)
            self._facts = {
                "job": state.job,
                "head": repr(state.plan).strip("<>"),
                "words": describe(state.plan),
                "scene": scene_of(state.plan),
                "tags": [f"{name} = {value}" for name, value in sorted(state.tags.items())],
                "labels": {step.key: state.plan.label(step.key) for step in state.plan.steps},
            }
        return self._facts

    def progress(self, now: float) -> Facts:
        """How far it is at this moment (s since the epoch)."""
        state = self.pace.state
        if state is None:
            return {"status": "unknown", "message": "its journal was not heard yet"}
        self.facts()
        view = view_of(state, "")
        crossed = _crossed(state)
        predicted = sum(transfer.nbytes for transfer in state.plan.transfers)
        end = state.updated if state.over else max(now, state.updated)
        elapsed = end - (state.started if state.started is not None else end)
        return {
            "status": state.status,
            "over": state.over,
            "done": state.done,
            "total": len(state.units),
            "message": view.message,
            "trace": str(from_document(state.error)) if state.error is not None else "",
            "took": format_seconds(elapsed) if state.started is not None else "",
            "predicted": format_seconds(state.plan.seconds),
            "left": str(self.pace.left(now) or ""),
            "moved": format_bytes(sum(crossed.values())),
            "predicted_moved": format_bytes(predicted),
            "boxes": self._boxes(state),
            "links": self._links(state, crossed),
            "rows": self._rows(state, end),
            "events": self.pace.heard,
        }

    def _boxes(self, state: JobState) -> str:
        """A letter for each box of the picture, in its order."""
        runs: dict[tuple[str, str], str] = {}
        for name, unit in state.units.items():
            part = part_of(state.plan, name)
            if isinstance(part, Release | Comparison):
                continue
            letter = {"running": RUNS, "ended": DONE}.get(unit.status, WAITS)
            if state.status == "failed" and letter != DONE and (unit.failures or letter == RUNS):
                letter = FAILED
            elif state.over and letter == RUNS:
                letter = WAITS
            if isinstance(part, Transfer):
                runs[part.key, f"{part.target} delivered"] = letter
            else:
                runs |= {(key, part.site): letter for key in part.steps}
        letters = []
        for box in self._scene.boxes.values():
            key, place = box.id.split(" ", 1)
            if box.kind in ("dataset", "stored"):
                letters.append(THERE)
            elif (key, place) in state.stored:
                letters.append(DONE)
            else:
                letters.append(runs.get((key, place), WAITS))
        return "".join(letters)

    def _links(self, state: JobState, crossed: dict[tuple[str, str], int]) -> list[list[Any]]:
        """For each link: from, to, bytes that crossed, bytes predicted, and their share."""
        planned: dict[tuple[str, str], int] = {}
        for transfer in state.plan.transfers:
            way = (transfer.source, transfer.target)
            planned[way] = planned.get(way, 0) + transfer.nbytes
        ways = list(dict.fromkeys((*planned, *crossed)))
        return [
            [
                *way,
                format_bytes(crossed.get(way, 0)),
                format_bytes(planned.get(way, 0)),
                min(1.0, crossed.get(way, 0) / planned[way]) if planned.get(way) else 1.0,
            ]
            for way in ways
        ]

    def _rows(self, state: JobState, now: float) -> list[list[str]]:
        """Units that run or have failed, then those that took longest: what, where, how long."""
        found = []
        for name, unit in state.units.items():
            part = part_of(state.plan, name)
            took = self.pace.took(name, now)
            if unit.status == "waiting" and not unit.failures:
                continue
            what, where = described(state.plan, part)
            reached = self.pace.reached.get(name)
            how = unit.status
            if unit.status == "running" and reached is not None and reached.total:
                how = f"{reached.done} of {reached.total} {reached.message}".rstrip()
            if unit.failures:
                how += f", attempt {unit.attempt}"
            if state.over and unit.status == "running":
                how = "stopped"
            planned = 0.0 if isinstance(part, Release | Comparison) else part.seconds
            order = (unit.status != "running", -unit.failures, -(took or 0.0))
            time = "" if took is None else format_seconds(took)
            found.append((order, [what, where, how, time, format_seconds(planned)]))
        return [row for _, row in sorted(found, key=lambda one: one[0])[:MOST_ROWS]]


def _crossed(state: JobState) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for entry in ledger_of(state):
        way = (entry.source, entry.target)
        found[way] = found.get(way, 0) + entry.nbytes
    return found
