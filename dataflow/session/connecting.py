"""Connect: from a site file, or nothing at all, to a session."""

from __future__ import annotations

import logging
import os
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dataflow import tracing
from dataflow.config import (
    Backend,
    Federation,
    Settings,
    read_settings,
    read_site_file,
    state_directory,
)
from dataflow.errors import ConfigError
from dataflow.session import joined
from dataflow.session.reaching import Reaching
from dataflow.sites import Site
from dataflow.stores import Store

if TYPE_CHECKING:
    from dataflow.session.jobs import Job
    from dataflow.session.session import Session

#: Name of the one site there is when nothing was configured.
LOCAL = "local"

_latest: list[weakref.ref[Session]] = []
#: The session of this process over a state directory; a second one takes its place.
_by_state: weakref.WeakValueDictionary[Path, Session] = weakref.WeakValueDictionary()


def connect(
    path: str | os.PathLike[str] | None = None,
    *,
    state: str | os.PathLike[str] | None = None,
    user: str | None = None,
    prepare: bool = True,
) -> Session:
    """Connect to a federation, or make this machine a site of its own.

    Parameters
    ----------
    path
        A site file. Default: the setting ``site_file`` (``DATAFLOW_SITE_FILE``); without one this
        machine is one site with local Dask workers and a file store.
    state
        Directory for catalog and journal; default by the site file or ``DATAFLOW_STATE_DIR``.
    user
        In whose name; default the account's.
    prepare
        Get ready for work while the user thinks: import what plans want, start this machine's own
        workers. Otherwise that is done when it is wanted, which suits short programs.

    In a notebook that runs at a site as part of a job (``papermill --engine dataflow``) none of
    this counts: the session is with the agent of that site, in the name of whoever sent the
    notebook, and its jobs have the tag ``notebook`` with the id of that job.

    A session of this process over the same state directory is closed first, so that a cell may be
    run again.

    Raises
    ------
    ConfigError
        If the file is wrong, or names a credential that does not exist.

    Examples
    --------
    >>> session = connect()                             # doctest: +SKIP
    >>> session = connect("sites.yaml", user="anna")    # doctest: +SKIP
    """
    _quiet()
    invited = joined.invitation()
    settings = None if path is not None else read_settings()
    path = path if settings is None else settings.site_file
    if invited is not None:
        federation = joined.federation(invited)
        user = invited.user
    elif path is not None:
        federation = read_site_file(path)
        if not federation.sites and not federation.peers:
            raise ConfigError("names no site: say site:, sites: or peers:", str(path))
        if state is not None:
            federation = replace(federation, state=Path(state).absolute())
    else:
        federation = this_machine(Path(state).absolute() if state else state_directory() / LOCAL)
    before = _by_state.get(federation.state)
    if before is not None:
        before.close()  # the cell was run again: one session, one set of workers
    tracing.begin("notebook")
    reaching = Reaching(federation)
    reaching.begin()
    try:
        session = _session(federation, settings or read_settings(), user, reaching, prepare)
    except BaseException:
        reaching.close()
        raise
    if invited is not None:
        session.job_tags = {joined.TAG: invited.job}
    _by_state[federation.state] = session
    _latest[:] = [weakref.ref(session)]
    return session


def _session(
    federation: Federation,
    settings: Settings,
    user: str | None,
    reaching: Reaching,
    prepare: bool,
) -> Session:
    """What takes long to import, while agents are being started elsewhere."""
    from dataflow.session.session import Session

    settings = settings if user is None else replace(settings, user=user)
    return Session(federation, settings, reaching, prepare=prepare)


def _quiet() -> None:
    """A notebook hears of troubles only, unless its user has set logging up."""
    import structlog

    if not structlog.is_configured():
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
            # Where errors go when they come: what it is now may be closed by then.
            logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        )


def this_machine(state: Path) -> Federation:
    """A federation of one site: this machine, half of its cores, a file store below ``state``."""
    import psutil

    workers = max(1, min(4, (os.cpu_count() or 2) // 2))
    memory = int(psutil.virtual_memory().total * 0.6 / workers)
    site = Site(name=LOCAL, workers=workers, memory=memory)
    return Federation(
        sites=(site,),
        stores=(Store(name="results", site=LOCAL, url=(state / "results").as_uri()),),
        me=LOCAL,
        state=state,
        backend=Backend(workers=workers, memory=memory),
    )


def job(id: str) -> Job:
    """A job by its id, through the latest session (one is connected if there is none).

    Raises
    ------
    UnknownJob
        If nobody has heard of it.
    """
    return current().job(id)


def current() -> Session:
    """The session that was connected last; one is connected if none is open."""
    return latest() or connect()


def latest() -> Session | None:
    """The session that was connected last, if it is open."""
    session = _latest[0]() if _latest else None
    return None if session is None or session.closed else session
