"""Lists: one pass over the steps by rank, each to the site where it is best off.

Beyond the classic list schedulers, and all of it cheap: a copy that is there or under way costs
nothing; every directed link has a queue; what is still to come after a step at a site is estimated
with the transfers that it will cost, and delivery; every byte has a small price.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dataflow.placement.engine.compiled import kernel
from dataflow.placement.engine.heaps import sink


@kernel
def ahead(
    workers: Any, pace: Any, latency: Any, size: Any, producer: Any, source: Any, seconds: Any,
    input_at: Any, inputs: Any, output_at: Any, outputs: Any, reader_at: Any, readers: Any,
    deliver: Any, client: int, sequence: Any, allowance: float, use: Any,
) -> Any:  # fmt: skip
    """``T x S``: least seconds from the end of a step at a site to the end of everything.

    Transfers count ``allowance`` times; ``use`` says which sites are thought of.
    """
    steps, width = seconds.shape
    rest = np.zeros((steps, width))
    best = np.empty(width)
    for index in range(steps - 1, -1, -1):
        step = sequence[index]
        for at in range(output_at[step], output_at[step + 1]):
            item = outputs[at]
            if deliver[item]:
                for here in range(width):
                    takes = latency[here, client] + allowance * size[item] * pace[here, client]
                    rest[step, here] = max(rest[step, here], takes)
            for place in range(reader_at[item], reader_at[item + 1]):
                reader = readers[place]
                least = np.inf
                for there in range(width):
                    best[there] = seconds[reader, there] + rest[reader, there]
                    if not use[there]:
                        best[there] = np.inf
                    least = min(least, best[there])
                if least == np.inf:
                    for there in range(width):
                        best[there] = seconds[reader, there] + rest[reader, there]
                for here in range(width):
                    least = best[here]
                    for there in range(width):
                        takes = best[there]
                        if takes < least:
                            takes += (
                                latency[here, there] + allowance * size[item] * pace[here, there]
                            )
                            least = min(least, takes)
                    rest[step, here] = max(rest[step, here], least)
    return rest


@kernel
def ranks(
    workers: Any, pace: Any, latency: Any, size: Any, producer: Any, source: Any, seconds: Any,
    input_at: Any, inputs: Any, output_at: Any, outputs: Any, reader_at: Any, readers: Any,
    deliver: Any, client: int, sequence: Any, allowance: float,
) -> Any:  # fmt: skip
    """The classic upward rank: mean seconds of the longest way from the start of a step to the end."""
    steps, width = seconds.shape
    rank = np.zeros(steps)
    late, slow = 0.0, 0.0
    for here in range(width):
        for there in range(width):
            late += latency[here, there]
            slow += pace[here, there]
    if width > 1:
        late /= width * (width - 1)
        slow /= width * (width - 1)
    for index in range(steps - 1, -1, -1):
        step = sequence[index]
        longest = 0.0
        for at in range(output_at[step], output_at[step + 1]):
            item = outputs[at]
            takes = allowance * (late + size[item] * slow)
            for place in range(reader_at[item], reader_at[item + 1]):
                longest = max(longest, takes + rank[readers[place]])
        total, count = 0.0, 0
        for here in range(width):
            if seconds[step, here] < np.inf:
                total += seconds[step, here]
                count += 1
        rank[step] = longest + total / count
    return rank


@kernel
def assign(
    workers: Any, pace: Any, latency: Any, size: Any, producer: Any, source: Any, seconds: Any,
    input_at: Any, inputs: Any, output_at: Any, outputs: Any, reader_at: Any, readers: Any,
    deliver: Any, client: int, home_at: Any, homes: Any, listed: Any, rest: Any, weight: float,
    price: float, use: Any, hint: Any, bonus: float, contention: bool,
) -> Any:  # fmt: skip
    """Sites of all steps, in the order ``listed``, and when each starts by this reckoning.

    ``rest`` is what :func:`ahead` says and counts ``weight`` times; ``price`` is seconds per byte;
    ``use`` the sites to take where there is a choice; a step goes to its ``hint`` (-1: none) if
    that is at most ``bonus`` seconds worse.
    """
    steps, width = seconds.shape
    items = len(size)
    site, begin = np.zeros(steps, np.int64), np.zeros(steps)
    there = np.full((items, width), np.inf)  # when a copy is at a site
    for item in range(items):
        for at in range(home_at[item], home_at[item + 1]):
            there[item, homes[at]] = 0.0
    worker_at = np.zeros(width + 1, np.int64)
    for here in range(width):
        worker_at[here + 1] = worker_at[here] + min(workers[here], steps)
    free = np.zeros(worker_at[width])
    link = np.zeros((width, width))  # when it is free again
    extra = np.zeros(width)
    for index in range(steps):
        step = listed[index]
        best, chosen, when = np.inf, -1, 0.0
        for turn in range(2):
            if chosen >= 0:
                break
            for here in range(width):
                takes = seconds[step, here]
                if takes == np.inf or (turn == 0 and not use[here]):
                    continue
                ready, moved = free[worker_at[here]], 0.0
                for at in range(input_at[step], input_at[step + 1]):
                    item = inputs[at]
                    arrives = there[item, here]
                    if arrives == np.inf:
                        maker = producer[item]
                        origin = site[maker] if maker >= 0 else source[item, here]
                        arrives = there[item, origin]
                        busy = size[item] * pace[origin, here]
                        if contention:
                            arrives = max(arrives, link[origin, here] + extra[origin])
                            extra[origin] += busy
                        arrives += busy + latency[origin, here]
                        moved += size[item]
                    ready = max(ready, arrives)
                if contention and moved > 0:
                    for at in range(input_at[step], input_at[step + 1]):
                        maker = producer[inputs[at]]
                        extra[site[maker] if maker >= 0 else source[inputs[at], here]] = 0.0
                score = ready + takes + weight * rest[step, here] + price * moved
                if hint[step] == here:
                    score -= bonus
                if score < best:
                    best, chosen, when = score, here, ready
        here = chosen
        site[step] = here
        begin[step] = when
        for at in range(input_at[step], input_at[step + 1]):
            item = inputs[at]
            if there[item, here] == np.inf:
                maker = producer[item]
                origin = site[maker] if maker >= 0 else source[item, here]
                depart = there[item, origin]
                if contention:
                    depart = max(depart, link[origin, here])
                depart += size[item] * pace[origin, here]
                link[origin, here] = depart
                there[item, here] = depart + latency[origin, here]
        end = when + seconds[step, here]
        sink(free, worker_at[here], worker_at[here + 1] - worker_at[here], end)
        for at in range(output_at[step], output_at[step + 1]):
            there[outputs[at], here] = end
    return site, begin


@kernel
def nearest_data(
    workers: Any, pace: Any, latency: Any, size: Any, producer: Any, source: Any, seconds: Any,
    input_at: Any, inputs: Any, output_at: Any, outputs: Any, reader_at: Any, readers: Any,
    deliver: Any, client: int, sequence: Any, use: Any,
) -> Any:  # fmt: skip
    """Greedy locality: each step where it misses the fewest bytes; then where there is most room."""
    steps, width = seconds.shape
    site = np.zeros(steps, np.int64)
    room = np.zeros(width)
    for index in range(steps):
        step = sequence[index]
        best, least, chosen = np.inf, np.inf, -1
        for turn in range(2):
            if chosen >= 0:
                break
            for here in range(width):
                if seconds[step, here] == np.inf or (turn == 0 and not use[here]):
                    continue
                missing = 0.0
                for at in range(input_at[step], input_at[step + 1]):
                    item = inputs[at]
                    maker = producer[item]
                    origin = site[maker] if maker >= 0 else source[item, here]
                    if origin != here:
                        missing += size[item]
                full = (room[here] + seconds[step, here]) / workers[here]
                if missing < best or (missing == best and full < least):
                    best, least, chosen = missing, full, here
        site[step] = chosen
        room[chosen] += seconds[step, chosen]
    return site


@kernel
def lift(
    workers: Any, pace: Any, latency: Any, size: Any, producer: Any, source: Any, seconds: Any,
    input_at: Any, inputs: Any, output_at: Any, outputs: Any, reader_at: Any, readers: Any,
    deliver: Any, client: int, sequence: Any, key: Any,
) -> None:  # fmt: skip
    """Raise keys so that no step comes before one that it needs."""
    for index in range(len(sequence)):
        step = sequence[index]
        for at in range(input_at[step], input_at[step + 1]):
            maker = producer[inputs[at]]
            if maker >= 0:
                key[step] = max(key[step], key[maker])
