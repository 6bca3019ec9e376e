"""Classics: planners of the literature and of other systems, to be compared with.

They are what benchmarks hold plans against, and no part of the search: classic list schedulers with
links that never queue (``cpop``, ``peft``, ``min_min``), what Dask does at heart (``earliest``), a
broker's weight after PanDA (``weighted``), everything fetched to who asks (``fetch_all``), and
``chance``. ``heft``, ``locality``, ``collector`` and single sites stand in
:mod:`~dataflow.placement.engine.rivals`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dataflow.placement.engine.instance import Floats, Instance, Integers
from dataflow.placement.engine.lists import ranks
from dataflow.placement.engine.rivals import Lists
from dataflow.placement.engine.simulate import Choice


def classics(lists: Lists, seed: int = 0) -> dict[str, Callable[[], Choice]]:
    """Twelve baselines by name; the best single site is one of them."""
    return {
        "heft": lists.heft,
        "cpop": lambda: cpop(lists),
        "peft": lists.peft,
        "min-min": lambda: min_min(lists),
        "locality": lists.locality,
        "collector": lists.collector,
        "fetch-all": lambda: lists.one_site(lists.instance.client),
        "earliest": lists.earliest,
        "weighted": lambda: weighted(lists),
        "random": lambda: chance(lists, seed),
        "fastest-site": lambda: lists.one_site(_fastest(lists.instance)),
        "largest-site": lambda: lists.one_site(int(lists.instance.workers.argmax())),
    }


def cpop(lists: Lists) -> Choice:
    """Critical path on one site: what lies on the longest way stays together, the rest ends early."""
    instance = lists.instance
    up: Floats = ranks(*instance.graph, instance.sequence, 1.0)
    mean = _mean_seconds(instance)
    down = np.zeros(instance.steps)
    late, slow = _mean_link(instance)
    for step in instance.sequence.tolist():
        for item in _inputs(instance, step):
            maker = int(instance.producer[item])
            if maker >= 0:
                takes = mean[maker] + late + instance.size[item] * slow
                down[step] = max(down[step], down[maker] + takes)
    length = up + down
    critical = length >= length.max(initial=0.0) * (1 - 1e-9)
    takes = np.where(np.isfinite(instance.seconds), instance.seconds, np.inf)[critical]
    open_ = np.isfinite(takes).sum(axis=0)
    total = np.where(np.isfinite(takes), takes, 0.0).sum(axis=0)
    best = int(np.lexsort((total, -open_))[0]) if len(takes) else 0
    hint = np.where(critical, best, -1).astype(np.int64)
    listed, order = lists.topological(-length)
    site, _ = lists.assign(listed, hint=hint, bonus=1e18, contention=False)
    return Choice(site=site, order=order)


def min_min(lists: Lists) -> Choice:
    """Of all steps that are ready the one that can end first, where it can; then the next."""
    instance = lists.instance
    steps, width = instance.steps, instance.width
    site, order = np.zeros(steps, np.int64), np.zeros(steps)
    there = np.full((instance.items, width), np.inf)
    for item in np.flatnonzero(instance.producer < 0).tolist():
        homes = instance.homes[instance.home_at[item] : instance.home_at[item + 1]]
        away = instance.latency[homes] + instance.size[item] * instance.pace[homes]
        there[item] = away.min(axis=0, initial=np.inf)
    waiting = np.zeros(steps, np.int64)
    for step in range(steps):
        waiting[step] = sum(int(instance.producer[item]) >= 0 for item in _inputs(instance, step))
    free = [np.zeros(min(int(count), steps)) for count in instance.workers]
    first = np.zeros(width)
    ready = np.full((steps, width), np.inf)  # when all inputs of an open step are at a site
    opened = np.zeros(steps, bool)

    def open_up(step: int) -> None:
        items = _inputs(instance, step)
        ready[step] = there[items].max(axis=0, initial=0.0) if items else 0.0
        opened[step] = True

    for step in np.flatnonzero(waiting == 0).tolist():
        open_up(step)
    for turn in range(steps):
        rows = np.flatnonzero(opened)
        ends = np.maximum(ready[rows], first) + instance.seconds[rows]
        row, here = divmod(int(ends.argmin()), width)
        step, end = int(rows[row]), float(ends[row, here])
        site[step], order[step], opened[step] = here, turn, False
        free[here][free[here].argmin()] = end
        first[here] = free[here].min()
        for item in _outputs(instance, step):
            there[item] = end + instance.latency[here] + instance.size[item] * instance.pace[here]
            for reader in _readers(instance, item):
                waiting[reader] -= 1
                if waiting[reader] == 0:
                    open_up(reader)
    return Choice(site=site, order=order)


def weighted(lists: Lists) -> Choice:
    """A broker's weight, as they come: free workers over queued steps, times what is near already.

    What is missing counts by how fast the link is that it would come by, from 1 to 2.
    """
    instance = lists.instance
    listed, order = lists.by(lists.place)
    site, queued = np.zeros(instance.steps, np.int64), np.zeros(instance.width)
    fastest = instance.pace[instance.pace > 0].min(initial=np.inf)
    for step in listed.tolist():
        near, total = np.zeros(instance.width), 1e-9
        for item in _inputs(instance, step):
            maker = int(instance.producer[item])
            size = float(instance.size[item])
            total += size
            if maker >= 0:
                pace = instance.pace[site[maker]]
            else:
                origin = instance.source[item]
                pace = instance.pace[origin, np.arange(instance.width)]
            near += size * np.where(pace > 0, fastest / np.maximum(pace, 1e-300), 2.0)
        weight = (1.0 + near / total) * instance.workers / (instance.workers + queued)
        weight[~np.isfinite(instance.seconds[step])] = -1.0
        site[step] = int(weight.argmax())
        queued[site[step]] += 1.0
    return Choice(site=site, order=order)


def chance(lists: Lists, seed: int) -> Choice:
    """Each step anywhere it may run."""
    instance = lists.instance
    lots = np.random.default_rng(seed).random(instance.seconds.shape)
    lots[~np.isfinite(instance.seconds)] = -1.0
    return Choice(site=lots.argmax(axis=1).astype(np.int64), order=lists.ranked()[1])


def _fastest(instance: Instance) -> int:
    return int((instance.speed * instance.workers).argmax())


def _mean_seconds(instance: Instance) -> Floats:
    open_ = np.isfinite(instance.seconds)
    found: Floats = np.where(open_, instance.seconds, 0.0).sum(axis=1) / open_.sum(axis=1)
    return found


def _mean_link(instance: Instance) -> tuple[float, float]:
    links = max(1, instance.width * (instance.width - 1))
    return float(instance.latency.sum()) / links, float(instance.pace.sum()) / links


def _inputs(instance: Instance, step: int) -> list[int]:
    found: list[int] = instance.inputs[
        instance.input_at[step] : instance.input_at[step + 1]
    ].tolist()
    return found


def _outputs(instance: Instance, step: int) -> list[int]:
    at: Integers = instance.output_at
    found: list[int] = instance.outputs[at[step] : at[step + 1]].tolist()
    return found


def _readers(instance: Instance, item: int) -> list[int]:
    at: Integers = instance.reader_at
    found: list[int] = instance.readers[at[item] : at[item + 1]].tolist()
    return found
