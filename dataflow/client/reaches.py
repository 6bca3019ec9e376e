"""Reaches: the ways through login hosts that a site file names."""

from __future__ import annotations

from collections.abc import Mapping

from dataflow.client.ssh import SshReach
from dataflow.config.records import Federation


def reaching(federation: Federation) -> Mapping[str, SshReach]:
    """The ways to all peers behind a login host, by their addresses.

    Raises
    ------
    ConfigError
        If an address is wrong.
    """
    return {
        peer.address.rstrip("/"): SshReach(peer.site or peer.address, peer.address, peer.ssh)
        for peer in federation.peers
        if peer.ssh is not None
    }
