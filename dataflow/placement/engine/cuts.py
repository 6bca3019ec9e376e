"""Cuts: the fewest bytes over links.

An item costs its bytes once for every site that reads it and does not make or hold it. For one
site the best set of steps to gather there, however large, is a least cut of a network: all other
steps stay or come, an item pays for a site that somebody stays at and for the gathering site if
anybody comes. One site after the other until nothing changes; with two sites that is the optimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dataflow.placement.engine.compiled import kernel
from dataflow.placement.engine.instance import Instance, Integers
from dataflow.placement.engine.loads import at_least, readers_there


@dataclass(frozen=True)
class Lightest:
    """Sites with few bytes over links: ``done`` if nothing that is tried here makes them fewer."""

    site: Integers
    nbytes: float
    rounds: int
    cuts: int
    done: bool


def least_bytes(
    instance: Instance, site: Integers, *, cuts: int | None = None, after: int = 0
) -> Lightest:
    """Sites with few bytes over links, never more than those given.

    Parameters
    ----------
    cuts
        How many cuts may be made; by default as many as change anything.
    after
        The site for which the last cut was made, if this goes on with earlier work.
    """
    best, rounds = lighten(*instance.graph, site, 8)
    least = float(at_least(*instance.graph, best)[1])
    unchanged, made = 0, 0
    most = instance.width**3 if cuts is None else cuts
    while unchanged < instance.width and made < most:
        target = (after + made) % instance.width
        made += 1
        found = gather(*instance.graph, instance.home_at, instance.homes, best, target)
        if found is not best:
            cost = float(at_least(*instance.graph, found)[1])
            if cost < least * (1 - 1e-12):
                best, least, unchanged = found, cost, 0
                continue
        unchanged += 1
    return Lightest(best, least, int(rounds), made, unchanged >= instance.width)


# --- loops ----------------------------------------------------------------------------------------


@kernel
def lighten(
    workers: Any, pace: Any, latency: Any, size: Any, producer: Any, source: Any, seconds: Any,
    input_at: Any, inputs: Any, output_at: Any, outputs: Any, reader_at: Any, readers: Any,
    deliver: Any, client: int, site: Any, rounds: int,
) -> Any:  # fmt: skip
    """Sites after single moves that lower the bytes over links, and how many rounds it took."""
    steps, width = len(site), len(workers)
    site = site.copy()
    need = readers_there(reader_at, readers, deliver, client, site, width)
    stale = np.ones(steps, np.bool_)  # what is near it has changed since it was looked at
    cost = np.empty(width)
    turn = 0
    while turn < rounds:
        turn += 1
        moved = 0
        for index in range(steps):
            step = index if turn % 2 == 1 else steps - 1 - index
            if not stale[step]:
                continue
            stale[step] = False
            here = site[step]
            cost[:] = 0.0
            for at in range(input_at[step], input_at[step + 1]):
                item = inputs[at]
                much = size[item]
                if much == 0.0:
                    continue
                need[item, here] -= 1
                maker = producer[item]
                for there in range(width):
                    if need[item, there] == 0:
                        origin = site[maker] if maker >= 0 else source[item, there]
                        if origin != there:
                            cost[there] += much
                need[item, here] += 1
            for at in range(output_at[step], output_at[step + 1]):
                item = outputs[at]
                much = size[item]
                for target in range(width):
                    if need[item, target] > 0:
                        for there in range(width):
                            if there != target:
                                cost[there] += much
            least, chosen = cost[here] * (1 - 1e-12), here
            for there in range(width):
                if cost[there] < least and seconds[step, there] < np.inf:
                    least, chosen = cost[there], there
            if chosen == here:
                continue
            moved += 1
            site[step] = chosen
            for at in range(input_at[step], input_at[step + 1]):
                item = inputs[at]
                need[item, here] -= 1
                need[item, chosen] += 1
                many = reader_at[item + 1] - reader_at[item]
                if need[item, here] > 1 and need[item, chosen] > 2 and many > 64:
                    continue  # nothing that its many readers pay has changed
                if producer[item] >= 0:
                    stale[producer[item]] = True
                for place in range(reader_at[item], reader_at[item + 1]):
                    stale[readers[place]] = True
            for at in range(output_at[step], output_at[step + 1]):
                item = outputs[at]
                for place in range(reader_at[item], reader_at[item + 1]):
                    stale[readers[place]] = True
            stale[step] = False
        if moved == 0:
            break
    return site, turn


@kernel
def join(
    heads: Any, after: Any, ends: Any, room: Any, count: int, a: int, b: int, much: float
) -> int:
    """An edge and its way back; the new number of edges."""
    ends[count] = b
    room[count] = much
    after[count] = heads[a]
    heads[a] = count
    ends[count + 1] = a
    room[count + 1] = 0.0
    after[count + 1] = heads[b]
    heads[b] = count + 1
    return count + 2


@kernel
def cut(
    heads: Any, after: Any, ends: Any, room: Any, source: int, sink: int, nothing: float
) -> Any:
    """Which corners stay with the source in a least cut (Dinic: shortest ways first)."""
    corners = len(heads)
    depth = np.empty(corners, np.int64)
    line = np.empty(corners, np.int64)
    current = np.empty(corners, np.int64)
    way = np.empty(corners, np.int64)
    while True:
        depth[:] = -1
        depth[source] = 0
        line[0] = source
        first, behind = 0, 1
        while first < behind:
            a = line[first]
            first += 1
            edge = heads[a]
            while edge >= 0:
                b = ends[edge]
                if depth[b] < 0 and room[edge] > nothing:
                    depth[b] = depth[a] + 1
                    line[behind] = b
                    behind += 1
                edge = after[edge]
        if depth[sink] < 0:
            return depth >= 0
        current[:] = heads
        length, a = 0, source
        while True:
            if a == sink:
                least = np.inf
                for k in range(length):
                    least = min(least, room[way[k]])
                cut_at = 0
                for k in range(length - 1, -1, -1):
                    room[way[k]] -= least
                    room[way[k] ^ 1] += least
                    if room[way[k]] <= nothing:
                        cut_at = k
                a = ends[way[cut_at] ^ 1]
                length = cut_at
                continue
            edge = current[a]
            while edge >= 0 and not (room[edge] > nothing and depth[ends[edge]] == depth[a] + 1):
                edge = after[edge]
            current[a] = edge
            if edge >= 0:
                way[length] = edge
                length += 1
                a = ends[edge]
            elif length == 0:
                break
            else:
                depth[a] = -2
                length -= 1
                a = ends[way[length] ^ 1]


@kernel
def gather(
    workers: Any, pace: Any, latency: Any, size: Any, producer: Any, source: Any, seconds: Any,
    input_at: Any, inputs: Any, output_at: Any, outputs: Any, reader_at: Any, readers: Any,
    deliver: Any, client: int, home_at: Any, homes: Any, site: Any, target: int,
) -> Any:  # fmt: skip
    """The sites after the best set of steps has come to ``target``."""
    steps, width, items = len(site), len(workers), len(size)
    number = np.full(steps, -1, np.int64)
    free = 0
    for step in range(steps):
        if site[step] != target and seconds[step, target] < np.inf:
            number[step] = free
            free += 1
    if free == 0:
        return site
    pins = len(readers) + items
    corners = free + 2 + 2 * pins
    heads = np.full(corners, -1, np.int64)
    room_for = 2 * (3 * pins + pins) + 16
    after, ends, room = (
        np.empty(room_for, np.int64),
        np.empty(room_for, np.int64),
        np.empty(room_for),
    )
    begin, end, used, count = free, free + 1, free + 2, 0
    many, fixed = np.zeros(width, np.int64), np.zeros(width, np.bool_)
    aux = np.empty(width, np.int64)
    biggest = 0.0
    for item in range(items):
        much = size[item]
        if much <= 0.0:
            continue
        biggest = max(biggest, much)
        many[:] = 0
        fixed[:] = False
        total = 0  # steps that may come
        first, extra = reader_at[item], 0
        if producer[item] >= 0:
            extra = 1
        for at in range(first, reader_at[item + 1] + extra):
            step = readers[at] if at < reader_at[item + 1] else producer[item]
            if number[step] >= 0:
                many[site[step]] += 1
                total += 1
            else:
                fixed[site[step]] = True
        if deliver[item]:
            fixed[client] = True
        for at in range(home_at[item], home_at[item + 1]):
            fixed[homes[at]] = True
        if total == 0:
            continue
        for here in range(width):
            aux[here] = -1
            if here == target:
                if not fixed[here] and total > 1:
                    aux[here] = used
                    used += 1
                    count = join(heads, after, ends, room, count, begin, aux[here], much)
            elif many[here] > 1 and not fixed[here]:
                aux[here] = used
                used += 1
                count = join(heads, after, ends, room, count, aux[here], end, much)
        for at in range(first, reader_at[item + 1] + extra):
            step = readers[at] if at < reader_at[item + 1] else producer[item]
            corner = number[step]
            if corner < 0:
                continue
            here = site[step]
            if not fixed[here]:
                if aux[here] >= 0:
                    count = join(heads, after, ends, room, count, corner, aux[here], np.inf)
                else:
                    count = join(heads, after, ends, room, count, corner, end, much)
            if not fixed[target]:
                if aux[target] >= 0:
                    count = join(heads, after, ends, room, count, aux[target], corner, np.inf)
                else:
                    count = join(heads, after, ends, room, count, begin, corner, much)
    stays = cut(heads[:used], after, ends, room, begin, end, biggest * 1e-12)
    found = site.copy()
    for step in range(steps):
        if number[step] >= 0 and not stays[number[step]]:
            found[step] = target
    return found
