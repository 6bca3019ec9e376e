"""A notebook's work at a site whose workers are Grid Engine jobs; run on its login host."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

import dataflow as flow
from dataflow.errors import DataflowError

SITE = """
site: {{name: hpc}}
state: ./state
stores: [{{name: results, url: ./results}}]
backend:
  workers: 2
  memory: 500 MB
  sge: {{queue: {queue}, interface: eth0, scheduler_interface: lan0, walltime: 10 min,
        idle: 2 s, look: 1 s, orphaned: 15 s}}
"""


def story(folder: Path, queue: str) -> None:
    np.save(folder / "run.npy", np.arange(10.0))
    (folder / "site.yaml").write_text(SITE.format(queue=queue))

    @flow.operation(kind="opaque", lazy=False)
    def where(run):  # type: ignore[no-untyped-def]
        import os

        return run * 0 + int(os.environ["JOB_ID"])

    session = flow.connect(folder / "site.yaml")
    try:
        session.register(str(folder / "run.npy"), name="run")
        job = session.submit(session.plan(where(session["run"])))
        try:
            values = np.asarray(job.result())
            print(
                json.dumps({"job": int(values.max()), "same": bool(values.min() == values.max())})
            )
        except DataflowError as error:
            print(json.dumps({"error": type(error).__name__, "said": str(error)}))
    finally:
        session.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="flow-site-", dir=Path.home()) as name:
        story(Path(name), sys.argv[1])
