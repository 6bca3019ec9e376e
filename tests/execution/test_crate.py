"""A job as an RO-Crate; what another program reads of it is in tests/session/test_crating.py."""

from __future__ import annotations

import pytest

from dataflow.errors import JobError
from dataflow.execution.crate import crate_of


def test_only_of_a_journal() -> None:
    with pytest.raises(JobError, match="does not begin"):
        crate_of([], [])
