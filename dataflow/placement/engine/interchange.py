"""Interchange: problems and plans as neutral documents (``placement-bench/1``, ``placement-plan/1``).

A document is what JSON gives: dicts, lists, numbers. Whoever reads or writes files does that
elsewhere. Every number is checked before it is believed, and the first that is wrong is named by
its path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dataflow.errors import ConfigError
from dataflow.placement.engine.instance import Bools, Floats, Instance, Integers, make, offsets
from dataflow.placement.engine.simulate import Choice

PROBLEM, PLAN = "placement-bench/1", "placement-plan/1"


def _wrong(path: str, why: str) -> ConfigError:
    return ConfigError(
        f"{why}\nWhat you can do: mend the document; the page on placement describes it.", path=path
    )


def _part(document: Any, name: str, path: str) -> Any:
    if not isinstance(document, Mapping):
        raise _wrong(path, "must be an object")
    if name not in document:
        raise _wrong(f"{path}.{name}".lstrip("."), "is missing")
    return document[name]


def _list(value: Any, path: str, length: int | None = None) -> Sequence[Any]:
    if not isinstance(value, list):
        raise _wrong(path, "must be a list")
    if length is not None and len(value) != length:
        raise _wrong(path, f"has {len(value)} entries, not {length}")
    return value


def _numbers(value: Any, path: str, length: int | None, least: float) -> Floats:
    given = _list(value, path, length)
    if not {type(one) for one in given} <= {int, float}:
        at = next(i for i, one in enumerate(given) if type(one) not in (int, float))
        raise _wrong(f"{path}[{at}]", f"{given[at]!r} is not a number")
    found = np.array(given, np.float64)
    bad = np.flatnonzero(~(np.isfinite(found) & (found >= least)))
    if len(bad):
        raise _wrong(f"{path}[{bad[0]}]", f"{given[bad[0]]!r} is not a number from {least:g} on")
    return found


def _indices(value: Any, path: str, length: int | None, least: int, end: int) -> Integers:
    given = _list(value, path, length)
    if not {type(one) for one in given} <= {int}:
        at = next(i for i, one in enumerate(given) if type(one) is not int)
        raise _wrong(f"{path}[{at}]", f"{given[at]!r} is not a whole number")
    found = np.array(given, np.int64)
    bad = np.flatnonzero((found < least) | (found >= end))
    if len(bad):
        raise _wrong(
            f"{path}[{bad[0]}]", f"there is no number {found[bad[0]]}; {least} to {end - 1}"
        )
    return found


def _rows(
    value: Any, path: str, length: int, end: int, *, empty: bool
) -> tuple[Integers, Integers, Bools]:
    """Lists of numbers that may be null: offsets, numbers (each once, ascending), which are lists."""
    given = _list(value, path, length)
    listed = np.ones(length, bool)
    rows: list[Sequence[int]] = []
    for at, row in enumerate(given):
        if row is None:
            listed[at] = False
            rows.append(())
            continue
        if not isinstance(row, list) or not {type(one) for one in row} <= {int}:
            raise _wrong(f"{path}[{at}]", "must be a list of whole numbers, or null")
        if not row and not empty:
            raise _wrong(f"{path}[{at}]", "is empty; null stands for no list")
        rows.append(row if len(row) < 2 else sorted(set(row)))
    flat_at, flat = offsets(rows)
    bad = np.flatnonzero((flat < 0) | (flat >= end))
    if len(bad):
        at = int(np.searchsorted(flat_at, bad[0], side="right")) - 1
        raise _wrong(f"{path}[{at}]", f"there is no number {flat[bad[0]]}; 0 to {end - 1}")
    return flat_at, flat, listed


def _mask(value: Any, path: str, count: int, width: int) -> Bools:
    if value is None:
        return np.ones((count, width), bool)
    at, flat, listed = _rows(value, path, count, width, empty=True)
    mask = np.zeros((count, width), bool)
    mask[np.repeat(np.arange(count), np.diff(at)), flat] = True
    mask[~listed] = True
    return mask


def read_problem(document: Any) -> Instance:
    """An instance out of a ``placement-bench/1`` document.

    Raises
    ------
    ConfigError
        Names the path of the first thing that is wrong.
    PlacementError
        The problem has no solution; says why.
    """
    kind = _part(document, "format", "")
    if kind != PROBLEM:
        raise _wrong("format", f"is {kind!r}, not {PROBLEM!r}")
    sites = _list(_part(document, "sites", ""), "sites")
    width = len(sites)
    if not width:
        raise _wrong("sites", "is empty")
    workers, speed = np.zeros(width, np.int64), np.zeros(width)
    for at, site in enumerate(sites):
        path = f"sites[{at}]"
        workers[at] = _indices([_part(site, "workers", path)], f"{path}.workers", 1, 1, 2**40)[0]
        speed[at] = _numbers([_part(site, "speed", path)], f"{path}.speed", 1, 1e-300)[0]
    square: dict[str, Floats] = {}
    for name in ("bandwidth", "latency"):
        rows = _list(_part(document, name, ""), name, width)
        square[name] = np.stack(
            [
                _numbers(
                    [0 if a == b else x for b, x in enumerate(_list(row, f"{name}[{a}]", width))],
                    f"{name}[{a}]", width, 0.0,
                )
                for a, row in enumerate(rows)
            ]
        )  # fmt: skip
    cut = np.argwhere((square["bandwidth"] <= 0) & ~np.eye(width, dtype=bool))
    if len(cut):
        raise _wrong(f"bandwidth[{cut[0][0]}][{cut[0][1]}]", "must be more than 0 bytes/s")
    client = int(_indices([_part(document, "client", "")], "client", 1, 0, width)[0])
    items, tasks = _part(document, "items", ""), _part(document, "tasks", "")
    size = _numbers(_part(items, "bytes", "items"), "items.bytes", None, 0.0)
    work = _numbers(_part(tasks, "work", "tasks"), "tasks.work", None, 0.0)
    count, steps = len(size), len(work)
    producer = _indices(_part(items, "producer", "items"), "items.producer", count, -1, steps)
    home_at, homes, _ = _rows(_part(items, "home", "items"), "items.home", count, width, empty=True)
    has = np.diff(home_at) > 0
    wrong = np.flatnonzero(has == (producer >= 0))
    if len(wrong):
        why = "is made by a task and has a home" if has[wrong[0]] else "has no producer and no home"
        raise _wrong(f"items.home[{wrong[0]}]", why)
    allowed = _mask(items.get("allowed"), "items.allowed", count, width)
    homed = np.repeat(np.arange(count), np.diff(home_at))
    stray = np.flatnonzero(~allowed[homed, homes])
    if len(stray):
        raise _wrong(f"items.allowed[{homed[stray[0]]}]", "leaves out a site that holds the item")
    input_at, inputs, _ = _rows(
        _part(tasks, "inputs", "tasks"), "tasks.inputs", steps, count, empty=True
    )
    may = _mask(tasks.get("allowed"), "tasks.allowed", steps, width)
    seconds = np.where(may, work[:, None] / speed, np.inf)
    deliver = _indices(document.get("deliver") or [], "deliver", None, 0, count)
    return make(
        name=str(document.get("name", "")),
        sites=[str(site.get("name", f"s{at}")) for at, site in enumerate(sites)],
        workers=workers, bandwidth=square["bandwidth"], latency=square["latency"], size=size,
        producer=producer, homes=(home_at, homes), allowed=allowed, seconds=seconds,
        inputs=(input_at, inputs), deliver=deliver.tolist(), client=client,
    )  # fmt: skip


def write_problem(instance: Instance, *, speed: Floats, work: Floats, origin: str = "") -> Any:
    """The document of an instance whose steps take ``work / speed`` seconds."""
    width = instance.width

    def lists(at: Integers, flat: Integers) -> list[list[int]]:
        plain = flat.tolist()
        return [plain[a:b] for a, b in zip(at[:-1].tolist(), at[1:].tolist(), strict=True)]

    def limits(mask: Bools) -> list[list[int] | None]:
        everywhere = (mask.sum(axis=1) == width).tolist()
        return [
            None if every else np.flatnonzero(row).tolist()
            for every, row in zip(everywhere, mask, strict=True)
        ]

    bandwidth = np.zeros((width, width))
    away = ~np.eye(width, dtype=bool)
    bandwidth[away] = 1.0 / instance.pace[away]
    homes = lists(instance.home_at, instance.homes)
    return {
        "format": PROBLEM, "name": instance.name, "origin": origin,
        "sites": [
            {"name": name, "workers": workers, "speed": pace, "archetype": ""}
            for name, workers, pace in zip(
                instance.sites, instance.workers.tolist(), speed.tolist(), strict=True
            )
        ],
        "bandwidth": bandwidth.tolist(), "latency": instance.latency.tolist(),
        "client": instance.client,
        "items": {
            "bytes": instance.size.tolist(), "producer": instance.producer.tolist(),
            "home": [home or None for home in homes], "allowed": limits(instance.allowed),
        },
        "tasks": {
            "work": work.tolist(), "inputs": lists(instance.input_at, instance.inputs),
            "allowed": limits(np.isfinite(instance.seconds)),
        },
        "deliver": np.flatnonzero(instance.deliver).tolist(),
    }  # fmt: skip


def read_plan(document: Any, instance: Instance) -> Choice:
    """A choice out of a ``placement-plan/1`` document.

    Raises
    ------
    ConfigError
        Names the path of the first thing that is wrong.
    """
    kind = _part(document, "format", "")
    if kind != PLAN:
        raise _wrong("format", f"is {kind!r}, not {PLAN!r}")
    steps = instance.steps
    site = _indices(_part(document, "site", ""), "site", steps, 0, instance.width)
    order = document.get("order")
    start = document.get("start")
    ranks = np.empty(steps)
    ranks[instance.sequence] = np.arange(steps)
    rows = [
        _numbers(row, f"transfers[{at}]", 5, -np.inf)
        for at, row in enumerate(_list(document.get("transfers") or [], "transfers"))
    ]
    return Choice(
        site=site,
        order=ranks if order is None else _numbers(order, "order", steps, -np.inf),
        start=None if start is None else _numbers(start, "start", steps, 0.0),
        transfers=np.stack(rows) if rows else np.zeros((0, 5)),
    )


def write_plan(instance: Instance, choice: Choice, seconds: float, **more: Any) -> Any:
    """The document of a choice; ``seconds`` is what deciding took."""
    document = {
        "format": PLAN, "problem": instance.name, "site": choice.site.tolist(),
        "order": choice.order.tolist(),
    }  # fmt: skip
    if choice.start is not None:
        document["start"] = choice.start.tolist()
    document["transfers"] = [
        [int(row[0]), int(row[1]), int(row[2]), float(row[3]), float(row[4])]
        for row in choice.transfers
    ]
    return document | {"engine_seconds": seconds} | more
