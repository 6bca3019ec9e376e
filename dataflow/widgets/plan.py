"""PlanView: a plan to look into, to try alternatives on, and to start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dataflow._quantities import format_seconds
from dataflow.errors import ConfigError
from dataflow.placement.plan import Plan
from dataflow.widgets.plan_facts import comparison, plan_facts
from dataflow.widgets.shown import Shown

if TYPE_CHECKING:
    from dataflow.session import Session
    from dataflow.session.jobs import Job


class PlanView(Shown):
    """A plan, live; made by :func:`dataflow.view`.

    Click a step, or go to it with the arrows and press Enter: its candidates, their prices and
    verdicts, and what would change the choice. Drag it to another site to see the price of that;
    *pin* makes a new plan with the step there. Earlier plans stay, to be compared.

    Attributes
    ----------
    plan
        The one that is shown now: what ``session.submit`` takes.
    plans
        All that were made here, oldest first.
    job
        The job that was started from here; ``None`` before.
    """

    def __init__(
        self, plan: Plan, session: Session | None = None, *, against: Plan | None = None
    ) -> None:
        self.plans = [plan] if against is None else [against, plan]
        self.job: Job | None = None
        self._session = session
        self._number = len(self.plans) - 1
        super().__init__("plan", facts=self._facts())
        self._commands = {
            "why": self._why,
            "pin": self.pin,
            "show": self.show,
            "run": self._run,
        }

    @property
    def plan(self) -> Plan:
        return self.plans[self._number]

    def pin(self, step: str, site: str) -> None:
        """Make a new plan with a step (label or key) at a site, and show that.

        Raises
        ------
        PlacementError
            If it cannot be there.
        ConfigError
            Without a session that is open.
        """
        new = self._open_session().plan_again(self.plan, pinned={step: site})
        self.plans = [*self.plans[: self._number + 1], new]
        self.show(len(self.plans) - 1)

    def show(self, number: int) -> None:
        """Show one of the plans."""
        self.plans[number]
        self._number = number % len(self.plans)
        self.facts = self._facts()

    def text(self) -> str:
        return repr(self.plan)

    def html(self) -> str:
        return self.plan._repr_html_()

    def _facts(self) -> dict[str, Any]:
        number = self._number
        return {
            **plan_facts(self.plan),
            "number": number,
            "plans": [repr(plan).strip("<>") for plan in self.plans],
            "compare": comparison(self.plans[number - 1], self.plan) if number else None,
            "job": self.job.id if self.job is not None else "",
            "session": self._session is not None,
        }

    def _open_session(self) -> Session:
        if self._session is None or self._session.closed:
            raise ConfigError(
                "this view has no open session\n"
                "What you can do: connect, and show it with view(plan, session)."
            )
        return self._session

    def _why(self, step: str) -> dict[str, Any]:
        why = self.plan.why(step)
        margin = ""
        if why.margin is not None:
            longer = "longer" if why.margin.seconds >= 0 else "shorter"
            took = format_seconds(abs(why.margin.seconds))
            margin = f"The next best is {why.margin.site}: {took} {longer}."
        return {"why": list(why.words), "margin": margin}

    def _run(self) -> dict[str, Any]:
        self.job = self._open_session().submit(self.plan)
        self.facts = self._facts()
        return {"job": self.job.id}
