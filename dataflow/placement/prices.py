"""Prices: what sites ask for a byte that leaves them, and the power of workers, as arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dataflow.placement.problem import Floats
from dataflow.sites import Topology


def prices_of(topology: Topology, names: Sequence[str]) -> tuple[Floats | None, Floats | None]:
    """``S x S`` money per byte and ``S`` watts; ``None`` where nobody has said any."""
    sites = [topology.site_by_name[name] for name in names]
    watts = np.array([site.watts for site in sites], dtype=float)
    egress = np.array(
        [[per_byte(topology, site.name, name) for name in names] for site in sites], dtype=float
    ).reshape(len(sites), len(sites))
    return (egress if egress.any() else None), (watts if watts.any() else None)


def per_byte(topology: Topology, source: str, target: str) -> float:
    """Money for a byte from one site to another; nothing within a site."""
    site = topology.site_by_name[source]
    return 0.0 if source == target else dict(site.egress_to).get(target, site.egress)
