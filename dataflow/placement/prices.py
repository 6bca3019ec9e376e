"""Prices: what sites and links ask for a byte that leaves, and the power of workers, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dataflow.placement.problem import Floats
from dataflow.sites import Link, Topology


def prices_of(
    topology: Topology, names: Sequence[str], roads: Mapping[tuple[str, str], Link]
) -> tuple[Floats | None, Floats | None]:
    """``S x S`` money per byte and ``S`` watts; ``None`` where nobody has said any.

    A link's own price wins over that of the site that the bytes leave. Measured links say nothing of
    money, so that what was declared is asked.
    """
    sites = [topology.site_by_name[name] for name in names]
    watts = np.array([site.watts for site in sites], dtype=float)
    egress = np.zeros((len(sites), len(sites)))
    declared = {(link.source, link.target): link.egress for link in topology.links}
    for a, site in enumerate(sites):
        for b, other in enumerate(names):
            if a != b:
                own = roads[site.name, other].egress
                own = declared.get((site.name, other)) if own is None else own
                egress[a, b] = site.egress if own is None else own
    return (egress if egress.any() else None), (watts if watts.any() else None)
