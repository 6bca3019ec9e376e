"""What all backends share: how often Dask looks at itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from dataflow.backends.cluster import PACE

IN_AGENT = """
import json, sys
import dask
dask.config.set(json.loads(sys.argv[1]))
from dataflow.backends import cluster
variables = cluster.environment()
print(json.dumps([{name: dask.config.get(name) for name in cluster.PACE}, variables]))
"""

#: What a worker on another host reads, whose Dask knows nothing of us.
IN_WORKER = """
import json, sys
import dask, distributed
print(json.dumps({name: dask.config.get(name) for name in json.loads(sys.argv[1])}))
"""


def ask(script: str, about: object, environment: dict[str, str]) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(about)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def paces(said: dict[str, str], environment: dict[str, str] | None = None) -> Any:
    """Of an agent, and of a worker of it on another host."""
    here, variables = ask(IN_AGENT, said, environment or {})
    return here, ask(IN_WORKER, list(PACE), variables)


def test_it_is_ours() -> None:
    assert paces({}) == (PACE, PACE)


@pytest.mark.parametrize("name", list(PACE))
def test_what_the_user_says_stays(name: str) -> None:
    wanted = {**PACE, name: "33ms"}
    assert paces({name: "33ms"}) == (wanted, wanted)


def test_also_what_the_environment_says() -> None:
    wanted = {**PACE, "distributed.admin.tick.interval": "33ms"}
    assert paces({}, {"DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "33ms"}) == (wanted, wanted)
