"""Workflows: graphs of scientific workflows after real traces, by the recipes of WfCommons.

A recipe knows the shapes, runtimes and file sizes of many recorded runs of one workflow (genomes,
mosaics of the sky, earthquakes, crops …) and draws new ones like them. Needs ``wfcommons``, which is
one of the tools of development and not of the package.
"""

from __future__ import annotations

import random
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from dataflow.placement.engine.instance import Instance
from dataflow.testing.problems import Drawn, Policy, federate

#: Workflows with runtimes and files; one of the recipes (Rnaseq) has neither.
RECIPES = (
    "Blast", "Bwa", "Cycles", "Epigenomics", "Genome", "Montage", "Seismology", "Soykb",
    "Srasearch",
)  # fmt: skip
#: A step takes at least so long (seconds): below that clocks of traces say nothing.
_LEAST = 0.01


def available() -> bool:
    """Whether WfCommons is installed."""
    return find_spec("wfcommons") is not None


def workflow(recipe: str, steps: int, seed: int) -> Drawn:
    """A workflow of about ``steps`` steps, or of as few as its recipe can make.

    Parameters
    ----------
    recipe
        One of :data:`RECIPES`.

    Raises
    ------
    ImportError
        WfCommons is not installed.
    """
    recipes: Any = import_module("wfcommons.wfchef.recipes")
    generator: Any = import_module("wfcommons.wfgen").WorkflowGenerator
    made_by = getattr(recipes, f"{recipe}Recipe")
    before, before_np = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        for count in (steps, 75, 110, 220):
            if count < steps:
                continue
            try:
                return _drawn(generator(made_by.from_num_tasks(count)).build_workflow())
            except ValueError:  # fewer than the least graph that this recipe knows
                continue
        raise ValueError(f"{recipe} makes no workflow of about {steps} steps")
    finally:
        random.setstate(before)
        np.random.set_state(before_np)


def suite(
    seed: int, *, quick: bool = False, data: tuple[float, ...] = (3.0, 30.0)
) -> list[Instance]:
    """A set of workflows of all recipes, sizes, skews and policies; equal numbers for each ``data``.

    Raises
    ------
    ImportError
        WfCommons is not installed.
    """
    sizes = (30, 300) if quick else (30, 80, 200, 500, 900)
    found = []
    for number, steps in enumerate(sizes):
        for kind, recipe in enumerate(RECIPES):
            if not quick and (number + kind) % 2:
                continue
            g = workflow(recipe, steps, seed * 1000 + number * 10 + kind)
            skew: Any = ("uniform", "zipf", "smallest")[(number + kind) % 3]
            policy: Policy = ("open", "strict")[(number + kind // 2) % 2]
            for bound in data:
                chance = np.random.default_rng([seed, number, kind])
                name = f"{recipe}-{steps}-{seed}"
                found.append(federate(g, chance, name=name, data=bound, skew=skew, policy=policy))
    return found


def _drawn(found: Any) -> Drawn:
    """Steps in an order in which they can run; files are items, mere order is an item of no bytes."""
    names: list[str] = []
    waiting = {name: len(set(found.tasks_parents.get(name, ()))) for name in found.tasks}
    ready = sorted(name for name, count in waiting.items() if count == 0)
    while ready:
        name = ready.pop()
        names.append(name)
        for child in sorted(set(found.tasks_children.get(name, ()))):
            waiting[child] -= 1
            if waiting[child] == 0:
                ready.append(child)
    g = Drawn()
    number: dict[str, int] = {}
    begun: dict[str, list[int]] = {}

    def item(size: float, producer: int) -> int:
        g.size.append(float(size))
        g.producer.append(producer)
        return len(g.producer) - 1

    made = {file.file_id for task in found.tasks.values() for file in task.output_files}
    for step, name in enumerate(names):
        task = found.tasks[name]
        inputs: dict[int, None] = {}
        parents = set(found.tasks_parents.get(name, ()))
        heard = set()
        for file in task.input_files:
            if file.file_id not in number:
                if file.file_id in made:
                    continue  # made by nobody before: a name that the recipe has drawn twice
                number[file.file_id] = item(file.size, -1)
            one = number[file.file_id]
            inputs[one] = None
            if g.producer[one] >= 0:
                heard.add(names[g.producer[one]])
        for parent in sorted(parents - heard):
            inputs[begun[parent][-1]] = None
        mine = []
        for file in task.output_files:
            if file.file_id not in number:
                number[file.file_id] = item(file.size, step)
                mine.append(number[file.file_id])
        if set(found.tasks_children.get(name, ())) or not mine:
            mine.append(item(0.0, step))
        begun[name] = mine
        g.inputs.append(sorted(inputs))
        g.work.append(max(_LEAST, float(task.runtime)))
    return g
