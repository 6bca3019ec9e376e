"""Why: the choice of one step's site as data, as text and as HTML."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dataflow._html import Markup, block, escape, listing, plain_table
from dataflow._quantities import format_bytes, format_rate, format_seconds
from dataflow.errors import PlacementError
from dataflow.placement.explain import candidate_rows, candidate_table
from dataflow.placement.flip import Flip, flips
from dataflow.placement.likely import near, undecided
from dataflow.placement.model import Model
from dataflow.placement.plan import Assignment, Candidate, Plan

#: Flip points are looked for at so many sites, the next best first.
_CANDIDATES = 3
#: So many flip points are told of for each of them.
_TOLD = 3
_HEADER = ("site", "seconds", "moved", "because")


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """By how much the next best site is worse: seconds and bytes of the whole plan with it, less
    those of the plan as it is. One of them may be less than 0. ``alike`` if nothing follows from
    that: which is quicker turns within what is likely, or they are near; and as much moves.
    """

    site: str
    seconds: float
    nbytes: int
    alike: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Why:
    """Why a step runs where it does.

    Attributes
    ----------
    label, site, because
        The step, its site, and the reason in one line.
    seconds, nbytes
        Those of the plan; each candidate has those of the plan with the step at its site.
    candidates
        All sites, with their price, or with the verdict and its rule.
    margin
        The next best site; ``None`` if no other site may run it.
    flips
        From what on another site would win, the least change of each site first; empty where the
        plan was saved without its numbers.
    words
        The same in words.
    """

    label: str
    site: str
    because: str
    seconds: float
    nbytes: int
    candidates: tuple[Candidate, ...]
    margin: Margin | None = None
    flips: tuple[Flip, ...] = ()
    words: tuple[str, ...] = ()

    def __repr__(self) -> str:
        lines = [
            f"{self.label} at {self.site}: {self.because}",
            plain_table(_HEADER, candidate_rows(self.candidates)),
            *self.words,
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        told = [listing(self.words)] if self.words else []
        label, site, because = escape(self.label), escape(self.site), escape(self.because)
        return block(
            Markup(f"<p><b>{label}</b> at <b>{site}</b>: {because}</p>"),
            candidate_table(self.candidates),
            *told,
        ).text


def why(plan: Plan, label: str) -> Why:
    """Why the step with this label (or key) runs where it does.

    Raises
    ------
    PlacementError
        If the plan has no such step.
    """
    step = next((step for step in plan.steps if label in (step.label, step.key)), None)
    if step is None:
        known = ", ".join(step.label for step in plan.steps[:20]) or "none"
        raise PlacementError(f"the plan has no step {label!r}; it has {known}")
    assignment = plan.assignment_by_key[step.key]
    ranked = _ranked(plan, assignment)
    margin = None
    if ranked:
        margin = Margin(
            site=ranked[0].site,
            seconds=ranked[0].seconds - plan.seconds,
            nbytes=ranked[0].nbytes - plan.nbytes,
            alike=_alike(assignment, ranked[0]),
        )
    turns = _flips(plan, assignment, ranked[:_CANDIDATES])
    return Why(
        label=step.label,
        site=assignment.site,
        because=assignment.because,
        seconds=plan.seconds,
        nbytes=plan.nbytes,
        candidates=assignment.candidates,
        margin=margin,
        flips=turns,
        words=(
            *([_no_better(margin.site)] if margin is not None and margin.alike else []),
            *(in_words(flip, plan.label) for flip in turns),
        ),
    )


def _alike(assignment: Assignment, other: Candidate) -> bool:
    """Whether another site may as well turn out to be the better one, by what is likely."""
    mine = next(one for one in assignment.candidates if one.site == assignment.site)
    if mine.likely is None or not near(mine.nbytes, other.nbytes):
        return False
    middles = (mine.seconds, other.seconds)
    if other.likely is None:  # many steps: one of them elsewhere is an estimate
        return near(*middles)
    return undecided(middles, mine.likely, other.likely)


def _no_better(site: str) -> str:
    return f"by what is known so far it cannot be told whether {site} would be as good"


def chosen(plan: Plan) -> tuple[int, ...]:
    """The number of the site of each step, as the plan's model counts."""
    assert plan.model is not None
    number = {name: i for i, name in enumerate(plan.model.sites)}
    return tuple(number[plan.assignment_by_key[key].site] for key in plan.model.tasks)


def _ranked(plan: Plan, assignment: Assignment) -> list[Candidate]:
    """The other sites that may run it, the cheapest first."""
    others = [c for c in assignment.candidates if c.allowed and c.site != assignment.site]
    weights = dict((plan.model or _NO_MODEL).aim.stages[0])

    def price(one: Candidate) -> tuple[float, float]:
        by_aim = weights.get("seconds", 0.0) * one.seconds + weights.get("bytes", 0.0) * one.nbytes
        return by_aim, one.seconds

    return sorted(others, key=price)


def _flips(plan: Plan, assignment: Assignment, others: list[Candidate]) -> tuple[Flip, ...]:
    model = plan.model
    if model is None or assignment.key not in model.tasks:
        return ()
    sites, task = chosen(plan), model.tasks.index(assignment.key)
    found: list[Flip] = []
    for other in others:
        found += flips(model, sites, task, model.sites.index(other.site))[:_TOLD]
    return tuple(found)


def in_words(flip: Flip, label: Callable[[str], str]) -> str:
    """A flip point as a sentence."""
    more = "more" if flip.at > flip.now else "less"
    if flip.fact == "bandwidth":
        what = f"the link {flip.about[0]} → {flip.about[1]} carried"
        than, now = format_rate(flip.at), format_rate(flip.now)
    elif flip.fact == "size":
        what = f"{label(flip.about[0])} had"
        than, now = format_bytes(round(flip.at)), format_bytes(round(flip.now))
    else:
        what = f"it took at {flip.about[0]}"
        than, now = format_seconds(flip.at), format_seconds(flip.now)
    if than == now:  # nearer than their digits tell
        share = abs(flip.at / flip.now - 1.0)
        a_little = f"{100 * share:.2g} %" if share >= 0.0001 else "the least bit"
        return f"{flip.site} would win if {what} {a_little} {more} than now ({now})"
    return f"{flip.site} would win if {what} {more} than {than} (now {now})"


_NO_MODEL = Model(
    sites=(), workers=(), bandwidth=(), latency=(), held=(), copies=(), tasks=(), reads=(),
    sizes=(), fixed=(), per_byte=(), allowed=(), within=(),
)  # fmt: skip
