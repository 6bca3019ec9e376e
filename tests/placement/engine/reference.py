"""The execution model once more, in the plainest way: no heaps, no arrays, everything looked at."""

from __future__ import annotations

import math
from typing import Any

from dataflow.placement.engine.instance import Instance
from dataflow.placement.engine.simulate import Choice


def between(at: Any, flat: Any, number: int) -> list[int]:
    return [int(x) for x in flat[at[number] : at[number + 1]]]


def transfers(instance: Instance, choice: Choice) -> list[tuple[int, int, int, float, float]]:
    """(item, source, target, priority, not before), planned ones and defaults."""
    site = [int(s) for s in choice.site]
    planned = [
        (int(r[0]), int(r[1]), int(r[2]), float(r[3]), float(r[4])) for r in choice.transfers
    ]
    planned.sort(key=lambda move: move[0])
    found = []
    for item in range(instance.items):
        own = [move for move in planned if move[0] == item]
        found += own
        need: dict[int, float] = {}
        for reader in between(instance.reader_at, instance.readers, item):
            order = float(choice.order[reader])
            need[site[reader]] = min(need.get(site[reader], math.inf), order)
        if instance.deliver[item]:
            need.setdefault(instance.client, math.inf)
        homes = between(instance.home_at, instance.homes, item)
        for target in sorted(need):
            if target in {move[2] for move in own}:
                continue
            if instance.producer[item] >= 0:
                source = site[instance.producer[item]]
            elif target in homes:
                source = target
            else:
                source = min(
                    homes,
                    key=lambda home, to=target, what=item: (
                        instance.latency[home, to] + instance.size[what] * instance.pace[home, to]
                    ),
                )
            if source != target:
                found.append((item, source, target, need[target], 0.0))
    return found


def play(instance: Instance, choice: Choice, network: str = "serial") -> tuple[float, float]:
    """Makespan and bytes."""
    moves = transfers(instance, choice)
    site = [int(s) for s in choice.site]
    steps = range(instance.steps)
    begin = [0.0] * instance.steps if choice.start is None else [float(x) for x in choice.start]
    there = {
        (item, home)
        for item in range(instance.items)
        for home in between(instance.home_at, instance.homes, item)
    }
    running: dict[int, float] = {}
    done: set[int] = set()
    sending: dict[int, float] = {}  # serial and free: when the link is done; fair: bytes left
    flying: dict[int, float] = {}
    sent: set[int] = set()
    now, last = 0.0, 0.0

    def pair(move: int) -> tuple[int, int]:
        return moves[move][1], moves[move][2]

    def rate(move: int) -> float:
        sharing = sum(pair(other) == pair(move) for other in sending)
        return 1.0 / (instance.pace[pair(move)] * sharing)

    while True:
        # start whatever can start
        for here in range(instance.width):
            while sum(site[step] == here for step in running) < instance.workers[here]:
                ready = [
                    step
                    for step in steps
                    if site[step] == here
                    and step not in running
                    and step not in done
                    and begin[step] <= now
                    and all(
                        (item, here) in there
                        for item in between(instance.input_at, instance.inputs, step)
                    )
                ]
                if not ready:
                    break
                step = min(ready, key=lambda one: (choice.order[one], one))
                running[step] = now + float(instance.seconds[step, here])
        queued = [
            move
            for move in range(len(moves))
            if move not in sent and moves[move][:2] in there and moves[move][4] <= now
        ]
        for move in sorted(queued, key=lambda one: (moves[one][3], one)):
            if network == "serial" and any(pair(other) == pair(move) for other in sending):
                continue
            sent.add(move)
            nbytes = float(instance.size[moves[move][0]])
            sending[move] = (
                nbytes if network == "fair" else now + nbytes * instance.pace[pair(move)]
            )
        # the next moment
        ends = (
            {move: now + left / rate(move) for move, left in sending.items()}
            if network == "fair"
            else sending
        )
        times = [*running.values(), *ends.values(), *flying.values()]
        times += [t for t in begin if t > now] + [move[4] for move in moves if move[4] > now]
        if not times:
            break
        then = min(times)
        finished = [move for move in sending if ends[move] <= then]
        if network == "fair":
            rates = {move: rate(move) for move in sending}
            for move in sending:
                sending[move] -= rates[move] * (then - now)
        now = then
        for move in finished:
            del sending[move]
            flying[move] = now + float(instance.latency[pair(move)])
        for step in [step for step, end in running.items() if end <= now]:
            del running[step]
            done.add(step)
            last = now
            there |= {
                (item, site[step]) for item in between(instance.output_at, instance.outputs, step)
            }
        for move in [move for move, end in flying.items() if end <= now]:
            del flying[move]
            item, _, target = moves[move][:3]
            there.add((item, target))
            if instance.deliver[item] and target == instance.client:
                last = now
    assert len(done) == instance.steps
    return last, sum(float(instance.size[move[0]]) for move in moves)
