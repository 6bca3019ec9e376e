"""Way: who carries a copy from one site to another, and how. Pure."""

from __future__ import annotations

from dataclasses import replace

from dataflow.datasets import Replica
from dataflow.placement.plan import Transfer
from dataflow.sites import Link, Topology


def way(topology: Topology, road: Link, replica: Replica | None) -> Transfer:
    """A transfer over a road of which no more is said than who carries it out, and by which way.

    Parameters
    ----------
    replica
        The copy to read; ``None`` for what is yet to be stored at the source.
    """
    source, target = road.source, road.target
    plain = Transfer(
        id="", key="", source=source, target=target, nbytes=0, seconds=0.0, replica=replica
    )
    if target in topology.stores_only:
        return replace(plain, via=road.via, at=road.via or source, direct=True)
    if replica is None:
        direct = topology.sees_results(target, source)
    else:
        direct = topology.sees(target, replica.url, at=source, store=replica.store)
    return replace(plain, via="" if direct else road.via, direct=direct)
