"""Rivals: the simple planners that every plan is compared with, and that no plan may lose to.

``heft`` is the classic: upward ranks, earliest end, links without queues. ``locality`` runs each
step where most of its input is. ``site:NAME`` runs all that may at one site, and ``collector`` at
the site that holds most bytes. ``peft`` looks ahead with the optimistic table of the literature,
``earliest`` starts each step as it comes where it can start first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from dataflow.placement.engine.instance import Bools, Floats, Instance, Integers
from dataflow.placement.engine.lists import ahead, assign, lift, nearest_data, ranks
from dataflow.placement.engine.simulate import Choice


class Lists:
    """List passes over one instance: ranks, orders and tables, each made once."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.everywhere = np.ones(instance.width, bool)
        self.place = np.empty(instance.steps)
        self.place[instance.sequence] = np.arange(instance.steps)
        self._listed: dict[float, tuple[Integers, Floats]] = {}
        self._ahead: dict[tuple[float, bytes], Floats] = {}
        self._no_rest = np.zeros((instance.steps, instance.width))
        self._no_hint = np.full(instance.steps, -1, np.int64)

    def ranked(self, allowance: float = 1.0) -> tuple[Integers, Floats]:
        """Steps by upward rank, and each step's number in that order."""
        if allowance not in self._listed:
            instance = self.instance
            rank = ranks(*instance.graph, instance.sequence, allowance)
            self._listed[allowance] = self.by(-rank)
        return self._listed[allowance]

    def by(self, key: Floats) -> tuple[Integers, Floats]:
        """Steps by a key, in an order in which they can run where keys are equal."""
        listed = np.lexsort((self.place, key)).astype(np.int64)
        order = np.empty(len(listed))
        order[listed] = np.arange(len(listed))
        return listed, order

    def ahead(self, allowance: float, use: Bools | None = None) -> Floats:
        """The optimistic table, see :func:`~dataflow.placement.engine.lists.ahead`."""
        use = self.everywhere if use is None else use
        key = (allowance, use.tobytes())
        if key not in self._ahead:
            if len(self._ahead) > 4:
                self._ahead.clear()
            instance = self.instance
            self._ahead[key] = ahead(*instance.graph, instance.sequence, allowance, use)
        return self._ahead[key]

    def assign(
        self,
        listed: Integers,
        rest: Floats | None = None,
        *,
        weight: float = 1.0,
        price: float = 0.0,
        use: Bools | None = None,
        hint: Integers | None = None,
        bonus: float = 0.0,
        contention: bool = True,
    ) -> tuple[Integers, Floats]:
        """One list pass; see :func:`~dataflow.placement.engine.lists.assign`."""
        instance = self.instance
        site, begin = assign(
            *instance.graph, instance.home_at, instance.homes, listed,
            self._no_rest if rest is None else rest, weight, price,
            self.everywhere if use is None else use,
            self._no_hint if hint is None else hint, bonus, contention,
        )  # fmt: skip
        return site, begin

    def local(self, use: Bools | None = None) -> Integers:
        """Greedy locality."""
        instance = self.instance
        site: Integers = nearest_data(
            *instance.graph, instance.sequence, self.everywhere if use is None else use
        )
        return site

    def only(self, *sites: int) -> Bools:
        """A mask of sites."""
        use = np.zeros(self.instance.width, bool)
        use[list(sites)] = True
        return use

    # --- the rivals -------------------------------------------------------------------------------

    def heft(self) -> Choice:
        """Classic HEFT."""
        listed, order = self.ranked()
        site, _ = self.assign(listed, contention=False)
        return Choice(site=site, order=order)

    def locality(self) -> Choice:
        """Each step where it misses the fewest bytes."""
        return Choice(site=self.local(), order=self.ranked()[1])

    def one_site(self, site: int) -> Choice:
        """Everything at one site; what may not run there where most of its input is."""
        return Choice(site=self.local(self.only(site)), order=self.ranked()[1])

    def collector(self) -> Choice:
        """Everything at the site that holds most bytes."""
        held = np.zeros(self.instance.width)
        lengths = np.diff(self.instance.home_at)
        np.add.at(held, self.instance.homes, np.repeat(self.instance.size, lengths))
        return self.one_site(int(held.argmax()))

    def peft(self) -> Choice:
        """Earliest end plus the optimistic table, ranked by its mean; links without queues."""
        rest = self.ahead(1.0)
        mean = rest.mean(axis=1) + np.where(
            np.isfinite(self.instance.seconds), self.instance.seconds, 0
        ).max(axis=1)
        listed, order = self.topological(-mean)
        site, _ = self.assign(listed, rest, contention=False)
        return Choice(site=site, order=order)

    def earliest(self) -> Choice:
        """As they come, each where it can start first."""
        listed, order = self.by(self.place)
        site, _ = self.assign(listed)
        return Choice(site=site, order=order)

    def topological(self, key: Floats) -> tuple[Integers, Floats]:
        """Steps by a key, made legal: no step before one that it needs."""
        instance = self.instance
        key = key.copy()
        lift(*instance.graph, instance.sequence, key)
        return self.by(key)


def simple(lists: Lists) -> dict[str, Callable[[], Choice]]:
    """The rivals that every plan is held against, cheap ones that are hard to beat first."""
    instance = lists.instance
    found: dict[str, Callable[[], Choice]] = {
        "heft": lists.heft,
        "locality": lists.locality,
        "collector": lists.collector,
    }
    largest = np.argsort(-instance.workers, kind="stable")
    for site in largest[: 3 if instance.steps > 2000 else None].tolist():
        found[f"site:{instance.sites[site]}"] = partial(lists.one_site, site)
    return found
