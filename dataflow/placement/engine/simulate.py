"""Simulate: the one outcome of a plan under the execution model.

Datasets are at their homes at time 0. Every directed pair of sites carries one transfer at a time
(``serial``), any number at full speed (``free``) or any number that share it (``fair``); what is
most urgent goes first, and a copy appears one latency after its last byte has left. A step is ready
when all its inputs are at its site; a free worker takes the ready step of the least order. Events
of one moment are all applied before anything new starts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from dataflow.errors import PlacementError
from dataflow.placement.engine.compiled import kernel
from dataflow.placement.engine.heaps import pop, push
from dataflow.placement.engine.instance import Bools, Floats, Instance, Integers

Network = Literal["serial", "free", "fair"]
NETWORKS: dict[Network, int] = {"serial": 0, "free": 1, "fair": 2}


def _none() -> Floats:
    return np.zeros((0, 5))


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """What a plan decides.

    Attributes
    ----------
    site
        Per step the number of its site.
    order
        Per step: among those that are ready at a site, the least runs first.
    start
        Per step: not before this time (seconds).
    transfers
        ``n x 5``: item, source, target, priority, not before; only where the default is not wanted.
    """

    site: Integers
    order: Floats
    start: Floats | None = None
    transfers: Floats = field(default_factory=_none)


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What becomes of a plan.

    Attributes
    ----------
    makespan, nbytes
        The last end of a step or arrival of a delivery (seconds); bytes over links, each hop.
    start, end
        Per step (seconds).
    moves, arrival
        ``n x 3`` item, source, target of every transfer, and when its copy appeared.
    """

    makespan: float
    nbytes: float
    start: Floats
    end: Floats
    moves: Integers
    arrival: Floats


def simulate(instance: Instance, choice: Choice, network: Network = "serial") -> Outcome:
    """Play the execution model.

    Raises
    ------
    PlacementError
        The plan is not legal: a step or a copy where it may not be, or a transfer from a site
        that never has the item.
    """
    check(instance, choice)
    own = choice.transfers
    order = np.argsort(own[:, 0], kind="stable")
    own = np.ascontiguousarray(own[order], np.float64)
    at = np.searchsorted(own[:, 0], np.arange(instance.items + 1)).astype(np.int64)
    lists = moves(*instance.graph, choice.site, choice.order, at, own)
    begin = choice.start if choice.start is not None else np.zeros(instance.steps)
    makespan, nbytes, start, end, arrival, _, _ = play(
        *instance.graph, instance.home_at, instance.homes, choice.site, choice.order, begin,
        *lists, NETWORKS[network],
    )  # fmt: skip
    item, source, target = lists[1:4]
    if not np.isfinite(makespan):
        lost = np.flatnonzero(~np.isfinite(arrival))
        raise PlacementError(
            f"the plan never ends: transfer of item {item[lost[0]]} from site {source[lost[0]]} to "
            f"{target[lost[0]]} starts where the item never is"
            if len(lost)
            else "the plan never ends: a step starts at no finite time"
        )
    return Outcome(
        makespan=float(makespan), nbytes=float(nbytes), start=start, end=end,
        moves=np.stack([item, source, target], axis=1), arrival=arrival,
    )  # fmt: skip


def simulate_defaults(instance: Instance, choice: Choice, network: Network = "serial") -> Outcome:
    """The same for a plan that is known to be legal and has neither starts nor transfers of its own."""
    (makespan, nbytes, start, end, arrival), lists = judge(
        *instance.graph, instance.home_at, instance.homes, choice.site, choice.order,
        NETWORKS[network],
    )  # fmt: skip
    return Outcome(
        makespan=float(makespan), nbytes=float(nbytes), start=start, end=end,
        moves=np.stack(lists, axis=1), arrival=arrival,
    )  # fmt: skip


def check(instance: Instance, choice: Choice) -> None:
    """Refuse what no site may do.

    Raises
    ------
    PlacementError
        Names the first step, transfer or number that cannot be.
    """
    if choice.site.shape != (instance.steps,) or choice.order.shape != (instance.steps,):
        raise PlacementError(
            f"the plan is for {len(choice.site)} steps, the problem has {instance.steps}"
        )
    wrong = np.flatnonzero((choice.site < 0) | (choice.site >= instance.width))
    if len(wrong):
        raise PlacementError(
            f"step {wrong[0]}: there is no site {choice.site[wrong[0]]}, the problem has "
            f"{instance.width}"
        )
    if np.isnan(choice.order).any():
        raise PlacementError("an order is not a number")
    if choice.start is not None and not (np.isfinite(choice.start) & (choice.start >= 0)).all():
        raise PlacementError("a start is not a time from 0 on")
    bad = np.flatnonzero(~np.isfinite(instance.seconds[np.arange(instance.steps), choice.site]))
    if len(bad):
        site = instance.sites[int(choice.site[bad[0]])]
        raise PlacementError(f"step {bad[0]} may not run at {site!r}: its data may not be there")
    _check_transfers(instance, choice.transfers)


def _check_transfers(instance: Instance, own: Floats) -> None:
    if own.ndim != 2 or own.shape[1] != 5:
        raise PlacementError("transfers are (item, source, target, priority, not before)")
    if not len(own):
        return
    items, sites = instance.items, instance.width
    unknown = np.asarray(np.isnan(own).any(axis=1))
    numbers = np.nan_to_num(own[:, :3], nan=-1.0, posinf=-1.0)
    item, source, target = np.clip(numbers, -1, 2**53).astype(np.int64).T
    named = (item >= 0) & (item < items)
    placed = (source >= 0) & (source < sites) & (target >= 0) & (target < sites)
    ways = np.where(named & placed, item * sites + target, -1)
    twice = np.ones(len(own), bool)
    twice[np.unique(ways, return_index=True)[1]] = False
    home = np.repeat(np.arange(items), np.diff(instance.home_at)) * sites + instance.homes
    may: Bools = instance.allowed.ravel()[np.maximum(ways, 0)]
    faults = {
        "a value is not a number": unknown,
        "there is no such item": ~named,
        "there is no such site": ~placed,
        "the item is there already or comes twice": (source == target) | twice,
        "the item is there from the start": np.isin(ways, home),
        "no copy may be at": ~may,
    }
    bad = np.flatnonzero(np.any(list(faults.values()), axis=0))
    if not len(bad):
        return
    row = int(bad[0])
    fault = next(words for words, rows in faults.items() if rows[row])
    if unknown[row]:
        raise PlacementError(f"transfer {own[row].tolist()}: {fault}")
    if fault == "no copy may be at":
        fault += f" {instance.sites[target[row]]!r}"
    raise PlacementError(
        f"transfer of item {item[row]} from {source[row]} to {target[row]}: {fault}"
    )


def copies(instance: Instance, outcome: Outcome) -> Bools:
    """``I x S``: where copies of items have been when all is done."""
    found = np.zeros((instance.items, instance.width), bool)
    found[np.repeat(np.arange(instance.items), np.diff(instance.home_at)), instance.homes] = True
    found[outcome.moves[:, 0], outcome.moves[:, 2]] = True
    return found


# --- loops ----------------------------------------------------------------------------------------


@kernel
def moves(
    workers: Any, pace: Any, latency: Any, size: Any, producer: Any, source: Any, seconds: Any,
    input_at: Any, inputs: Any, output_at: Any, outputs: Any, reader_at: Any, readers: Any,
    deliver: Any, client: int, site: Any, order: Any, own_at: Any, own: Any,
) -> Any:  # fmt: skip
    """All transfers of a plan by item: the planned ones, and the default where a copy is needed."""
    items, width = len(size), len(workers)
    move_at = np.zeros(items + 1, np.int64)
    room = len(readers) + own.shape[0] + items
    item_of = np.empty(room, np.int64)
    come_from = np.empty(room, np.int64)
    go_to = np.empty(room, np.int64)
    urgency = np.empty(room)
    after = np.empty(room)
    need = np.full(width, np.nan)
    count = 0
    for item in range(items):
        for at in range(reader_at[item], reader_at[item + 1]):
            reader = readers[at]
            here = site[reader]
            if not (need[here] <= order[reader]):
                need[here] = order[reader]
        if deliver[item] and np.isnan(need[client]):
            need[client] = np.inf
        for at in range(own_at[item], own_at[item + 1]):
            item_of[count] = item
            come_from[count] = int(own[at, 1])
            go_to[count] = int(own[at, 2])
            urgency[count] = own[at, 3]
            after[count] = own[at, 4]
            need[go_to[count]] = np.nan
            count += 1
        maker = producer[item]
        for target in range(width):
            if not np.isnan(need[target]):
                begin = site[maker] if maker >= 0 else source[item, target]
                if begin != target:
                    item_of[count] = item
                    come_from[count] = begin
                    go_to[count] = target
                    urgency[count] = need[target]
                    after[count] = 0.0
                    count += 1
                need[target] = np.nan
        move_at[item + 1] = count
    return (
        move_at,
        item_of[:count],
        come_from[:count],
        go_to[:count],
        urgency[:count],
        after[:count],
    )


@kernel
def play(
    workers: Any, pace: Any, latency: Any, size: Any, producer: Any, source: Any, seconds: Any,
    input_at: Any, inputs: Any, output_at: Any, outputs: Any, reader_at: Any, readers: Any,
    deliver: Any, client: int, home_at: Any, homes: Any, site: Any, order: Any, begin: Any,
    move_at: Any, item_of: Any, come_from: Any, go_to: Any, urgency: Any, after: Any, network: int,
) -> Any:  # fmt: skip
    """Makespan (endless if something never comes), bytes, start, end, arrival of transfers.

    And what each start was waiting for: of steps the step that made a worker free, or -1 - item for
    the input that came last (the number of items: none); of transfers the one before it on its
    link, or -1.
    """
    steps, items, width, count = len(site), len(size), len(workers), len(come_from)
    start, end, arrival = np.full(steps, np.inf), np.full(steps, np.inf), np.full(count, np.inf)
    waiting = np.empty(steps, np.int64)
    ready_at, ready_n = np.zeros(width + 1, np.int64), np.zeros(width, np.int64)
    for step in range(steps):
        waiting[step] = input_at[step + 1] - input_at[step]
        ready_at[site[step] + 1] += 1
    pairs = width * width
    queue_at, queue_n = np.zeros(pairs + 1, np.int64), np.zeros(pairs, np.int64)
    for move in range(count):
        queue_at[come_from[move] * width + go_to[move] + 1] += 1
    for one in range(width):
        ready_at[one + 1] += ready_at[one]
    for one in range(pairs):
        queue_at[one + 1] += queue_at[one]
    ready_key, ready_name = np.empty(steps), np.empty(steps, np.int64)
    queue_key, queue_name = np.empty(count), np.empty(count, np.int64)
    # of a step its start and end; of a transfer its start, its arrival, and two changes of its link
    room = 2 * steps + 4 * count + 16
    event_key, event_name = np.empty(room), np.empty(room, np.int64)
    events = 0
    free = workers.copy()
    busy = np.zeros(pairs, np.bool_)
    # of `fair`: bytes that every transfer of a link has been given so far, and until when that holds
    step_why = np.full(steps, -1 - items, np.int64)
    move_why = np.full(count, -1, np.int64)
    ready_when, queued_when = np.zeros(steps), np.zeros(count)
    last_step, last_move = np.full(width, -1, np.int64), np.full(pairs, -1, np.int64)
    given, moment, due = np.zeros(pairs), np.zeros(pairs), np.full(pairs, np.inf)
    sites_n, sites_list, sites_in = 0, np.empty(width, np.int64), np.zeros(width, np.bool_)
    pairs_n, pairs_list, pairs_in = 0, np.empty(pairs, np.int64), np.zeros(pairs, np.bool_)
    last, left, now, nbytes = 0.0, steps, 0.0, 0.0
    # what has come to a site and was not told to its readers yet
    room = items + count + len(homes)
    new_item, new_site, news = np.empty(room, np.int64), np.empty(room, np.int64), 0
    queued_step, queued = np.empty(steps, np.int64), 0
    for item in range(items):
        for at in range(home_at[item], home_at[item + 1]):
            new_item[news] = item
            new_site[news] = homes[at]
            news += 1
    for step in range(steps):
        if waiting[step] == 0:
            queued_step[queued] = step
            queued += 1
    while True:
        while news > 0:
            news -= 1
            item, here = new_item[news], new_site[news]
            for at in range(reader_at[item], reader_at[item + 1]):
                step = readers[at]
                if site[step] == here:
                    waiting[step] -= 1
                    if waiting[step] == 0:
                        step_why[step] = -1 - item
                        queued_step[queued] = step
                        queued += 1
            for move in range(move_at[item], move_at[item + 1]):
                if come_from[move] != here:
                    continue
                if after[move] > now:
                    events = push(event_key, event_name, 0, events, after[move], 4 * move + 3)
                    continue
                pair = here * width + go_to[move]
                key = urgency[move]
                queued_when[move] = now
                if network == 2:
                    if queue_n[pair] > 0:
                        given[pair] += (now - moment[pair]) / (
                            pace[here, go_to[move]] * queue_n[pair]
                        )
                    moment[pair] = now
                    key = given[pair] + size[item]
                queue_n[pair] = push(
                    queue_key, queue_name, queue_at[pair], queue_n[pair], key, move
                )
                if not pairs_in[pair]:
                    pairs_in[pair] = True
                    pairs_list[pairs_n] = pair
                    pairs_n += 1
        while queued > 0:
            queued -= 1
            step = queued_step[queued]
            here = site[step]
            if begin[step] > now:
                events = push(event_key, event_name, 0, events, begin[step], 4 * (count + step) + 3)
                continue
            ready_n[here] = push(
                ready_key, ready_name, ready_at[here], ready_n[here], order[step], step
            )
            ready_when[step] = now
            if not sites_in[here]:
                sites_in[here] = True
                sites_list[sites_n] = here
                sites_n += 1
        while sites_n > 0:
            sites_n -= 1
            here = sites_list[sites_n]
            sites_in[here] = False
            base = ready_at[here]
            while free[here] > 0 and ready_n[here] > 0:
                step = ready_name[base]
                ready_n[here] = pop(ready_key, ready_name, base, ready_n[here])
                free[here] -= 1
                start[step] = now
                if ready_when[step] < now:
                    step_why[step] = last_step[here]
                end[step] = now + seconds[step, here]
                events = push(event_key, event_name, 0, events, end[step], 4 * step)
        while pairs_n > 0:
            pairs_n -= 1
            pair = pairs_list[pairs_n]
            pairs_in[pair] = False
            base = queue_at[pair]
            one = pace[pair // width, pair % width]
            if network == 2:
                if queue_n[pair] > 0:
                    rest = max(0.0, queue_key[base] - given[pair])
                    due[pair] = now + rest * one * queue_n[pair]
                    events = push(
                        event_key, event_name, 0, events, due[pair], 4 * queue_name[base] + 1
                    )
                continue
            while queue_n[pair] > 0 and not busy[pair]:
                move = queue_name[base]
                queue_n[pair] = pop(queue_key, queue_name, base, queue_n[pair])
                if queued_when[move] < now:
                    move_why[move] = last_move[pair]
                last_move[pair] = move
                gone = now + size[item_of[move]] * one
                arrive = gone + latency[pair // width, pair % width]
                events = push(event_key, event_name, 0, events, arrive, 4 * move + 2)
                if network == 0:
                    busy[pair] = True
                    events = push(event_key, event_name, 0, events, gone, 4 * move + 1)
        if events == 0:
            break
        now = event_key[0]
        while events > 0 and event_key[0] <= now:
            what, kind = event_name[0] // 4, event_name[0] % 4
            events = pop(event_key, event_name, 0, events)
            touched = -1
            if kind == 0:
                here = site[what]
                free[here] += 1
                left -= 1
                last = max(last, now)
                last_step[here] = what
                if not sites_in[here]:
                    sites_in[here] = True
                    sites_list[sites_n] = here
                    sites_n += 1
                for at in range(output_at[what], output_at[what + 1]):
                    new_item[news] = outputs[at]
                    new_site[news] = here
                    news += 1
            elif kind == 1:
                pair = come_from[what] * width + go_to[what]
                if network == 0:
                    busy[pair] = False
                    touched = pair
                elif due[pair] == now and queue_n[pair] > 0 and queue_name[queue_at[pair]] == what:
                    due[pair] = np.inf
                    given[pair] = queue_key[queue_at[pair]]
                    moment[pair] = now
                    queue_n[pair] = pop(queue_key, queue_name, queue_at[pair], queue_n[pair])
                    arrive = now + latency[come_from[what], go_to[what]]
                    events = push(event_key, event_name, 0, events, arrive, 4 * what + 2)
                    touched = pair
            elif kind == 2:
                item = item_of[what]
                arrival[what] = now
                nbytes += size[item]
                new_item[news] = item
                new_site[news] = go_to[what]
                news += 1
                if deliver[item] and go_to[what] == client:
                    last = max(last, now)
            elif what >= count:
                queued_step[queued] = what - count
                queued += 1
            else:
                pair = come_from[what] * width + go_to[what]
                key = urgency[what]
                if network == 2:
                    if queue_n[pair] > 0:
                        one = pace[come_from[what], go_to[what]]
                        given[pair] += (now - moment[pair]) / (one * queue_n[pair])
                    moment[pair] = now
                    key = given[pair] + size[item_of[what]]
                queue_n[pair] = push(
                    queue_key, queue_name, queue_at[pair], queue_n[pair], key, what
                )
                touched = pair
            if touched >= 0 and not pairs_in[touched]:
                pairs_in[touched] = True
                pairs_list[pairs_n] = touched
                pairs_n += 1
    if left > 0 or not np.isfinite(arrival).all():
        last = np.inf
    return last, nbytes, start, end, arrival, step_why, move_why


@kernel
def judge(
    workers: Any, pace: Any, latency: Any, size: Any, producer: Any, source: Any, seconds: Any,
    input_at: Any, inputs: Any, output_at: Any, outputs: Any, reader_at: Any, readers: Any,
    deliver: Any, client: int, home_at: Any, homes: Any, site: Any, order: Any, network: int,
) -> Any:  # fmt: skip
    """Of a plan without transfers of its own what :func:`play` finds, and items, sources and targets of its transfers."""
    own_at, own = np.zeros(len(size) + 1, np.int64), np.zeros((0, 5))
    lists = moves(
        workers, pace, latency, size, producer, source, seconds, input_at, inputs, output_at,
        outputs, reader_at, readers, deliver, client, site, order, own_at, own,
    )  # fmt: skip
    result = play(
        workers, pace, latency, size, producer, source, seconds, input_at, inputs, output_at,
        outputs, reader_at, readers, deliver, client, home_at, homes, site, order,
        np.zeros(len(site)), lists[0], lists[1], lists[2], lists[3], lists[4], lists[5], network,
    )  # fmt: skip
    return result[:5], lists[1:4]
