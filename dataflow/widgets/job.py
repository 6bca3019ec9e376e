"""LiveJob: a job as it goes, wherever it runs and whoever began it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dataflow import _html
from dataflow.errors import DataflowError
from dataflow.placement.picture import draw
from dataflow.widgets.job_facts import JobFacts
from dataflow.widgets.shown import Shown

if TYPE_CHECKING:
    from dataflow.session.jobs import Ask, Job

#: At most so often (s) something is sent to the page, however much happens.
FRAME_SECONDS = 0.1
#: So long (s) a question for news waits: the clock on the page goes on meanwhile.
NEWS_SECONDS = 1.0


class LiveJob(Shown):
    """A job, live; made by :func:`dataflow.view`.

    It is rebuilt from the journal: after a restart of the kernel, in a second notebook, by somebody
    else. Whoever closes the page stops nothing.

    Attributes
    ----------
    job
        The one that is shown; another one after *retry*.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self._known = JobFacts()
        self._known.pace.take(job.events())
        super().__init__(
            "job", facts=self._known.facts(), progress=self._known.progress(time.time())
        )
        self._following = False
        self._commands = {
            "cancel": self._asks(job.cancel),
            "suspend": self._asks(job.suspend),
            "resume": self._asks(job.resume),
            "retry": self.retry,
            "logs": self._logs,
            "dashboards": self._dashboards,
        }

    def open(self) -> None:
        super().open()
        state = self._known.pace.state
        if self._live and not self._following and not (state is not None and state.over):
            self._following = True
            self.job.in_background(lambda ask: follow(self._known, ask, self._news))

    def retry(self) -> dict[str, Any]:
        """The same plan once more, as a new job, which is shown from now on; what is stored stays."""
        new = LiveJob(self.job.resubmit())
        self.job, self._known = new.job, new._known
        self._commands |= {
            "cancel": self._asks(self.job.cancel),
            "suspend": self._asks(self.job.suspend),
            "resume": self._asks(self.job.resume),
        }
        self._news(self._known.facts(), self._known.progress(time.time()))
        self._following = False
        self.open()
        return {"job": self.job.id}

    def text(self) -> str:
        shown = self.progress
        units = f", {shown['done']} of {shown['total']} units" if shown.get("total") else ""
        return f"<LiveJob {self.job.id} {shown['status']}{units}>"

    def html(self) -> str:
        state, shown = self._known.pace.state, self.progress
        facts = [
            ("job", self.job.id),
            ("status", shown["status"]),
            ("units", f"{shown.get('done', 0)} of {shown.get('total', 0)}"),
            ("took", f"{shown.get('took', '')} of {shown.get('predicted', '')} predicted"),
            ("moved", f"{shown.get('moved', '')} of {shown.get('predicted_moved', '')} predicted"),
            ("time left", shown.get("left", "")),
            ("message", shown.get("message", "")),
        ]
        picture = [_html.Markup(draw(state.plan))] if state is not None else []
        return _html.block(_html.facts(facts), *picture).text

    def _news(self, facts: dict[str, Any], progress: dict[str, Any]) -> None:
        with self.hold_sync():  # one message for both
            if facts is not self.facts and facts != self.facts:
                self.facts = facts
            self.progress = progress

    def _asks(self, act: Callable[[], None]) -> Callable[[], dict[str, Any]]:
        def ask() -> dict[str, Any]:
            act()
            return {}

        return ask

    def _logs(self) -> dict[str, Any]:
        """What programs wrote, and the error with its trace."""
        return {"logs": repr(self.job.logs()), "ledger": repr(self.job.ledger())}

    def _dashboards(self) -> dict[str, Any]:
        plan = self.job.plan
        found = self.job.dashboards(sorted({a.site for a in plan.assignments if not a.reused}))
        return {"dashboards": [[site, url] for site, url in found.items()]}


async def follow(
    known: JobFacts, ask: Ask, news: Callable[[dict[str, Any], dict[str, Any]], None]
) -> None:
    """Hear a journal to its end, and tell of it a few times a second at most.

    Silence of whoever keeps the job is told as well; it is asked again until it answers.
    """
    while True:
        began = time.monotonic()
        message = ""
        try:
            known.pace.take(await ask(known.pace.heard, NEWS_SECONDS))
        except DataflowError as error:
            message = f"{error}; it is asked again"
        progress = known.progress(time.time())
        if message:
            progress |= {"message": message}
        news(known.facts(), progress)
        if progress.get("over"):
            return
        rest = FRAME_SECONDS - (time.monotonic() - began)
        await asyncio.sleep(NEWS_SECONDS if message else max(rest, FRAME_SECONDS / 2))
