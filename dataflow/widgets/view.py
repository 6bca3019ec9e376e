"""View: the live view of a thing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dataflow.errors import ConfigError

if TYPE_CHECKING:
    from dataflow.session.session import Session
    from dataflow.widgets.shown import Shown


def view(thing: Any, session: Session | None = None, **how: Any) -> Shown:
    """A live view of a plan, a job or a session, for JupyterLab and other places that show Jupyter widgets.

    Elsewhere, and in a notebook that a program executes, it is the picture at rest.

    Parameters
    ----------
    thing
        A plan (``against=`` another plan, to compare them), or a job: of now, or found again by
        ``session.job(id)``; or a session: its datasets, sites and what owners would say.
    session
        What commands go to; default the latest that is open.

    Raises
    ------
    ConfigError
        If the extra ``notebook`` is not installed.
    TypeError
        For what has no live view.
    """
    from dataflow.placement.plan import Plan
    from dataflow.session.connecting import latest
    from dataflow.session.jobs import Job
    from dataflow.session.session import Session

    try:
        import anywidget  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "live views need the extra 'notebook'\n"
            "What you can do: pip install 'jupyter-dataflow[notebook]'. Without it a plan, a job and "
            "a session show themselves as pictures."
        ) from error
    if isinstance(thing, Plan):
        from dataflow.widgets.plan import PlanView

        return PlanView(thing, session or latest(), **how)
    if isinstance(thing, Job):
        from dataflow.widgets.job import LiveJob

        return LiveJob(thing)
    if isinstance(thing, Session):
        from dataflow.widgets.session import LiveSession

        return LiveSession(thing)
    raise TypeError(f"there is no live view of {type(thing).__name__}")
