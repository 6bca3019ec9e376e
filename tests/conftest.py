"""What holds for every test: Hypothesis profiles, and a state directory of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# "ci" is the default and gives the same examples in every run; "explore" looks for new ones;
# "long" is for a night. Choose with HYPOTHESIS_PROFILE.
settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.register_profile("long", parent=settings.get_profile("explore"), max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory for this test alone; processes started by the test inherit it."""
    directory = tmp_path / "state"
    monkeypatch.setenv("DATAFLOW_STATE_DIR", str(directory))
    return directory
