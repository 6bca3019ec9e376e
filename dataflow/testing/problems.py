"""Problems: random placement problems of the shapes that workflows have, for tests and benchmarks.

Everything follows from one seed. What is drawn is drawn from distributions that a federation of
institutes suggests: few sites with many workers, links that differ by a factor of nine in either
direction, a thin uplink at the client, datasets that sit somewhere for reasons of their own, and
owners who do not let all of them leave.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

from dataflow.placement.engine.instance import Instance, make, offsets

Shape = Literal["chain", "fork-join", "tree", "layered", "montage", "chunks"]
SHAPES: tuple[Shape, ...] = get_args(Shape)
Policy = Literal["open", "strict"]

#: Workers of sites before they are shuffled; the client comes first and has few.
_WORKERS = (8, 16, 4, 32, 8, 12, 24, 6, 16)


class Drawn:
    """Datasets and steps as they are drawn: items are (maker), steps are lists of items.

    ``work`` (seconds) and ``size`` (bytes) are empty where they are still to be drawn.
    """

    def __init__(self, work: list[float] | None = None, size: list[float] | None = None) -> None:
        self.producer: list[int] = []
        self.inputs: list[list[int]] = []
        self.work, self.size = work or [], size or []

    def dataset(self) -> int:
        self.producer.append(-1)
        return len(self.producer) - 1

    def step(self, *inputs: int) -> int:
        self.inputs.append(sorted(set(inputs)))
        self.producer.append(len(self.inputs) - 1)
        return len(self.producer) - 1


def graph(shape: Shape, steps: int, chance: np.random.Generator) -> Drawn:
    """About ``steps`` steps (at least 3) of one shape."""
    g = Drawn()

    def pick(items: list[int], count: int) -> list[int]:
        return [items[int(i)] for i in chance.integers(0, len(items), count)]

    if shape == "chain":
        length = int(chance.integers(3, 12))
        heads = []
        while len(g.inputs) < steps - 1:
            item = g.step(g.dataset())
            for _ in range(min(length, steps - 1 - len(g.inputs))):
                extra = [g.dataset()] if chance.random() < 0.15 else []
                item = g.step(item, *extra)
            heads.append(item)
        g.step(*heads)
    elif shape == "fork-join":
        item = g.step(g.dataset())
        while len(g.inputs) < steps:
            wide = min(max(2, steps // 4), 3 + int(chance.integers(0, 60)), steps)
            arms = [
                g.step(item, *([g.dataset()] if chance.random() < 0.4 else [])) for _ in range(wide)
            ]
            item = g.step(*arms)
    elif shape == "tree":
        fan = int(chance.integers(2, 5))
        leaves = max(2, int(steps * (fan - 1) / fan))
        level = [g.step(g.dataset()) for _ in range(leaves)]
        while len(level) > 1:
            level = [g.step(*level[i : i + fan]) for i in range(0, len(level), fan)]
    elif shape == "layered":
        data = [g.dataset() for _ in range(max(2, steps // 5))]
        wide = max(2, round(float(steps**0.5 * chance.uniform(0.6, 1.6))))
        last = list(data)
        while len(g.inputs) < steps:
            layer = []
            for _ in range(min(wide, steps - len(g.inputs))):
                inputs = pick(last, int(chance.integers(1, 4)))
                if chance.random() < 0.2:
                    inputs += pick(data, 1)
                layer.append(g.step(*inputs))
            last = layer
    elif shape == "montage":
        wide = max(2, steps // 5)
        data = [g.dataset() for _ in range(wide)]
        table = g.dataset()
        first = [g.step(item, table) for item in data]
        pairs = [g.step(first[i], first[(i + 1 + j) % wide]) for i in range(wide) for j in (0, 1)]
        model = g.step(g.step(*pairs))
        fixed = [g.step(item, model) for item in first]
        g.step(g.step(g.step(*fixed)))
    else:
        chunks = max(2, steps // 6)
        number = max(1, min(8, chunks // 4))
        many = [[g.dataset() for _ in range(chunks // number or 1)] for _ in range(number)]
        means = []
        for one in many:
            parts = [g.step(g.step(chunk)) for chunk in one]
            while len(parts) > 1:
                parts = [g.step(*parts[i : i + 4]) for i in range(0, len(parts), 4)]
            means.append(parts[0])
        g.step(*means)
        for one, mean in zip(many, means, strict=True):
            parts = [g.step(g.step(chunk, mean)) for chunk in one]
            while len(parts) > 1:
                parts = [g.step(*parts[i : i + 4]) for i in range(0, len(parts), 4)]
    return g


def problem(
    shape: Shape,
    steps: int,
    seed: int,
    *,
    data: float = 3.0,
    skew: Literal["uniform", "zipf", "smallest"] = "uniform",
    policy: Policy = "open",
    sites: int = 0,
) -> Instance:
    """One random problem.

    Parameters
    ----------
    data
        How long moving every byte once takes if as many links as there are sites are busy, in units of the
        time that all workers together need: 3 is compute-bound, 30 is data-bound.
    skew
        Where datasets are: anywhere, mostly at a few sites, or all at the smallest.
    policy
        ``strict``: 40 % of the datasets of the fullest site may not leave it, 20 % not their zone.
    sites
        Number of sites; 0 for 3, 5 or 8 by the number of steps.
    """
    chance = np.random.default_rng([seed, steps, SHAPES.index(shape)])
    return federate(
        graph(shape, steps, chance), chance, name=f"{shape}-{steps}-{seed}", data=data, skew=skew,
        policy=policy, sites=sites,
    )  # fmt: skip


def federate(
    g: Drawn,
    chance: np.random.Generator,
    *,
    name: str,
    data: float = 3.0,
    skew: Literal["uniform", "zipf", "smallest"] = "uniform",
    policy: Policy = "open",
    sites: int = 0,
) -> Instance:
    """A graph at random sites: workers, links, where data are and what their owners allow.

    Parameters
    ----------
    name
        The name of the problem, to which ``data``, ``skew`` and ``policy`` are added.

    Other parameters are those of :func:`problem`.
    """
    count, items = len(g.inputs), len(g.producer)
    width = sites or (3 if count < 40 else 5 if count < 250 else 8)
    workers = np.array([_WORKERS[i % len(_WORKERS)] for i in range(width)])
    if count < 40:
        workers = np.maximum(1, workers // 4)
    chance.shuffle(workers)
    client = int(chance.integers(width))
    workers[client] = 2
    speed = chance.uniform(0.8, 1.6, width)
    speed[client] *= 0.8
    work = np.array(g.work) if g.work else chance.lognormal(3.0, 0.8, count)
    made = np.array(g.producer) >= 0
    if g.size:
        size = np.array(g.size)
    else:
        size = chance.lognormal(0.0, 1.2, items) * 1e8
        size[made] *= chance.choice([0.05, 0.3, 1.0], items, p=[0.4, 0.3, 0.3])[made]
    relative = 3.0 ** chance.uniform(-1, 1, (width, width))
    relative[client] /= 3.0
    ideal = work.sum() / (workers * speed).sum()
    bandwidth = relative * max(size.sum(), 1.0) / (data * ideal * width)
    latency = chance.uniform(0.005, 0.08, (width, width))
    if skew == "uniform":
        weights: Any = np.ones(width)
    elif skew == "zipf":
        weights = 1.0 / np.arange(1, width + 1) ** 1.5
        chance.shuffle(weights)
    else:
        weights = np.zeros(width)
        weights[int(np.argmin(workers * speed + 1e9 * (np.arange(width) == client)))] = 1
    homes: list[list[int]] = [[] for _ in range(items)]
    for item in np.flatnonzero(~made):
        first = int(chance.choice(width, p=weights / weights.sum()))
        homes[item] = [first]
        if chance.random() < 0.15:
            homes[item] = sorted({first, int(chance.integers(width))})
    allowed = np.ones((items, width), bool)
    if policy == "strict":
        _restrict(allowed, homes, g, chance)
    seconds = work[:, None] / speed
    deliver = [
        item
        for item in range(items)
        if made[item] and not any(item in row for row in g.inputs[-1:])
    ][-1:]
    return make(
        name=f"{name}-d{data:g}-{skew}-{policy}",
        sites=[f"s{i}" for i in range(width)], workers=workers, bandwidth=bandwidth,
        latency=latency, size=size, producer=np.array(g.producer), homes=offsets(homes),
        allowed=allowed, seconds=seconds, inputs=offsets(g.inputs), deliver=deliver, client=client,
    )  # fmt: skip


def _restrict(allowed: Any, homes: list[list[int]], g: Drawn, chance: np.random.Generator) -> None:
    """Keep datasets at home or in a zone, as long as every step still has a site."""
    width = allowed.shape[1]
    loads = np.bincount([site for row in homes for site in row], minlength=width)
    fullest = int(loads.argmax())
    zone = np.zeros(width, bool)
    zone[[fullest, *chance.choice(width, max(1, width // 3), replace=False)]] = True
    left = np.ones((len(g.inputs), width), bool)
    users: list[list[int]] = [[] for _ in homes]
    for step, row in enumerate(g.inputs):
        for item in row:
            users[item].append(step)
    for item, row in enumerate(homes):
        if fullest not in row:
            continue
        drawn = chance.random()
        if drawn > 0.6:
            continue
        mask = zone.copy() if drawn > 0.4 else np.zeros(width, bool)
        mask[row] = True
        if all((left[step] & mask).any() for step in users[item]):
            allowed[item] = mask
            for step in users[item]:
                left[step] &= mask


def suite(
    seed: int, *, quick: bool = False, data: tuple[float, ...] = (3.0, 30.0)
) -> list[Instance]:
    """A set of problems of all shapes, sizes, skews and policies; equal numbers for each ``data``."""
    sizes = (20, 60, 200) if quick else (12, 30, 80, 200, 500, 1000)
    found = []
    for number, steps in enumerate(sizes):
        for kind, shape in enumerate(SHAPES):
            skew: Any = ("uniform", "zipf", "smallest")[(number + kind) % 3]
            policy: Policy = ("open", "strict")[(number + kind // 2) % 2]
            for bound in data:
                name = seed * 1000 + number * 10 + kind
                found.append(problem(shape, steps, name, data=bound, skew=skew, policy=policy))
    return found
