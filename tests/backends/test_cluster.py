"""What all backends share: how often Dask looks at itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from dataflow.backends.cluster import ENVIRONMENT, PACE

LOOK = """
import json, sys
import dask, distributed
dask.config.set(json.loads(sys.argv[1]))
from dataflow.backends import cluster
cluster._keep_pace()
print(json.dumps({name: dask.config.get(name) for name in cluster.PACE}))
"""


def pace(said: dict[str, str], **environment: str) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", LOOK, json.dumps(said)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_it_is_ours() -> None:
    assert pace({}) == PACE


@pytest.mark.parametrize("name", list(PACE))
def test_what_the_user_says_stays(name: str) -> None:
    assert pace({name: "33ms"}) == {**PACE, name: "33ms"}


def test_workers_of_other_hosts_are_told() -> None:
    """Read by a Dask that does not know our module."""
    look = "import dask, distributed, json, sys\n"
    look += "print(json.dumps([dask.config.get(name) for name in json.loads(sys.argv[1])]))"
    done = subprocess.run(
        [sys.executable, "-c", look, json.dumps(list(PACE))],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == list(PACE.values())
