"""The live view of a job: from the journal alone, a few frames a second, and in a browser."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from dataflow.errors import SiteUnreachable
from dataflow.execution.events import Event
from dataflow.testing import staged
from dataflow.testing.browser import push, show
from dataflow.widgets.job_facts import JobFacts

pytest.importorskip("anywidget", reason="the extra 'notebook' is not installed")
from dataflow.widgets.job import LiveJob, follow

PLAN = staged.plan(8, 4)


class Kept:
    """A job as its keeper would tell of it, up to some event."""

    id = "job"

    def __init__(self, events: Sequence[Event], told: int = 0) -> None:
        self.all, self.told, self.asked = events, told or len(events), []  # type: ignore[var-annotated]

    def events(self, since: int = 0) -> Sequence[Event]:
        return self.all[since : self.told]

    def cancel(self) -> None:
        self.asked.append("cancel")

    suspend = resume = cancel


def test_progress_is_plain_and_a_function_of_the_journal() -> None:
    known = JobFacts()
    known.pace.take(staged.journal(PLAN, until=0.5))
    shown = known.progress(1_004.0)
    assert json.loads(json.dumps(shown)) == shown
    assert json.loads(json.dumps(known.facts())) == known.facts()
    assert len(shown["boxes"]) == len(known.facts()["scene"]["boxes"])
    assert shown["status"] == "running"
    assert "d" in shown["boxes"]
    assert "left" in shown["left"]
    again = JobFacts()
    for event in staged.journal(PLAN, until=0.5):
        again.pace.take([event])
    assert again.progress(1_004.0) == shown, "whoever comes later sees the same"
    known.pace.take(staged.journal(PLAN)[known.pace.heard :])
    over = known.progress(9_999.0)
    assert set(over["boxes"]) <= {"d", "s"}
    assert over["left"] == ""


def test_many_events_are_few_messages() -> None:
    """10,000 events come as fast as they can; the page hears of them a few times."""
    events = staged.journal(PLAN, progress=10_000)
    frames: list[dict[str, Any]] = []
    facts: list[Any] = []

    async def ask(since: int, wait: float) -> Sequence[Event]:
        await asyncio.sleep(0)
        return events[since : since + 400]

    def news(now: Any, progress: dict[str, Any]) -> None:
        facts.append(now)
        frames.append(progress)

    asyncio.run(follow(JobFacts(), ask, news))
    assert frames[-1]["status"] == "done"
    assert frames[-1]["events"] == len(events)
    assert len(frames) <= len(events) / 400 + 2
    assert all(one is facts[0] for one in facts), "the picture was sent once"
    assert max(len(json.dumps(one)) for one in frames) < 5_000


def test_silence_is_told_and_asked_again() -> None:
    events = staged.journal(PLAN)
    failing = iter([True, False])
    frames: list[dict[str, Any]] = []

    async def ask(since: int, wait: float) -> Sequence[Event]:
        if next(failing, False):
            raise SiteUnreachable("delft", "no answer")
        return events[since:]

    asyncio.run(follow(JobFacts(), ask, lambda _, progress: frames.append(progress)))
    assert "it is asked again" in frames[0]["message"]
    assert frames[-1]["status"] == "done"


def test_in_a_browser(page: Any) -> None:
    job = Kept(staged.journal(PLAN), told=9)
    live = LiveJob(job)  # type: ignore[arg-type]
    show(page, live)
    page.locator(".box[data-state=r], .box[data-state=d]").first.wait_for()
    assert page.locator(".status").inner_text() == "running"
    page.get_by_role("button", name="cancel").click()
    page.wait_for_function("() => document.querySelector('.says').textContent === ''")
    assert job.asked == ["cancel"]
    live._known.pace.take(job.all[9:])
    live._news(live._known.facts(), live._known.progress(2_000.0))
    push(page, live)
    page.locator(".status[data-status=done]").wait_for()
    assert page.locator(".box[data-state=w]").count() == 0
    assert page.get_by_role("progressbar").get_attribute("aria-valuenow") == str(
        live.progress["total"]
    )
    page.get_by_role("button", name="retry").wait_for()


def test_at_rest() -> None:
    live = LiveJob(Kept(staged.journal(PLAN)))  # type: ignore[arg-type]
    bundle, _ = live._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    assert "done" in bundle["text/plain"]
    assert "<svg" in bundle["text/html"]
