"""Where an agent is, as Pods see it."""

from __future__ import annotations

import pytest

from dataflow.backends.surroundings import (
    Surroundings,
    is_ours,
    own_address,
    read_surroundings,
    tls_address,
)


def test_the_manifest_tells_a_pod_what_it_is() -> None:
    assert read_surroundings({}) == Surroundings()
    told = {"POD_NAME": "a-1", "POD_UID": "7", "POD_NAMESPACE": "adk", "POD_IP": "10.0.0.7"}
    assert read_surroundings(told) == Surroundings(
        pod="a-1", uid="7", namespace="adk", address="10.0.0.7"
    )


@pytest.mark.parametrize(
    ("address", "ours"),
    [("127.0.0.1", True), ("::1", True), ("192.0.2.7", False), ("login.example.org", False)],
)
def test_one_listens_only_where_one_is(address: str, ours: bool) -> None:
    assert is_ours(address) is ours


def test_the_way_to_another_tells_the_own_address() -> None:
    assert own_address("127.0.0.1", 6443) == "127.0.0.1"
    assert own_address("no-such-host.invalid", 6443) == "127.0.0.1"


def test_addresses_as_dask_writes_them() -> None:
    assert tls_address("10.0.0.7", 8786) == "tls://10.0.0.7:8786"
    assert tls_address("fd00::1", 8786) == "tls://[fd00::1]:8786"
