"""Flip: by how much one fact would have to be otherwise for another site to win.

A step stands at one site in the plan and could stand at another, with all else as planned. Which of
the two is better is asked again and again of the model that the plan was chosen by, with a link
faster or slower, an item larger or smaller, or the step itself quicker or slower; the nearest point
at which the answer turns is the flip point. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dataflow.placement.aim import better
from dataflow.placement.cost import transfers
from dataflow.placement.figures import figures
from dataflow.placement.model import Fact, Model

#: A fact is thought of as up to so many times larger or smaller.
MOST_FACTOR = 1e4
#: Steps of the search between 1 and that, by equal factors; within one of them it is halved.
_STEPS, _HALVINGS = 24, 34
#: So many links and items are looked at for one candidate, those that carry most first.
_MOST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """One fact, and the value from which on another site would be the better choice.

    Attributes
    ----------
    site
        The site that would win.
    fact, about
        ``bandwidth`` of the link ``(source, target)``, ``size`` of the item ``(key,)``, or ``work``
        of the step at ``(site,)``.
    now, at
        Its value in the plan, and the nearest one at which the other site wins: bytes/s, bytes or
        seconds.
    """

    site: str
    fact: Fact
    about: tuple[str, ...]
    now: float
    at: float

    @property
    def factor(self) -> float:
        """How many times the present value that is, or its inverse if it is less."""
        return max(self.at / self.now, self.now / self.at)


def flips(model: Model, sites: Sequence[int], task: int, to: int) -> tuple[Flip, ...]:
    """All flip points for one step and one other site, the least change first.

    Parameters
    ----------
    sites
        The plan: the number of the site of each step.
    to
        The site that the step is thought of at. If that is better already there are none.
    """
    moved = (*sites[:task], to, *sites[task + 1 :])
    if wins(model, sites, moved):
        return ()
    found = []
    for fact, where, most in _facts(model, sites, moved, task):
        now = value(model, fact, where)
        factor = _turn(model, fact, where, sites, moved, most) if now > 0 else None
        if factor is not None:
            about = _names(model, fact, where)
            at = now * factor
            found.append(Flip(site=model.sites[to], fact=fact, about=about, now=now, at=at))
    return tuple(sorted(found, key=lambda flip: (flip.factor, flip.fact, flip.about)))


def wins(model: Model, sites: Sequence[int], other: Sequence[int]) -> bool:
    """Whether another choice of sites is better in this model."""
    problem, aim = model.problem(), model.aim
    return better(aim.score(figures(problem, other)), aim.score(figures(problem, sites)))


def value(model: Model, fact: Fact, where: tuple[int, int]) -> float:
    """A fact as it stands: bytes/s, bytes or seconds."""
    one, other = where
    if fact == "bandwidth":
        return model.bandwidth[one][other]
    if fact == "size":
        made = one - len(model.held)
        return model.moves[made] if model.moves and made >= 0 else model.sizes[one]
    read = sum(model.sizes[item] for item in model.reads[one])
    return model.fixed[one][other] + model.per_byte[one][other] * read


def _facts(
    model: Model, sites: Sequence[int], moved: Sequence[int], task: int
) -> list[tuple[Fact, tuple[int, int], float]]:
    """What may matter, and which way: links and items that the two choices use differently.

    A link that the other choice uses more is thought of as faster, one that it uses less as slower;
    and so the step itself at the two sites.
    """
    problem = model.problem()
    links: dict[tuple[int, int], float] = {}
    items: dict[int, float] = {}
    for choice, sign in ((sites, -1.0), (moved, 1.0)):
        for item, target in transfers(problem, choice):
            source, nbytes, _ = problem.arrival(item, choice, target)
            links[source, target] = links.get((source, target), 0.0) + sign * nbytes
            items[item] = items.get(item, 0.0) + sign * nbytes
    most_links = sorted((k for k in links if links[k]), key=lambda k: (-abs(links[k]), k))[:_MOST]
    most_items = sorted((k for k in items if items[k]), key=lambda k: (-abs(items[k]), k))[:_MOST]
    less = 1 / MOST_FACTOR
    found: list[tuple[Fact, tuple[int, int], float]] = [
        ("bandwidth", link, MOST_FACTOR if links[link] > 0 else less) for link in most_links
    ]
    found += [("size", (item, 0), most) for item in most_items for most in (less, MOST_FACTOR)]
    found += [("work", (task, sites[task]), MOST_FACTOR), ("work", (task, moved[task]), less)]
    return found


def _turn(
    model: Model,
    fact: Fact,
    where: tuple[int, int],
    sites: Sequence[int],
    moved: Sequence[int],
    most: float,
) -> float | None:
    """The least factor towards ``most`` from which on the other choice wins; ``None``: never."""

    def turned(share: float) -> bool:
        return wins(model.changed(fact, where, most**share), sites, moved)

    low, high = 0.0, 0.0
    for step in range(1, _STEPS + 1):
        high = step / _STEPS
        if turned(high):
            break
        low = high
    else:
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if turned(middle) else (middle, high)
    return float(most**high)


def _names(model: Model, fact: Fact, where: tuple[int, int]) -> tuple[str, ...]:
    one, other = where
    if fact == "bandwidth":
        return (model.sites[one], model.sites[other])
    if fact == "size":
        return ((*model.held, *model.tasks)[one],)
    return (model.sites[other],)
