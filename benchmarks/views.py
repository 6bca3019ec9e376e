"""Live views: how fast a large plan is drawn, and how a page keeps up with a busy job.

    python benchmarks/views.py [--quick] [--json]

In a headless Chromium, with the views' own JavaScript, as :mod:`dataflow.testing.browser` shows them.

- A plan of 300 operations, from the plan to boxes that can be clicked. Baseline: the same boxes and
  arrows as one piece of SVG text, which can only be looked at.
- A job of 10,000 events in a few seconds: frames a second on the page, and the bytes that were sent
  to it. Baseline: a message for every event.

Exit 2: there is no Chromium, or no playwright.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import queue
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from dataflow.execution.events import Event
from dataflow.testing import browser, staged

#: As a page counts them: how often what it shows of the job has changed.
_COUNT = """
() => {
  const root = document.querySelector(".flow-view");
  let last = root.dataset.events;
  window.frames_ = 0;
  const look = () => {
    if (root.dataset.events !== last) { last = root.dataset.events; window.frames_ += 1; }
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}
"""


def drawing(page: Any, steps: int) -> list[dict[str, Any]]:
    from dataflow.placement import picture
    from dataflow.widgets.plan import PlanView

    plan = staged.plan(steps, 30)
    began = time.perf_counter()
    browser.show(page, PlanView(plan))
    page.wait_for_selector(".box.step")
    page.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )
    live = time.perf_counter() - began

    picture.MOST_BOXES = 10_000
    plan = staged.plan(steps, 30)
    began = time.perf_counter()
    svg = picture.draw(plan)
    page.evaluate("(svg) => { document.getElementById('view').innerHTML = svg }", svg)
    page.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )
    still = time.perf_counter() - began
    name = f"plan of {steps} operations, drawn"
    return [figure(name, live, "s", still, live < 1.0, "< 1 s")]


def keeping_up(page: Any, events: int, seconds: float) -> list[dict[str, Any]]:
    from dataflow.widgets.job import LiveJob, follow
    from dataflow.widgets.job_facts import JobFacts

    plan = staged.plan(60, 12)
    journal = staged.journal(plan, progress=events)[:events]

    class Kept:
        id = "job"
        cancel = suspend = resume = None

        def events(self, since: int = 0) -> Sequence[Event]:
            return journal[:1]

    live = LiveJob(Kept())  # type: ignore[arg-type]
    browser.show(page, live)
    page.evaluate(_COUNT)
    known, came = JobFacts(), queue.SimpleQueue[Any]()
    began = time.perf_counter()

    async def ask(since: int, wait: float) -> Sequence[Event]:
        """As many as the clock says have happened by now."""
        while True:
            there = int(len(journal) * min(1.0, (time.perf_counter() - began) / seconds))
            if there > since or there == len(journal):
                return journal[since:there]
            await asyncio.sleep(0.005)

    def run() -> None:
        async def until_heard() -> None:
            going = asyncio.ensure_future(follow(known, ask, lambda *news: came.put(news)))
            while known.pace.heard < len(journal) and not going.done():
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.2)
            going.cancel()
            await asyncio.wait([going])

        asyncio.run(until_heard())
        came.put(None)

    thread = threading.Thread(target=run)
    thread.start()
    sent = 0
    while (news := came.get()) is not None:
        live._news(*news)
        sent += len(json.dumps(news[1]))
        browser.push(page, live)
    took = time.perf_counter() - began
    thread.join()
    frames = page.evaluate("() => window.frames_")
    each = sum(len(json.dumps(known.progress(time.time()))) for _ in range(10)) / 10
    rate = frames / took
    return [
        figure(
            f"frames a second at {len(journal):,} events",
            rate,
            "1/s",
            len(journal) / took,
            rate >= 5,
            ">= 5",
        ),
        figure(
            "bytes sent to the page",
            sent,
            "B",
            each * len(journal),
            sent < each * len(journal) / 10,
            "< 1/10",
        ),
    ]


def figure(
    name: str, value: float, unit: str, baseline: float, holds: bool, goal: str
) -> dict[str, Any]:
    ratio = value / baseline if baseline else 0.0
    return {"figure": name, "value": round(value, 3), "unit": unit, "baseline": round(baseline, 3),
            "ratio": round(ratio, 4), "goal": goal, "holds": holds}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="the events within 2 s instead of 10 s"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    given = parser.parse_args()
    if reason := browser.why_not():
        print(f"cannot run here: {reason}", file=sys.stderr)
        return 2
    figures: list[dict[str, Any]] = []
    with browser.browser() as chromium:
        for part, arguments in (
            (drawing, (300,)),
            (keeping_up, (10_000, 2.0 if given.quick else 10.0)),
        ):
            context = chromium.new_context(viewport={"width": 1200, "height": 900})
            page = context.new_page()
            figures += part(page, *arguments)  # type: ignore[operator]
            context.close()
    for one in figures:
        if given.json:
            print(json.dumps(one))
        else:
            mark = "" if one["holds"] else "   NOT REACHED"
            print(f"{one['figure']:42} {one['value']:>12} {one['unit']:4} baseline {one['baseline']:>14}"
                  f"  ratio {one['ratio']:<8} goal {one['goal']}{mark}")  # fmt: skip
    return 0 if all(one["holds"] for one in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
