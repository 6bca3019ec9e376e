"""Loads: single moves that lower what sites and links have to carry, priced without playing.

The measure is the sum over sites and links of (load / scale) to the fourth power, which is nearly
the greatest load but falls with every one that falls, and the bytes at a price. It forgets when
things happen; a list pass that follows its hints remembers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dataflow.placement.engine.chance import below
from dataflow.placement.engine.compiled import kernel


@kernel
def readers_there(
    reader_at: Any, readers: Any, deliver: Any, client: int, site: Any, width: int
) -> Any:
    """How many readers an item has at a site; who asked for it is one of its own."""
    need = np.zeros((len(deliver), width), np.int32)
    for item in range(len(deliver)):
        for at in range(reader_at[item], reader_at[item + 1]):
            need[item, site[readers[at]]] += 1
        if deliver[item]:
            need[item, client] += 1
    return need


@kernel
def refine(
    workers: Any, pace: Any, latency: Any, size: Any, producer: Any, source: Any, seconds: Any,
    input_at: Any, inputs: Any, output_at: Any, outputs: Any, reader_at: Any, readers: Any,
    deliver: Any, client: int, site: Any, rounds: int, price: float, balance: float, state: Any,
) -> Any:  # fmt: skip
    """Better sites after ``rounds`` rounds over all steps in random order.

    ``price`` is of all bytes moved once, in the unit of the measure; ``balance`` weighs the loads
    against it (0: bytes alone count).
    """
    steps, width = seconds.shape
    items = len(size)
    site = site.copy()
    need = readers_there(reader_at, readers, deliver, client, site, width)
    load, carried, total = np.zeros(width), np.zeros((width, width)), 0.0
    for step in range(steps):
        load[site[step]] += seconds[step, site[step]] / workers[site[step]]
    for item in range(items):
        total += size[item]
        for there in range(width):
            if need[item, there] > 0:
                maker = producer[item]
                origin = site[maker] if maker >= 0 else source[item, there]
                if origin != there:
                    carried[origin, there] += size[item] * pace[origin, there]
    scale = max(load.max(), carried.max()) * 0.5 + 1e-12
    unit = price / (total + 1e-12)
    change = np.zeros((width, width))
    touched_a, touched_b = (
        np.empty(8 * width * width + 8, np.int64),
        np.empty(8 * width * width + 8, np.int64),
    )
    for _ in range(rounds):
        moved = 0
        shift = below(state, steps)
        stride = 2 * below(state, 1 + steps // 2) + 1
        while _gcd(stride, steps) != 1:
            stride += 2
        for index in range(steps):
            step = (shift + index * stride) % steps
            here = site[step]
            least, chosen = -1e-12, -1
            for there in range(width):
                if there == here or seconds[step, there] == np.inf:
                    continue
                touched, delta = 0, 0.0
                for at in range(input_at[step], input_at[step + 1]):
                    item = inputs[at]
                    maker = producer[item]
                    if need[item, here] == 1:
                        origin = site[maker] if maker >= 0 else source[item, here]
                        if origin != here:
                            if change[origin, here] == 0.0 and touched < len(touched_a):
                                touched_a[touched], touched_b[touched] = origin, here
                                touched += 1
                            change[origin, here] -= size[item] * pace[origin, here]
                            delta -= size[item] * unit
                    if need[item, there] == 0:
                        origin = site[maker] if maker >= 0 else source[item, there]
                        if origin != there:
                            if change[origin, there] == 0.0 and touched < len(touched_a):
                                touched_a[touched], touched_b[touched] = origin, there
                                touched += 1
                            change[origin, there] += size[item] * pace[origin, there]
                            delta += size[item] * unit
                for at in range(output_at[step], output_at[step + 1]):
                    item = outputs[at]
                    for target in range(width):
                        if need[item, target] > 0:
                            if target != here:
                                if change[here, target] == 0.0 and touched < len(touched_a):
                                    touched_a[touched], touched_b[touched] = here, target
                                    touched += 1
                                change[here, target] -= size[item] * pace[here, target]
                                delta -= size[item] * unit
                            if target != there:
                                if change[there, target] == 0.0 and touched < len(touched_a):
                                    touched_a[touched], touched_b[touched] = there, target
                                    touched += 1
                                change[there, target] += size[item] * pace[there, target]
                                delta += size[item] * unit
                for k in range(touched):
                    a, b = touched_a[k], touched_b[k]
                    if change[a, b] != 0.0:
                        delta += balance * (
                            ((carried[a, b] + change[a, b]) / scale) ** 4
                            - (carried[a, b] / scale) ** 4
                        )
                        change[a, b] = 0.0
                gone = load[here] - seconds[step, here] / workers[here]
                come = load[there] + seconds[step, there] / workers[there]
                delta += balance * (
                    (gone / scale) ** 4 - (load[here] / scale) ** 4
                    + (come / scale) ** 4 - (load[there] / scale) ** 4
                )  # fmt: skip
                if delta < least:
                    least, chosen = delta, there
            if chosen < 0:
                continue
            moved += 1
            there = chosen
            for at in range(input_at[step], input_at[step + 1]):
                item = inputs[at]
                maker = producer[item]
                need[item, here] -= 1
                if need[item, here] == 0:
                    origin = site[maker] if maker >= 0 else source[item, here]
                    carried[origin, here] -= size[item] * pace[origin, here]
                if need[item, there] == 0:
                    origin = site[maker] if maker >= 0 else source[item, there]
                    carried[origin, there] += size[item] * pace[origin, there]
                need[item, there] += 1
            for at in range(output_at[step], output_at[step + 1]):
                item = outputs[at]
                for target in range(width):
                    if need[item, target] > 0:
                        carried[here, target] -= size[item] * pace[here, target]
                        carried[there, target] += size[item] * pace[there, target]
            load[here] -= seconds[step, here] / workers[here]
            load[there] += seconds[step, there] / workers[there]
            site[step] = there
        scale = max(load.max(), carried.max()) * 0.5 + 1e-12
        if moved == 0:
            break
    return site


@kernel
def _gcd(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a


@kernel
def at_least(
    workers: Any, pace: Any, latency: Any, size: Any, producer: Any, source: Any, seconds: Any,
    input_at: Any, inputs: Any, output_at: Any, outputs: Any, reader_at: Any, readers: Any,
    deliver: Any, client: int, site: Any,
) -> Any:  # fmt: skip
    """A makespan that one site per step cannot be below (its greatest load), and its bytes."""
    width = len(workers)
    load, carried, total = np.zeros(width), np.zeros((width, width)), 0.0
    need = np.zeros(width, np.bool_)
    for step in range(len(site)):
        load[site[step]] += seconds[step, site[step]] / workers[site[step]]
    for item in range(len(size)):
        need[:] = False
        for at in range(reader_at[item], reader_at[item + 1]):
            need[site[readers[at]]] = True
        if deliver[item]:
            need[client] = True
        maker = producer[item]
        for there in range(width):
            if need[there]:
                origin = site[maker] if maker >= 0 else source[item, there]
                if origin != there:
                    total += size[item]
                    carried[origin, there] += size[item] * pace[origin, there]
    return max(load.max(), carried.max()), total
