"""Climb: small changes of a plan, each judged by playing it.

What made the end late is known exactly: the last step waited for an input or for a worker, the
input for its transfer, the transfer for the one before it on the link, and so on back to the
start. Only a change on this chain can help, so that is where steps are moved (alone, or with what
hangs on them) and turns are exchanged. Worse plans are taken for a while, less and less. A plan that
has to be good without queues on links as well has two such chains, and is played twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dataflow.placement.engine.chance import below, draw
from dataflow.placement.engine.compiled import kernel
from dataflow.placement.engine.routes import route
from dataflow.placement.engine.simulate import moves, play

#: A change that gains less than this share with queues is no reason to play it, if it fails without them.
_HOPED = 0.05


@kernel
def worth(makespan: float, nbytes: float, total: float, exchange: float) -> Any:
    """One number for a plan, less is better: ``log seconds + exchange * log bytes``."""
    return np.log(makespan + 1e-12) + exchange * np.log(nbytes + 0.01 * total + 1e-12)


@kernel
def chain(
    width: int, items: int, producer: Any, site: Any, reader_at: Any, readers: Any, deliver: Any,
    client: int, makespan: float, end: Any, arrival: Any, move_at: Any, item_of: Any,
    come_from: Any, go_to: Any, step_why: Any, move_why: Any, found: Any,
) -> Any:  # fmt: skip
    """What the last event waited for, back to the start: steps, and -1 - transfer; how many."""
    count, room = 0, len(found)
    now_step, now_move = -1, -1
    for step in range(len(end)):
        if end[step] == makespan:
            now_step = step
            break
    if now_step < 0:
        for move in range(len(arrival)):
            if arrival[move] == makespan:
                now_move = move
                break
    while count < room:
        item = -1
        here = 0
        if now_step >= 0:
            found[count] = now_step
            count += 1
            why = step_why[now_step]
            if why >= 0:
                now_step = why
                continue
            item = -1 - why
            here = site[now_step]
            now_step = -1
            if item >= items:
                break
            for move in range(move_at[item], move_at[item + 1]):
                if go_to[move] == here:
                    now_move = move
        elif now_move >= 0:
            found[count] = -1 - now_move
            count += 1
            if move_why[now_move] >= 0:
                now_move = move_why[now_move]
                continue
            item = item_of[now_move]
            here = come_from[now_move]
            now_move = -1
            for move in range(move_at[item], move_at[item + 1]):
                if go_to[move] == here:
                    now_move = move
        else:
            break
        if now_move < 0 and item >= 0:
            now_step = producer[item]
    return count


@kernel
def spread(
    input_at: Any, inputs: Any, output_at: Any, outputs: Any, reader_at: Any, readers: Any,
    producer: Any, site: Any, first: int, wanted: int, group: Any, mark: Any, stamp: int, state: Any,
) -> Any:  # fmt: skip
    """A step and up to ``wanted`` in all of those that hang on it at the same site; how many."""
    group[0] = first
    mark[first] = stamp
    count, done = 1, 0
    here = site[first]
    while done < count and count < wanted:
        step = group[done]
        done += 1
        for at in range(input_at[step], input_at[step + 1]):
            other = producer[inputs[at]]
            if other >= 0 and site[other] == here and mark[other] != stamp and count < wanted:
                mark[other] = stamp
                group[count] = other
                count += 1
        for at in range(output_at[step], output_at[step + 1]):
            item = outputs[at]
            many = reader_at[item + 1] - reader_at[item]
            if many == 0:
                continue
            shift = below(state, many)
            for k in range(many):
                other = readers[reader_at[item] + (k + shift) % many]
                if site[other] == here and mark[other] != stamp and count < wanted:
                    mark[other] = stamp
                    group[count] = other
                    count += 1
    return count


@kernel
def somewhere(
    seconds: Any, input_at: Any, inputs: Any, output_at: Any, outputs: Any, reader_at: Any,
    readers: Any, producer: Any, source: Any, site: Any, step: int, state: Any,
) -> Any:  # fmt: skip
    """Another site for a step: often that of something near, else any."""
    width = seconds.shape[1]
    here = site[step]
    if draw(state) < 0.6:
        ins = input_at[step + 1] - input_at[step]
        outs = output_at[step + 1] - output_at[step]
        for _ in range(3):
            which = below(state, ins + outs) if ins + outs > 0 else -1
            there = here
            if which < 0:
                break
            if which < ins:
                item = inputs[input_at[step] + which]
                there = site[producer[item]] if producer[item] >= 0 else source[item, here]
            else:
                item = outputs[output_at[step] + which - ins]
                many = reader_at[item + 1] - reader_at[item]
                if many > 0:
                    there = site[readers[reader_at[item] + below(state, many)]]
            if there != here and seconds[step, there] < np.inf:
                return there
    shift = below(state, width)
    for k in range(width):
        there = (k + shift) % width
        if there != here and seconds[step, there] < np.inf:
            return there
    return here


@kernel
def climb(
    workers: Any, pace: Any, latency: Any, size: Any, producer: Any, source: Any, seconds: Any,
    input_at: Any, inputs: Any, output_at: Any, outputs: Any, reader_at: Any, readers: Any,
    deliver: Any, client: int, home_at: Any, homes: Any, allowed: Any, site: Any, order: Any,
    own: Any, tries: int, warm: float, cold: float, exchange: float, total: float, toll: float,
    network: int, share: float, state: Any,
) -> Any:  # fmt: skip
    """The best plan met on the way: sites, order, makespan, bytes, how many transfers were played, routes.

    At most ``tries`` plans are played. ``own`` are the routes of the first plan, by item; with a ``toll``
    from 0 on each further plan gets its own (:func:`~dataflow.placement.engine.routes.route`). What is made less is
    the makespan on ``network``, or its weighted geometric mean with the one on ``free``, which has the ``share``.
    """
    steps, width, items = len(site), len(workers), len(size)
    site, order = site.copy(), order.copy()
    best_site, best_order = site.copy(), order.copy()
    own_at, begin, ends = np.zeros(items + 1, np.int64), np.zeros(steps), np.zeros(steps)
    for row in range(len(own)):
        own_at[int(own[row, 0]) + 1 :] += 1
    best_own = own
    found = np.empty(4 * steps + 16, np.int64)
    group, was = np.empty(steps, np.int64), np.empty(steps, np.int64)
    mark, stamp = np.zeros(steps, np.int64), 0
    current, best, best_span, best_bytes = np.inf, np.inf, np.inf, np.inf
    tight, loose, hoped = 0.0, 0.0, 0.0
    length, played = 0, 0
    free_found, free_length = np.empty(len(found) if share > 0.0 else 0, np.int64), 0
    free_why = own_at[:0]
    swap_a, swap_b, old_a, old_b, count = -1, -1, 0.0, 0.0, 0
    item_of, come_from, go_to = own_at[:0], own_at[:0], own_at[:0]
    step_why, move_why = own_at[:0], own_at[:0]
    for turn in range(tries):
        count, swap_a = 0, -1
        if turn > 0:
            freely = share > 0.0 and free_length > 0 and draw(state) < share
            picked = below(state, steps)
            if draw(state) < 0.85:
                picked = (
                    free_found[below(state, free_length)] if freely else found[below(state, length)]
                )
            step, target = -1, -1
            if picked >= 0:
                step = picked
                why = free_why[step] if freely else step_why[step]
                if why >= 0:
                    lot = draw(state)
                    if lot < 0.35:
                        swap_a, swap_b = step, why
                    elif lot < 0.6:
                        step = why
            else:
                move = -1 - picked
                lot = draw(state)
                if not freely and move_why[move] >= 0 and lot < 0.4:
                    move = move_why[move]
                    lot = draw(state)
                item = item_of[move]
                maker = producer[item]
                if maker >= 0 and lot < 0.4 and seconds[maker, go_to[move]] < np.inf:
                    step, target = maker, go_to[move]
                else:
                    many = reader_at[item + 1] - reader_at[item]
                    if many > 0:
                        shift = below(state, many)
                        for k in range(many):
                            reader = readers[reader_at[item] + (k + shift) % many]
                            if site[reader] == go_to[move]:
                                step = reader
                                break
                    elif maker >= 0:
                        step = maker
                    if step >= 0 and lot < 0.8 and seconds[step, come_from[move]] < np.inf:
                        target = come_from[move]
            if swap_a < 0 and step >= 0:
                if target < 0 or target == site[step]:
                    target = somewhere(
                        seconds, input_at, inputs, output_at, outputs, reader_at, readers,
                        producer, source, site, step, state,
                    )  # fmt: skip
                wanted = 1
                if draw(state) < 0.4:
                    wanted = min(steps, 2 << below(state, 7))
                stamp += 1
                many = spread(
                    input_at, inputs, output_at, outputs, reader_at, readers, producer, site,
                    step, wanted, group, mark, stamp, state,
                )  # fmt: skip
                for k in range(many):
                    one = group[k]
                    if seconds[one, target] < np.inf and site[one] != target:
                        group[count] = one
                        was[count] = site[one]
                        site[one] = target
                        count += 1
            if swap_a >= 0:
                old_a, old_b = order[swap_a], order[swap_b]
                if draw(state) < 0.5:
                    order[swap_a] = old_b
                    order[swap_b] = old_a
                else:
                    order[swap_a] = old_b - 0.5
            elif count == 0:
                continue
            if toll >= 0.0:
                own_at, own = route(
                    workers, pace, latency, size, producer, source, seconds, input_at, inputs,
                    output_at, outputs, reader_at, readers, deliver, client, home_at, homes,
                    allowed, site, order, ends, toll,
                )  # fmt: skip
        lists = moves(
            workers, pace, latency, size, producer, source, seconds, input_at, inputs, output_at,
            outputs, reader_at, readers, deliver, client, site, order, own_at, own,
        )  # fmt: skip
        played += len(lists[1])
        heat = warm * (cold / warm) ** (turn / tries)
        limit = current - heat * np.log(draw(state) + 1e-9)
        good = True
        if share > 0.0:
            other = play(
                workers, pace, latency, size, producer, source, seconds, input_at, inputs, output_at,
                outputs, reader_at, readers, deliver, client, home_at, homes, site, order, begin,
                lists[0], lists[1], lists[2], lists[3], lists[4], lists[5], 1,
            )  # fmt: skip
            loose = share * np.log(other[0] + 1e-12)
            good = turn == 0 or loose + hoped <= limit
        if good:
            result = play(
                workers, pace, latency, size, producer, source, seconds, input_at, inputs, output_at,
                outputs, reader_at, readers, deliver, client, home_at, homes, site, order, begin,
                lists[0], lists[1], lists[2], lists[3], lists[4], lists[5], network,
            )  # fmt: skip
            tight = worth(result[0], result[1], total, exchange) - share * np.log(result[0] + 1e-12)
        if good and (turn == 0 or loose + tight <= limit):
            current = loose + tight
            hoped = tight - (1.0 - share) * _HOPED
            ends = result[3]
            item_of, come_from, go_to = lists[1], lists[2], lists[3]
            step_why, move_why = result[5], result[6]
            length = chain(
                width, items, producer, site, reader_at, readers, deliver, client, result[0],
                result[3], result[4], lists[0], item_of, come_from, go_to, step_why, move_why, found,
            )  # fmt: skip
            if length == 0:
                break
            if share > 0.0:
                free_why = other[5]
                free_length = chain(
                    width, items, producer, site, reader_at, readers, deliver, client, other[0],
                    other[3], other[4], lists[0], item_of, come_from, go_to, free_why, other[6],
                    free_found,
                )  # fmt: skip
            if current < best:
                best, best_span, best_bytes, best_own = current, result[0], result[1], own
                best_site[:] = site
                best_order[:] = order
        else:
            for k in range(count):
                site[group[k]] = was[k]
            if swap_a >= 0:
                order[swap_a] = old_a
                order[swap_b] = old_b
    return best_site, best_order, best_span, best_bytes, played, best_own
