"""Search: the best plan that can be found for an effort, from many simple ones.

The rivals come first and stay in the race, so that no plan is worse than they are. Then list
passes over all sites and over few, with dear and with cheap bytes; then single moves on loads, whose
result hints another pass; then the best are climbed from. Every plan is judged by playing it.

Pure and deterministic: effort is counted in steps played, not in seconds. Whoever passes a clock
gets an answer in time on a slow machine too, at the price of a plan that depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest

import numpy as np

from dataflow.placement.engine import compiled
from dataflow.placement.engine.bounds import Bounds, bounds
from dataflow.placement.engine.climb import climb
from dataflow.placement.engine.cuts import Lightest, least_bytes
from dataflow.placement.engine.effort import CALL
from dataflow.placement.engine.exact import proven
from dataflow.placement.engine.instance import Instance, Integers, capacity
from dataflow.placement.engine.loads import refine
from dataflow.placement.engine.race import PLAN, AnyNetwork, Objective, Race, exchange_rate
from dataflow.placement.engine.rivals import Lists, simple
from dataflow.placement.engine.routes import routed
from dataflow.placement.engine.simulate import (
    NETWORKS,
    Choice,
    Outcome,
    check,
    simulate,
)

#: Seconds that an effort without a budget stands for: at least, and per step.
LEAST_BUDGET, STEP_BUDGET = 0.05, 1e-4
#: Of fewest bytes, seconds at least and per step.
_BYTES_LEAST, _BYTES_STEP = 0.0025, 8e-6
#: Shares of a budget: counted without a clock, counted where there is room or a clock, and by the clock.
_COUNTED, _WHOLE, _WAITED = 0.8, 0.85, 0.85
#: For makespan, a plan with fewer bytes may be so many times slower than the fastest that was met.
_SLOWER = 1.01
#: What a second of a further link is worth as seconds of a later arrival; and
#: from which gain in score on changes are tried with routes, by the part of a climb.
_TOLLS = (1.0, 0.3)
_ASKED = {0.2: 0.03, 1.0: 0.003}
#: By how much a plan may be worse at the beginning of a climb, of one after the other (as a share).
_WARM = (0.02, 0.06, 0.15)
#: The list pass for links without queues: how often transfers count, the price of a byte, and no contention.
_LOOSE = (0.5, 0.02, False)
#: How much more effort is thought of for a network, as a multiple.
_LONGER: Mapping[AnyNetwork, float] = {"serial": 1.0, "free": 1.0, "fair": 2.0, "any": 6.0}
#: Beyond so many steps single changes are not worth playing everything.
_CLIMBED = 20_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Placed:
    """A plan, what becomes of it, and how good it is at least.

    Attributes
    ----------
    choice, outcome
        What is decided and what it leads to.
    bounds
        What no plan can beat.
    rivals
        Makespan and bytes of the simple planners.
    score
        What was minimised: ``log seconds + exchange * log bytes``; for any network, seconds are a weighted
        geometric mean of those with queues and those without.
    origin
        Which part of the search found it.
    plans
        Number of plans that were played.
    """

    choice: Choice
    outcome: Outcome
    bounds: Bounds
    rivals: Mapping[str, tuple[float, float]]
    score: float
    origin: str
    plans: int

    @property
    def gap(self) -> tuple[float, float]:
        """How far makespan and bytes may be above the least possible (0.1: 10 %)."""
        return self.bounds.gap(self.outcome.makespan, self.outcome.nbytes)


def place(
    instance: Instance,
    objective: Objective = "makespan",
    *,
    seed: int = 0,
    budget: float | None = None,
    clock: Callable[[], float] | None = None,
    prove: float = 0.0,
    relays: bool = True,
    network: AnyNetwork = "serial",
) -> Placed:
    """The best plan that an effort finds.

    Parameters
    ----------
    instance
        The problem.
    objective
        ``makespan``, ``bytes``, or a weight between them from 0 to 1.
    seed
        Equal seeds give equal plans.
    budget
        Seconds that the effort stands for on an ordinary machine; by default 0.1 ms per step, at
        least 50 ms; more for the networks ``fair`` and ``any``.
    clock
        Seconds since any moment; if given, the budget is kept on this machine, whatever it does.
    prove
        Seconds for better bounds by integer programming, on top of the budget.
    relays
        Whether copies may take other ways than the default one.
    network
        How links behave, see :mod:`~dataflow.placement.engine.simulate`. With ``any`` the plan is to be good with
        queues on links and without, and what becomes of it is said with queues.

    Raises
    ------
    ValueError
        The weight or the budget is out of range, or there is no such network; or better bounds are asked for
        on one without queues, of which integer programming knows nothing.
    """
    if budget is not None and not budget > 0:
        raise ValueError(f"a budget is more than 0 seconds, not {budget:g}")
    if network not in _LONGER:
        raise ValueError(f"a network is {', '.join(_LONGER)}, not {network!r}")
    if prove > 0 and network == "free":
        raise ValueError("better bounds are of networks with queues, not of free ones")
    exchange = exchange_rate(objective)
    fewest = math.isinf(exchange)
    effort = budget if budget is not None else _LONGER[network] * _effort(instance, fewest)
    if fewest:  # below that it is calls that take the time, and cuts would be left out
        effort = max(effort, _BYTES_LEAST)
    counted = _COUNTED if budget is not None and clock is None else _WHOLE
    race = Race(instance, exchange, effort * counted, effort * _WAITED, clock, network)
    takes = race.takes
    lists = Lists(instance)
    state = np.array([1 + (seed * 7919 + 12345) % 2147483645], np.int64)
    race.pay(takes.start + takes.bounding)
    least = bounds(instance)
    if instance.steps and fewest:
        _fewest(race, lists)
    elif instance.steps:
        _first(race, lists)
    rivals = {}
    for name, make in simple(lists).items():
        if name.startswith("site:") and (race.left < 0.6 * effort or race.over()):
            continue
        race.pay(takes.listing + CALL)
        ample = instance.steps < _CLIMBED and race.left > 0.5 * effort
        rivals[name] = race.enter(make(), name, exact=ample)
    if instance.steps and not fewest:
        if race.left > 12 * instance.width * takes.cutting:
            _lighter(race, lists, race.found[0][3].site)
        _passes(race, lists, state)
        if relays:
            _routes(race, 4, 0.0)
        _climbs(race, state, relays=relays)
    best = race.best(_SLOWER if objective == "makespan" else math.inf)
    score, _, _, choice, origin = best
    outcome = race.outcome if best is race.found[0] else None
    if outcome is not None and math.isfinite(outcome.makespan):
        check(instance, choice)
    else:
        outcome = simulate(instance, choice, race.network)
    if prove > 0:
        least = proven(instance, least, prove, makespan=outcome.makespan)
    return Placed(
        choice=choice, outcome=outcome, bounds=least, rivals=rivals, score=score, origin=origin,
        plans=race.plans,
    )  # fmt: skip


def _effort(instance: Instance, fewest: bool) -> float:
    """Seconds that are thought of where nobody says how many."""
    if fewest:
        effort = max(_BYTES_LEAST, _BYTES_STEP * instance.steps)
    else:
        effort = max(LEAST_BUDGET, STEP_BUDGET * instance.steps)
    if compiled.is_plain():
        effort *= 10.0  # small graphs only, where nobody notices
    return effort


def _lighter(race: Race, lists: Lists, start: Integers, cuts: int | None = None) -> Lightest:
    """Fewest bytes from one plan; a cheap candidate for every other aim as well."""
    found = least_bytes(race.instance, start, cuts=cuts)
    race.pay(found.rounds * race.takes.lighter + (found.cuts + 1) * race.takes.cutting)
    race.enter(Choice(site=found.site, order=lists.ranked()[1]), "cuts", exact=True)
    return found


def _fewest(race: Race, lists: Lists) -> None:
    """Fewest bytes: single moves from every simple plan, and cuts from the best."""
    instance, takes = race.instance, race.takes
    race.pay(takes.ranking)
    power = np.argsort(-capacity(instance), kind="stable").tolist()
    starts: list[Callable[[], Integers]] = [lambda: lists.collector().site, lists.local]
    starts += [partial(lambda site: lists.one_site(site).site, site) for site in power]
    found: list[Lightest] = []
    for number, start in enumerate(starts):
        if number > 1 and (instance.steps > _CLIMBED or race.left < 0.7 * race.whole):
            break
        found.append(least_bytes(instance, start(), cuts=0))
        race.pay(takes.listing + found[-1].rounds * takes.lighter + takes.loads)
    found.sort(key=lambda one: one.nbytes)
    keep = race.takes.playing(race.moves) * 2.5 + 4 * takes.listing  # for the rivals
    best, seen = found[0], set()
    for one in found:
        if one.nbytes in seen:
            continue
        seen.add(one.nbytes)
        cuts = int((race.left - keep) / takes.cutting)
        if cuts < 1 or (instance.steps > _CLIMBED and cuts < instance.width):
            break
        better = least_bytes(instance, one.site, cuts=cuts)
        race.pay(better.rounds * takes.lighter + better.cuts * takes.cutting)
        best = min(best, better, key=lambda one: one.nbytes)
    race.enter(Choice(site=best.site, order=lists.ranked()[1]), "cuts", exact=True)


def _first(race: Race, lists: Lists) -> None:
    """The one list pass that is best when there is no time for a second."""
    instance = race.instance
    mean = float(instance.pace.sum()) / max(1, instance.width * (instance.width - 1))
    listed, order = lists.ranked(2.0)
    site, _ = lists.assign(listed, lists.ahead(2.0), price=mean * _dear(race.exchange))
    race.pay(race.takes.ranking + race.takes.table + race.takes.listing)
    race.enter(Choice(site=site, order=order), "first", exact=True)


def _dear(exchange: float) -> float:
    """The price of a byte in a list pass, in units of what a mean link takes for it."""
    return min(exchange, 1.0) * 5.0 + 0.05


def _passes(race: Race, lists: Lists, state: Integers) -> None:
    """List passes, from the most promising kind on, while they can be afforded."""
    instance = race.instance
    width = instance.width
    stop = race.left * (0.6 if instance.steps < _CLIMBED else 0.0)
    power = np.argsort(-capacity(instance), kind="stable").tolist()
    mean = float(instance.pace.sum()) / max(1, width * (width - 1))
    dear = _dear(race.exchange)
    groups: list[tuple[int, ...]] = [tuple(range(width))]
    groups += [tuple(power[:k]) for k in range(width - 1, 1, -1)]
    groups += [(site,) for site in power]
    groups += [(a, b) for i, a in enumerate(power) for b in power[i + 1 :]]
    # the kinds take turns: all sites, then every group once, then the other prices
    kinds = ((2.0, dear, True), (1.0, 4 * dear, True), (3.0, 0.2 * dear, True))
    recipes = [(*kinds[1], groups[0])]  # the first kind over all sites has been first
    recipes += [(*kinds[0], group) for group in groups[1:]]
    recipes.append((*kinds[2], groups[0]))
    recipes += [(*kind, group) for kind in kinds[1:] for group in groups[1:]]
    loose = [(*_LOOSE, group) for group in groups]
    if race.network == "free":
        recipes = loose + recipes
    elif race.share:
        turns = zip_longest(loose, recipes)
        recipes = [one for turn in turns for one in turn if one is not None]
    for allowance, price, contention, group in recipes:
        if race.over() or race.left < stop:
            return
        if (
            instance.steps >= _CLIMBED
            and race.left < race.takes.table + race.takes.listing + race.one
        ):
            return  # of what takes so long nothing is begun that there is no time for
        use = lists.only(*group)
        rest = lists.ahead(allowance, use)
        listed, order = lists.ranked(allowance)
        site, _ = lists.assign(listed, rest, price=price * mean, use=use, contention=contention)
        race.pay(race.takes.table + race.takes.listing)
        race.enter(Choice(site=site, order=order), f"list {allowance:g}/{len(group)}")
        if contention and (group == groups[0] or (len(group) == 2 and allowance == 2.0)):
            better = _refined(race, site, state)
            race.enter(Choice(site=better, order=order), "loads")
            bonus = 0.05 * race.found[0][1]
            again, _ = lists.assign(listed, rest, price=price * mean, hint=better, bonus=bonus)
            race.pay(race.takes.listing)
            race.enter(Choice(site=again, order=order), "hinted")


def _refined(race: Race, site: Integers, state: Integers, rounds: int = 3) -> Integers:
    instance = race.instance
    better: Integers = refine(*instance.graph, site, rounds, 5.0 * race.exchange + 0.2, 1.0, state)
    race.pay(rounds * race.takes.refining)
    return better


def _routes(race: Race, most: int, gain: float) -> float:
    """Give the best plans routes; the toll that served best, or -1 where that gains too little."""
    instance, takes = race.instance, race.takes
    if instance.steps > _CLIMBED or instance.width < 3:
        return -1.0
    best = _TOLLS[0]
    for _, _, _, choice, _ in race.found[:most]:
        for toll in _TOLLS:
            rounds = 2 if race.left > 0.5 * race.whole else 1
            if race.left < takes.playing(3 * race.moves, rounds + 1) or race.over():
                break
            before = race.found[0][0]
            span, nbytes, own, played = routed(
                *instance.graph, instance.home_at, instance.homes, instance.allowed, choice.site,
                choice.order, toll, rounds, NETWORKS[race.network],
            )  # fmt: skip
            race.pay(takes.playing(2 * played, rounds + 1) + CALL)
            race.plans += rounds + 1
            if not len(own):
                break  # the default ways are the fastest
            race.keep(replace(choice, transfers=own), span, nbytes, "routes")
            if race.found[0][0] < before:
                best = toll
    return best if race.found[0][0] < race.straight - gain else -1.0


def _climbs(race: Race, state: Integers, *, relays: bool) -> None:
    """Climb from the best plans, most from the very best."""
    instance = race.instance
    if instance.steps > _CLIMBED:
        return
    toll, cycle = -1.0, 0
    wayward = relays and instance.width > 2
    for part in (0.12, 0.15, 0.2, 0.5, 1.0):
        if relays and toll < 0 and part in _ASKED:
            toll = _routes(race, 3, _ASKED[part])
        dear = 1 if toll < 0 else 2  # finding ways takes about as long as playing
        tries = int(race.affordable() * part / dear)
        if tries < 8 or race.over():
            continue
        rank = {0.12: 1, 0.15: 2}.get(part, 0)
        start = race.found[min(rank, len(race.found) - 1)]
        for chunk in _chunks(tries, race):
            ways = toll
            if wayward and toll < 0 and (cycle % 2 or len(start[3].transfers)):
                ways = _TOLLS[0]  # where there is time for many climbs, every second one finds ways
            own = start[3].transfers if ways >= 0 else start[3].transfers[:0]
            found = climb(
                *instance.graph, instance.home_at, instance.homes, instance.allowed, start[3].site,
                start[3].order, own, chunk, _WARM[cycle % len(_WARM)] * (1.0 if part < 1.0 else 0.4), 0.0005,
                race.exchange, instance.total_bytes, ways, NETWORKS[race.network], race.share, state,
            )  # fmt: skip
            race.moves = found[4] / chunk
            dear = 1 if ways < 0 else 2
            race.pay(race.takes.playing(dear * found[4], chunk) + chunk * PLAN)
            race.plans += chunk
            better = Choice(site=found[0], order=found[1], transfers=found[5])
            race.keep(better, found[2], found[3], "climb")
            if chunk >= _cycle(instance):
                cycle += 1
            # the best is climbed from every second time, the others in turn
            start = race.found[cycle // 2 % len(race.found) if cycle % 2 else 0]
            if race.over():
                return


def _cycle(instance: Instance) -> int:
    """After so many tries a climb is better begun anew, hotter or from another plan."""
    return 300 + 25 * instance.steps


def _chunks(tries: int, race: Race) -> list[int]:
    """Tries in parts, so that climbs begin anew, and a clock is looked at in between."""
    most = max(50, min(int(0.3 / race.one), _cycle(race.instance)))
    count = max(1, tries // most)
    return [tries * (n + 1) // count - tries * n // count for n in range(count)]
