"""Plan facts: a plan's picture and prices as plain values, for a page to draw. Pure."""

from __future__ import annotations

from typing import Any

from dataflow._quantities import format_bytes, format_seconds
from dataflow.graph.operation import Step
from dataflow.placement.compare import difference
from dataflow.placement.explain import bounds
from dataflow.placement.layout import GAP, HEAD, HEIGHT, MARGIN, Scene, arrange
from dataflow.placement.picture import describe, thickness
from dataflow.placement.plan import Candidate, Plan

Facts = dict[str, Any]

#: Height of the band of a site that the plan does not use: there to have steps put into it.
IDLE = HEAD + HEIGHT / 2


def scene_of(plan: Plan) -> Facts:
    """Bands, boxes and arrows with their places, in pixels.

    Sites that may run something and are not used have a band as well, below the others.
    """
    scene = arrange(plan)
    away = plan.topology.away
    bands = [{"site": site, "y": y, "h": height, "idle": False} for site, y, height in scene.bands]
    height = scene.height
    for name in _idle(plan, scene):
        bands.append({"site": name, "y": height, "h": IDLE, "idle": True})
        height += IDLE + MARGIN
    for band in bands:
        band["about"] = _about(plan, str(band["site"]))
        band["away"] = band["site"] in away
    return {
        "width": max(scene.width, 340.0),
        "height": height,
        "box": HEIGHT,
        "gap": GAP,
        "margin": MARGIN,
        "bands": bands,
        "boxes": [
            {
                "id": box.id,
                "key": box.id.split(" ", 1)[0],
                "kind": box.kind,
                "site": box.site,
                "label": box.label,
                "detail": box.detail,
                "title": box.title,
                "wanted": box.wanted,
                "x": round(box.x, 1),
                "y": round(box.y, 1),
                "w": round(box.width, 1),
            }
            for box in scene.boxes.values()
        ],
        "arrows": [
            {
                "key": arrow.source.split(" ", 1)[0],
                "source": scene.boxes[arrow.source].site,
                "target": scene.boxes[arrow.target].site,
                "crosses": arrow.crosses,
                "again": arrow.crosses and not arrow.label,
                "thick": round(thickness(arrow.nbytes), 1),
                "label": arrow.label,
                "title": arrow.title,
                "path": [round(number, 1) for point in arrow.path for number in point],
                "at": [round(number, 1) for number in arrow.label_at],
            }
            for arrow in scene.arrows
        ],
    }


def plan_facts(plan: Plan) -> Facts:
    """A plan to be looked at: the picture, and for each step all candidates with their prices."""
    return {
        "head": repr(plan).strip("<>"),
        "words": describe(plan),
        "bounds": bounds(plan),
        "notes": list(plan.notes),
        "scene": scene_of(plan),
        "steps": {step.key: _step(plan, step) for step in plan.steps},
    }


def alternative(plan: Plan, candidate: Candidate) -> str:
    """What a candidate would change, in words; why it is none, if it is not allowed."""
    if not candidate.allowed:
        rule = f"{candidate.rule}: " if candidate.rule else ""
        return f"{rule}{candidate.because}"
    seconds, nbytes = candidate.seconds - plan.seconds, candidate.nbytes - plan.nbytes
    return f"{_more(seconds, format_seconds)}, {_more(nbytes, format_bytes)}"


def comparison(before: Plan, after: Plan) -> Facts:
    """Two plans side by side: the figures in a line, and what is otherwise."""
    found = difference(before, after)
    rows = [[one.label, one.before or "-", one.after or "-"] for one in found.steps]
    rows += [[f"{m.label} moves", m.before or "-", m.after or "-"] for m in found.transfers]
    return {"figures": found.in_figures(), "rows": rows[:60], "more": max(0, len(rows) - 60)}


def _step(plan: Plan, step: Step) -> Facts:
    assignment = plan.assignment_by_key[step.key]
    return {
        "label": plan.label(step.key),
        "operation": f"{step.operation.name}, {step.operation.kind}",
        "site": assignment.site,
        "because": assignment.because,
        "seconds": "reused"
        if assignment.reused is not None
        else format_seconds(assignment.seconds),
        "memory": format_bytes(assignment.memory),
        "pinnable": step.stage in ("whole", "combine") and assignment.reused is None,
        "candidates": [
            {
                "site": one.site,
                "allowed": one.allowed,
                "seconds": format_seconds(one.seconds) if one.allowed else "",
                "bytes": format_bytes(one.nbytes) if one.allowed else "",
                "change": "chosen" if one.site == assignment.site else alternative(plan, one),
                "better": one.allowed
                and (one.seconds, one.nbytes) < (plan.seconds * 0.999, plan.nbytes),
            }
            for one in sorted(assignment.candidates, key=lambda one: _order(assignment.site, one))
        ],
    }


def _order(chosen: str, one: Candidate) -> tuple[bool, bool, float, int, str]:
    """The chosen one first, then what may be by its price, then what may not."""
    return one.site != chosen, not one.allowed, one.seconds, one.nbytes, one.site


def _more(value: float, text: Any) -> str:
    sign = "+" if value >= 0 else "−"
    return f"{sign}{text(abs(value))}"


def _idle(plan: Plan, scene: Scene) -> list[str]:
    used = {site for site, _, _ in scene.bands}
    return [
        site.name for site in plan.topology.sites if site.name not in used and not site.stores_only
    ]


def _about(plan: Plan, name: str) -> str:
    site = plan.topology.site_by_name.get(name)
    if site is None:
        return ""
    if name in plan.topology.away:
        return "does not answer"
    if site.stores_only:
        return "stores only"
    return f"{site.workers} × {format_bytes(site.memory)}"
