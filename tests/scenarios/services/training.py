"""What the sites of the rounds do; nobody learns anything but sums."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import xarray as xr

import dataflow as flow


@flow.operation(role="computeProvider", name="train", version="1", lazy=False, output=16)
def train(state: Any, values: Any, *, seconds: float = 0.0) -> Any:
    """Sum and number of a client's values, moved towards the state."""
    time.sleep(seconds)
    total, count = np.asarray(values).sum(), values.size
    return xr.DataArray([float(total) + float(np.asarray(state)[0]), float(count)], dims="part")


@flow.operation(role="computeProvider", name="combine", version="1", lazy=False, output=8)
def combine(settings: Any, *updates: Any) -> Any:
    """The new state: a step, as long as the settings say, to the mean of all."""
    total = sum(float(np.asarray(one)[0]) for one in updates)
    count = sum(float(np.asarray(one)[1]) for one in updates)
    return xr.DataArray([total / count * float(np.asarray(settings)[0])], dims="state")
