"""Warm: load the compiled loops, or compile them, before anybody waits for a plan.

``python -m dataflow.placement.engine.warm`` does it once per machine, in a minute.
"""

from __future__ import annotations

import numpy as np

from dataflow.placement.engine import compiled
from dataflow.placement.engine.instance import Instance, make, offsets
from dataflow.placement.engine.search import place


def example() -> Instance:
    """The least problem that goes through every loop: a dataset, three steps, three sites."""
    return make(
        name="example", sites=["a", "b", "c"], workers=[1, 2, 1], bandwidth=np.ones((3, 3)),
        latency=np.zeros((3, 3)), size=[1.0, 1.0, 1.0, 1.0], producer=[-1, 0, 1, 2],
        homes=offsets([[0], [], [], []]), allowed=np.ones((4, 3), bool),
        seconds=np.ones((3, 3)), inputs=offsets([[0], [0, 1], [1, 2]]), deliver=[3], client=1,
    )  # fmt: skip


def warm() -> None:
    """Load all loops."""
    place(example(), "makespan", budget=0.01)
    place(example(), "bytes", budget=0.01)
    compiled.remember()


if __name__ == "__main__":
    warm()
