"""Connected: the life of a session, and its way to the participant behind it."""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Self, TypeVar

from dataflow.catalog.snapshot import Snapshot
from dataflow.config import Federation, Settings
from dataflow.datasets import Replica
from dataflow.errors import ConfigError
from dataflow.graph.hiding import OWN
from dataflow.graph.operation import Functions
from dataflow.participant import Participant
from dataflow.participant.notebooks import Cells
from dataflow.session.loop import entered, left
from dataflow.session.promises import Promises
from dataflow.session.reaching import Reaching
from dataflow.session.submitting import Payloads
from dataflow.session.warming import warm

#: Seconds that connecting waits for sites that do not answer.
SETTLE_SECONDS = 5.0
#: How long a look at the catalog waits for the news of results that a job has told of (s).
RESULTS_SECONDS = 2.0

T = TypeVar("T")


class Connected:
    """One user's participant, on a loop of its own, from :func:`dataflow.connect` until it is closed.

    If it cannot be made, whoever made ``reaching`` closes that.
    """

    def __init__(
        self,
        federation: Federation,
        settings: Settings,
        reaching: Reaching,
        *,
        prepare: bool = True,
    ) -> None:
        self.user = settings.user
        #: What all jobs of this session are tagged with.
        self.job_tags: dict[str, str] = {}
        self._settings = settings
        # Plans may put these in where nobody asked for them.
        self._functions: dict[str, Functions] = {o.operation.code: o.functions for o in OWN}
        self._payloads = Payloads(self._functions)
        self._promises = Promises(self._functions)
        self._expected: dict[Replica, None] = {}
        self.closed = False
        self._loop = reaching.loop
        self._participant = self._run(_started(federation, settings, reaching, prepare))
        if reaching.reaches and prepare:
            # Before now it would have taken the processor from what we were waiting for.
            self._loop.beside(lambda: warm(lambda: self.closed))
        atexit.register(self.close)

    def close(self) -> None:
        """Disconnect; jobs at other sites go on. Harmless when repeated."""
        if self.closed:
            return
        atexit.unregister(self.close)
        try:
            self._loop.end()
            self._run(self._participant.close())
        finally:
            self.closed = True
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(
        self, work: Coroutine[Any, Any, T], *, meanwhile: Callable[[], None] | None = None
    ) -> T:
        if self.closed:
            work.close()
            self._must_be_open()
        return self._loop.run(work, meanwhile=meanwhile)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        if self.closed:
            work.close()
            self._must_be_open()
        self._loop.begin(work)

    @property
    def participant(self) -> Participant:
        """What is behind this session, for faces of the toolkit; asynchronous, on its own loop."""
        self._must_be_open()
        return self._participant

    def cells(self, site: str, run: str, since: int, wait: float) -> Cells:
        """Cells that a notebook at a site has executed; see :meth:`.Notebooks.cells`."""
        return self._run(self._participant.cells(site, run, since, wait))

    @contextmanager
    def held(self, context: AbstractAsyncContextManager[Any]) -> Iterator[None]:
        """While this holds, something holds on the participant's loop."""
        self._run(entered(context))
        try:
            yield
        finally:
            self._run(left(context))

    def _snapshot(self) -> Snapshot:
        self._must_be_open()
        self._hear_of_results()
        return self._participant.snapshot()

    def _expect(self, made: Replica) -> None:
        """A job has told of this copy; the catalog's news of it may be on its way to us."""
        self._expected[made] = None

    def _hear_of_results(self) -> None:
        """Whoever has seen a job's result sees it in the catalog too."""
        expected = []
        while self._expected:
            expected.append(self._expected.popitem()[0])
        if expected:
            self._run(self._see(expected))

    async def _see(self, copies: Sequence[Replica]) -> None:
        see = self._participant.see
        await asyncio.gather(*(see(copy.site, copy, RESULTS_SECONDS) for copy in copies))

    def _must_be_open(self) -> None:
        if self.closed:
            raise ConfigError("this session is closed; connect again")


async def _started(
    federation: Federation, settings: Settings, reaching: Reaching, prepare: bool
) -> Participant:
    participant = Participant(
        federation, period=settings.sync_period, reaches=reaching.reaches, prepare=prepare
    )
    try:
        await participant.start()
        await participant.ways.open()
        for site in participant.ways.opened():  # its first question may have been too early
            participant.sync.expect(site)
        await participant.sync.settle(SETTLE_SECONDS)
    except BaseException:
        await participant.close()
        raise
    return participant
