"""Routes: by which way each copy comes, where the direct link is not the best one.

By default a copy comes straight from where its item was made, or from the nearest replica. Where much has to
cross one thin link, others stand idle: a copy may take one more hop, or be passed on by a site that
has one already. Copies are given routes in the order of their urgency, each the one by which it
comes first beside all that were given one before. That is a guess about queues; playing the plan decides.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dataflow.placement.engine.compiled import kernel
from dataflow.placement.engine.simulate import moves, play


@kernel
def route(
    workers: Any, pace: Any, latency: Any, size: Any, producer: Any, source: Any, seconds: Any,
    input_at: Any, inputs: Any, output_at: Any, outputs: Any, reader_at: Any, readers: Any,
    deliver: Any, client: int, home_at: Any, homes: Any, allowed: Any, site: Any, order: Any,
    end: Any, toll: float,
) -> Any:  # fmt: skip
    """Transfers that differ from the default ones (offsets by item, rows).

    ``end`` is when each step is expected to end; ``toll`` what a second of a further link is worth
    as seconds of a later arrival.
    """
    items, width = len(size), len(workers)
    none_at, none = np.zeros(items + 1, np.int64), np.zeros((0, 5))
    lists = moves(
        workers, pace, latency, size, producer, source, seconds, input_at, inputs, output_at,
        outputs, reader_at, readers, deliver, client, site, order, none_at, none,
    )  # fmt: skip
    item_of, come_from, go_to, urgency = lists[1], lists[2], lists[3], lists[4]
    there = np.full((items, width), np.inf)
    for item in range(items):
        if producer[item] >= 0:
            there[item, site[producer[item]]] = end[producer[item]]
        for at in range(home_at[item], home_at[item + 1]):
            there[item, homes[at]] = 0.0
    load = np.zeros((width, width))
    last = 0.0  # what is only delivered comes after all that is read
    for step in range(len(order)):
        last = max(last, order[step] + 1.0)
    count = len(item_of)
    rows, found = np.empty((2 * count, 5)), 0
    for move in np.argsort(urgency, kind="mergesort"):
        item, target = item_of[move], go_to[move]
        if there[item, target] < np.inf:
            continue  # it has passed there on its way to a more urgent one
        least, first, second = np.inf, -1, -1
        for begin in range(width):
            if there[item, begin] == np.inf:
                continue
            takes = size[item] * pace[begin, target]
            comes = max(there[item, begin], load[begin, target]) + takes + latency[begin, target]
            if comes + toll * takes < least:
                least, first, second = comes + toll * takes, begin, -1
            for stop in range(width):
                if there[item, stop] < np.inf or stop == target or not allowed[item, stop]:
                    continue
                one, two = size[item] * pace[begin, stop], size[item] * pace[stop, target]
                comes = max(there[item, begin], load[begin, stop]) + one + latency[begin, stop]
                comes = max(comes, load[stop, target]) + two + latency[stop, target]
                if comes + toll * (one + two) < least:
                    least, first, second = comes + toll * (one + two), begin, stop
        if first < 0:
            continue  # its step never ends
        if second >= 0:
            takes = size[item] * pace[first, second]
            comes = max(there[item, first], load[first, second]) + takes + latency[first, second]
            there[item, second] = comes
            load[first, second] += takes
            rows[found, 0], rows[found, 1], rows[found, 2] = item, first, second
            rows[found, 3], rows[found, 4] = min(last, urgency[move]), 0.0
            found += 1
            first = second
        takes = size[item] * pace[first, target]
        comes = max(there[item, first], load[first, target]) + takes + latency[first, target]
        there[item, target] = comes
        load[first, target] += takes
        if first != come_from[move]:
            rows[found, 0], rows[found, 1], rows[found, 2] = item, first, target
            rows[found, 3], rows[found, 4] = min(last, urgency[move]), 0.0
            found += 1
    own_at, own = np.zeros(items + 1, np.int64), np.empty((found, 5))
    for row in range(found):
        own_at[int(rows[row, 0]) + 1] += 1
    for item in range(items):
        own_at[item + 1] += own_at[item]
    filled = own_at.copy()
    for row in range(found):
        item = int(rows[row, 0])
        own[filled[item]] = rows[row]
        filled[item] += 1
    return own_at, own


@kernel
def routed(
    workers: Any, pace: Any, latency: Any, size: Any, producer: Any, source: Any, seconds: Any,
    input_at: Any, inputs: Any, output_at: Any, outputs: Any, reader_at: Any, readers: Any,
    deliver: Any, client: int, home_at: Any, homes: Any, allowed: Any, site: Any, order: Any,
    toll: float, rounds: int, network: int,
) -> Any:  # fmt: skip
    """The fastest of ``rounds`` plans, each with routes by the times of the one before.

    Makespan, bytes, rows of transfers and how many transfers were played.
    """
    items = len(size)
    own_at, own = np.zeros(items + 1, np.int64), np.zeros((0, 5))
    best, span, nbytes, played = own, np.inf, 0.0, 0
    idle = np.zeros(len(site))
    for turn in range(rounds + 1):
        lists = moves(
            workers, pace, latency, size, producer, source, seconds, input_at, inputs, output_at,
            outputs, reader_at, readers, deliver, client, site, order, own_at, own,
        )  # fmt: skip
        played += len(lists[1])
        result = play(
            workers, pace, latency, size, producer, source, seconds, input_at, inputs, output_at,
            outputs, reader_at, readers, deliver, client, home_at, homes, site, order, idle,
            lists[0], lists[1], lists[2], lists[3], lists[4], lists[5], network,
        )  # fmt: skip
        if result[0] < span:
            best, span, nbytes = own, result[0], result[1]
        if turn < rounds:
            own_at, own = route(
                workers, pace, latency, size, producer, source, seconds, input_at, inputs,
                output_at, outputs, reader_at, readers, deliver, client, home_at, homes, allowed,
                site, order, result[3], toll,
            )  # fmt: skip
    return span, nbytes, best, played
