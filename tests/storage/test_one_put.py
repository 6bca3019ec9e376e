"""A store that does not answer is told as one of our errors."""

from __future__ import annotations

import socket

import pytest
import zarr

from dataflow.errors import StorageError
from dataflow.storage.open import zarr_store


def test_nobody_answers_whoever_reads() -> None:
    with socket.socket() as nobody:  # the port is taken, and nobody listens there
        nobody.bind(("127.0.0.1", 0))
        store = zarr_store(f"http://127.0.0.1:{nobody.getsockname()[1]}/data")
        with pytest.raises(
            StorageError, match=r"GET failed \d+ times in .* s: error sending request"
        ):
            zarr.open(store=store, mode="r")
