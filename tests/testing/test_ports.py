"""Ports for servers that are told theirs."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from dataflow.testing import ports


def test_no_outgoing_connection_gets_them() -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        assert given.getsockname()[1] >= lowest
    found = {ports.free_port() for _ in range(20)}
    assert all(10_000 <= port < lowest for port in found)
    assert len(found) > 10, "servers that start at once get different ones"


def test_who_listens_keeps_his(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = ports.free_port()
    with socket.create_server(("127.0.0.1", mine)):
        monkeypatch.setattr(ports, "_LOWEST", mine)
        monkeypatch.setattr(ports.secrets, "randbelow", lambda below: 0)
        with pytest.raises(OSError, match="no free port"):
            ports.free_port()
