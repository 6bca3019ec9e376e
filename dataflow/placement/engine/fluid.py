"""Fluid: is any plan as fast as this possible? If not, that is a proven bound.

For a makespan that is asked for, a linear programme looks at shares of steps at sites and of copies on links,
relays included. A step counts at a site only if there is time for what has to be before and after
it, a copy on a link likewise. What cannot begin before one moment nor end after another has to fit in between
on the workers of its site, or on its link. If the least overload of any of these is more than nothing, no plan
is that fast. Large items travel on their own in the programme, small ones as bytes with others of their kind.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataflow.placement.engine.bounds import shortest
from dataflow.placement.engine.instance import Bools, Floats, Instance, Integers

#: So many thresholds for each end of the windows that work and copies have to fit into.
_THRESHOLDS = 5
#: Variables of copies that travel on their own; the rest goes with its kind.
_ALONE = 6000
#: Up to so many choices (step and site) steps are whole.
_WHOLE = 400
#: What solvers leave open.
_SLACK = 1e-6
#: More variables than this are not tried.
_MOST = 150_000

Term = tuple[int, float]


@dataclass(frozen=True)
class Times:
    """What takes no less: ``begin`` and ``after`` (start to the end of all) of steps by site (seconds);
    ``there`` and ``rest`` of copies of items by site: when the first can be there, and what follows from one.
    """

    begin: Floats
    after: Floats
    there: Floats
    rest: Floats


def times(one: Instance) -> Times:
    """Least seconds before and after everything, at every site, by the best routes and alone."""
    late, slow = shortest(one.latency), shortest(one.pace)
    there, rest = np.full((one.items, one.width), np.inf), np.full((one.items, one.width), np.inf)
    begin, after = np.zeros_like(one.seconds), np.zeros_like(one.seconds)
    for item in range(one.items):
        for home in one.homes[one.home_at[item] : one.home_at[item + 1]]:
            there[item] = np.minimum(there[item], late[home] + one.size[item] * slow[home])
    for step in one.sequence:
        begin[step] = there[_inputs(one, step)].max(axis=0, initial=0.0)
        ends = begin[step] + one.seconds[step]
        for item in one.outputs[one.output_at[step] : one.output_at[step + 1]]:
            there[item] = (ends[:, None] + late + one.size[item] * slow).min(axis=0)
    for step in one.sequence[::-1]:
        least = np.zeros(one.width)
        for item in one.outputs[one.output_at[step] : one.output_at[step + 1]]:
            move = late + one.size[item] * slow
            if one.deliver[item]:
                least = np.maximum(least, move[:, one.client])
            for reader in _readers(one, item):
                least = np.maximum(least, (move + after[reader]).min(axis=1))
        after[step] = least + one.seconds[step]
    for item in range(one.items):
        move = late + one.size[item] * slow
        if one.deliver[item]:
            rest[item] = move[:, one.client]
        for reader in _readers(one, item):
            rest[item] = np.minimum(rest[item], (move + after[reader]).min(axis=1))
    return Times(begin, after, there, rest)


def _inputs(one: Instance, step: int) -> Integers:
    found: Integers = one.inputs[one.input_at[step] : one.input_at[step + 1]]
    return found


def _readers(one: Instance, item: int) -> list[int]:
    found: list[int] = one.readers[one.reader_at[item] : one.reader_at[item + 1]].tolist()
    return found


def slowest_impossible(
    instance: Instance, known: float, seconds: float, *, makespan: float = np.inf
) -> float:
    """The greatest makespan that is proven to be out of reach, at least ``known``.

    Parameters
    ----------
    known
        A makespan (seconds) that no plan can be below.
    seconds
        How long to look.
    makespan
        What some plan reaches, if it is known.
    """
    if not instance.steps or not known > 0:
        return known
    begun, facts = time.monotonic(), times(instance)
    small = instance.steps * instance.width <= _WHOLE
    low, asked = known, makespan * (1 - 1e-3) if np.isfinite(makespan) else 1.5 * known
    for alone in (_ALONE,) if small else (0, _ALONE):  # from cheap to sharp
        high = makespan * (1 + 1e-9)
        while not np.isfinite(high) or high / low > 1.004:
            left = seconds - (time.monotonic() - begun)
            asked = max(asked, low * (1 + 1e-6))
            load = None
            if left > 0:
                load = _Programme(instance, facts, asked, alone).overload(left)
            if load is None:
                return low
            if load > 1 + _SLACK:
                low = asked
            else:
                high = asked
            if not np.isfinite(high):
                asked = low * max(1.2, min(load, 3.0))
                continue
            width = high / low
            # what is loaded by half needs about half the time, if nothing else does
            guess = asked * max(load, 1e-3) if width > 1.2 else 0.0
            asked = min(max(guess, low * width**0.25), low * width**0.75)
        asked = min(low * 1.02, makespan * (1 - 1e-3))
    return low


class _Programme:
    """Rows ``low <= A v``: shares of steps, of copies, bytes of kinds, and the greatest overload."""

    def __init__(self, one: Instance, facts: Times, limit: float, alone: int) -> None:
        self.one, self.facts, self.limit = one, facts, limit
        self.most_alone = alone
        self.rows: list[Sequence[Term]] = []
        self.low: list[float] = []
        self.upper: list[float] = []
        self.open: Bools = np.isfinite(one.seconds) & (
            facts.begin + facts.after <= limit * (1 + 1e-9)
        )
        self.possible = bool(self.open.any(axis=1).all())
        if not self.possible:
            return
        self.upper = self.open.ravel().astype(float).tolist()
        self.home = np.zeros((one.items, one.width), bool)
        self.home[np.repeat(np.arange(one.items), np.diff(one.home_at)), one.homes] = True
        self.unit = max(float(one.size.max(initial=0.0)), 1e-12)
        self.overload_at = self._variable(np.inf)
        #: Per link what may be on it: earliest start, least that follows, seconds, variable.
        self.carried: dict[tuple[int, int], list[tuple[float, float, float, int]]] = {}
        for step in range(one.steps):
            here = [(step * one.width + int(site), 1.0) for site in np.flatnonzero(self.open[step])]
            self._row(here, 1.0)
            self._row([(column, -1.0) for column, _ in here], -1.0)
        self._copies()
        self._sites()
        self._links()

    def _variable(self, upper: float) -> int:
        self.upper.append(upper)
        return len(self.upper) - 1

    def _row(self, terms: Sequence[Term], low: float) -> None:
        self.rows.append(terms)
        self.low.append(low)

    def _at(self, step: int, site: int, value: float = 1.0) -> list[Term]:
        """The share of a step at a site; nothing where it cannot be, nor for what nobody makes."""
        if step < 0 or not self.open[step, site]:
            return []
        return [(step * self.one.width + site, value)]

    # --- copies -----------------------------------------------------------------------------------

    def _copies(self) -> None:
        one = self.one
        wanted = (np.diff(one.reader_at) > 0) | one.deliver
        moving = np.flatnonzero(wanted & (one.size > 0))
        moving = moving[np.argsort(-one.size[moving], kind="stable")]
        each = max(1, one.width * (one.width - 1))
        alone = max(1, self.most_alone // each)
        kinds: dict[tuple[bytes, bytes, bool], list[int]] = {}
        for rank, item in enumerate(moving.tolist()):
            if rank < alone:
                self._alone(item)
            else:
                made = one.producer[item] >= 0
                key = (self.home[item].tobytes(), one.allowed[item].tobytes(), bool(made))
                kinds.setdefault(key, []).append(item)
        for members in kinds.values():
            self._kind(members)

    def _arc(self, a: int, b: int, lead: float, tail: float, seconds: float, upper: float) -> int:
        variable = self._variable(upper)
        self.carried.setdefault((a, b), []).append((lead, tail, seconds, variable))
        return variable

    def _begins(self, item: int) -> Bools:
        """Where an item can be without having moved."""
        maker = int(self.one.producer[item])
        found: Bools = self.open[maker] if maker >= 0 else self.home[item]
        return found

    def _alone(self, item: int) -> None:
        """Copies of one item: a share of it on every link."""
        one, facts = self.one, self.facts
        maker, size = int(one.producer[item]), float(one.size[item])
        arcs: dict[tuple[int, int], int] = {}
        sites = np.flatnonzero(one.allowed[item]).tolist()
        for a in sites:
            for b in sites:
                if a == b or self.home[item, b]:
                    continue
                seconds = size * one.pace[a, b]
                lead, tail = facts.there[item, a], facts.rest[item, b] + one.latency[a, b]
                if lead + seconds + tail <= self.limit * (1 + 1e-9):
                    arcs[a, b] = self._arc(a, b, lead, tail, seconds, 1.0)
        into = {b: [(v, 1.0) for (_, to), v in arcs.items() if to == b] for b in sites}
        out = {a: [(v, 1.0) for (at, _), v in arcs.items() if at == a] for a in sites}
        for (a, b), variable in arcs.items():
            if not self.home[item, a]:
                comes = [(v, 1.0) for (at, to), v in arcs.items() if to == a and at != b]
                self._row([(variable, -1.0), *self._at(maker, a), *comes], 0.0)
        self._needs(item, into)
        self._leaves(item, [(a, [(v, w) for v, w in out.get(a, [])]) for a in sites])

    def _needs(self, item: int, into: dict[int, list[Term]]) -> None:
        """A copy has to come wherever it is read and not made."""
        one, maker = self.one, int(self.one.producer[item])
        for b, comes in into.items():
            if self.home[item, b]:
                continue
            terms = [*comes, *self._at(maker, b)]
            for reader in _readers(one, item):
                if self.open[reader, b]:
                    self._row([*terms, *self._at(reader, b, -1.0)], 0.0)
            if one.deliver[item] and b == one.client:
                self._row(terms, 1.0)

    def _leaves(self, item: int, out: list[tuple[int, list[Term]]]) -> None:
        """It has to leave where it begins if anybody else wants it."""
        one, maker = self.one, int(self.one.producer[item])
        begins = self._begins(item)
        if maker < 0:  # any of its homes
            terms = [term for a, leaves in out if begins[a] for term in leaves]
            homes = np.flatnonzero(begins).tolist()
            for reader in _readers(one, item):
                self._row([*terms, *(t for a in homes for t in self._at(reader, a))], 1.0)
            if one.deliver[item] and not begins[one.client]:
                self._row(terms, 1.0)
            return
        for a, leaves in out:
            if begins[a]:
                here = self._at(maker, a, -1.0)
                for reader in _readers(one, item):
                    self._row([*leaves, *here, *self._at(reader, a)], 0.0)
                if one.deliver[item] and a != one.client:
                    self._row([*leaves, *here], 0.0)

    def _kind(self, members: list[int]) -> None:
        """Items that begin alike and may be at the same sites: their bytes together on every link."""
        one, facts = self.one, self.facts
        first = members[0]
        share = {item: float(one.size[item]) / self.unit for item in members}
        sites = np.flatnonzero(one.allowed[first]).tolist()
        lead, tail = facts.there[members].min(axis=0), facts.rest[members].min(axis=0)
        least = float(one.size[members].min())
        arcs: dict[tuple[int, int], int] = {}
        for a in sites:
            for b in sites:
                if a == b or self.home[first, b]:
                    continue
                after = tail[b] + one.latency[a, b]
                if lead[a] + after + least * one.pace[a, b] <= self.limit * (1 + 1e-9):
                    arcs[a, b] = self._arc(a, b, lead[a], after, self.unit * one.pace[a, b], np.inf)
        comes: dict[int, list[Term]] = {b: [] for b in sites}
        leaves: dict[int, list[Term]] = {a: [] for a in sites}
        for item in members:
            into: dict[int, list[Term]] = {}
            for b in sites:
                if not self.home[item, b]:
                    variable = self._variable(1.0)
                    into[b] = [(variable, 1.0)]
                    comes[b].append((variable, -share[item]))
            self._needs(item, into)
            begins = np.flatnonzero(self._begins(item)).tolist()
            if one.producer[item] < 0:
                variable = self._variable(1.0)
                leaves[begins[0]].append((variable, -share[item]))
                self._leaves(item, [(begins[0], [(variable, 1.0)])])
            else:
                out = []
                for a in begins:
                    variable = self._variable(1.0)
                    leaves[a].append((variable, -share[item]))
                    out.append((a, [(variable, 1.0)]))
                self._leaves(item, out)
        homes = np.flatnonzero(self.home[first]).tolist()
        for b in sites:
            if comes[b]:
                self._row([*((v, 1.0) for (_, to), v in arcs.items() if to == b), *comes[b]], 0.0)
        for a in sites:
            if leaves[a]:
                from_ = homes or [a]
                carry = [(v, 1.0) for (at, _), v in arcs.items() if at in from_]
                self._row([*carry, *leaves[a]], 0.0)
            if homes and a in homes:
                continue
            made = [
                (column, value * share[item])
                for item in members
                for column, value in self._at(int(one.producer[item]), a)
            ]
            for (at, b), variable in arcs.items():
                if at == a:
                    more = [(v, 1.0) for (x, to), v in arcs.items() if to == a and x != b]
                    self._row([(variable, -1.0), *made, *more], 0.0)

    # --- what sites and links are able to do -----------------------------------------------------------

    def _sites(self) -> None:
        one, facts = self.one, self.facts
        for site in range(one.width):
            steps = np.flatnonzero(self.open[:, site])
            work = one.seconds[steps, site]
            head, tail = facts.begin[steps, site], facts.after[steps, site] - work
            self._windows(head, tail, work / one.workers[site], steps * one.width + site)

    def _links(self) -> None:
        for carried in self.carried.values():
            lead, tail, takes, columns = (np.array(column) for column in zip(*carried, strict=True))
            self._windows(lead, tail, takes, columns.astype(np.int64))

    def _windows(self, head: Floats, tail: Floats, takes: Floats, columns: Integers) -> None:
        """What is between two moments fits in between, or is too much by the overload."""
        seen = set()
        for begin in _some(head):
            for end in _some(tail):
                inside = (head >= begin) & (tail >= end) & (takes > 0)
                room = self.limit - begin - end
                key = inside.tobytes()
                if not inside.any() or room <= 0 or key in seen:
                    continue
                seen.add(key)
                loads = [
                    (int(column), -float(load) / room)
                    for column, load in zip(columns[inside], takes[inside], strict=True)
                ]
                self._row([(self.overload_at, 1.0), *loads], 0.0)

    def overload(self, seconds: float) -> float | None:
        """The least possible overload (1: everything just fits); nothing if it was not found in time."""
        from scipy.optimize import Bounds as Box
        from scipy.optimize import LinearConstraint, linprog, milp
        from scipy.sparse import csr_array

        if not self.possible:
            return 2.0
        count = len(self.upper)
        if count > _MOST:
            return None
        lengths = [len(terms) for terms in self.rows]
        columns = np.array([column for terms in self.rows for column, _ in terms])
        values = np.array([value for terms in self.rows for _, value in terms])
        where = np.repeat(np.arange(len(lengths)), lengths)
        matrix: Any = csr_array((values, (where, columns)), shape=(len(lengths), count))
        low, upper, cost = np.array(self.low), np.array(self.upper), np.zeros(count)
        cost[self.overload_at] = 1.0
        box = np.stack([np.zeros(count), upper], axis=1)
        options = {"time_limit": max(0.1, seconds)}
        found = linprog(
            cost, A_ub=-matrix, b_ub=-low, bounds=box, method="highs-ipm", options=options
        )
        if found.status == 2:
            return 2.0
        if found.status != 0:
            return None
        load = float(found.fun)
        choices = self.one.steps * self.one.width
        if load > 1 + _SLACK or choices > _WHOLE or load < 0.5:
            return load
        whole = np.zeros(count)
        whole[:choices] = 1
        result = milp(
            cost, integrality=whole, bounds=Box(np.zeros(count), upper),
            constraints=LinearConstraint(matrix, low, np.inf),
            options={"time_limit": max(0.1, min(seconds / 4, 3.0)), "mip_rel_gap": 1e-4},
        )  # fmt: skip
        if result.status == 2:
            return 2.0
        bound = result.mip_dual_bound
        return load if bound is None or not np.isfinite(bound) else max(load, float(bound))


def _some(values: Floats) -> list[float]:
    """Some of the values, from the least on."""
    if not len(values):
        return []
    parts = np.linspace(0.0, 1.0, _THRESHOLDS)
    return [float(value) for value in np.unique(np.quantile(values, parts, method="lower"))]
