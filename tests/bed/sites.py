"""Sites on hosts of the bed that a notebook reaches by SSH."""

from __future__ import annotations

import contextlib
import json
import signal
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import dataflow as flow
from dataflow.testing.bed import Bed

SHAPE = (20_000, 100)


class Sites:
    """Sites on hosts of the bed, each with one array called like it, and the notebook's file.

    ``more`` is what a site's own file says beyond the usual, ``secrets`` its credentials file.
    """

    def __init__(
        self,
        bed: Bed,
        folder: Path,
        names: list[str],
        more: Mapping[str, Any] | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        self.bed, self.folder, self.names = bed, folder, names
        #: Below the home directory of each site, and for this test alone.
        self.home = f"flow-{uuid.uuid4().hex[:8]}"
        self.values: dict[str, np.ndarray[Any, Any]] = {}
        for number, name in enumerate(names):
            self.values[name] = np.random.default_rng(number).random(SHAPE)
            host = bed.host(name)
            host.run(f"mkdir -p {self.home}/data")
            document = {
                "site": {"name": name, "workers": 1, "memory": "1 GB"},
                "state": "./state",
                "stores": [
                    {"name": "data", "url": "./data", "purpose": "data"},
                    {"name": "results", "url": "./results"},
                ],
            }
            document.update((more or {}).get(name, {}))
            host.run(f"cat > {self.home}/site.yaml", stdin=yaml.safe_dump(document))
            if name in (secrets or {}):
                path = "~/.config/dataflow/credentials.yaml"
                host.run(
                    f"mkdir -p ~/.config/dataflow; umask 077; cat > {path}", stdin=secrets[name]
                )
            values = f"np.random.default_rng({number}).random({SHAPE})"
            make = f"import numpy as np; np.save('{self.home}/data/{name}.npy', {values})"
            host.run([bed.python, "-c", make])
        self.file = folder / "sites.yaml"
        ssh = {
            "python": str(bed.python),
            "config": str(bed.ssh_config),
            "site_file": f"{self.home}/site.yaml",
        }
        sites = [{"name": name, "address": f"ssh://{name}", "ssh": ssh} for name in names]
        self.file.write_text(yaml.safe_dump({"sites": sites}))

    @contextlib.contextmanager
    def session(self) -> Iterator[flow.Session]:
        with flow.connect(self.file, state=self.folder / "notebook", user="anna") as session:
            for name in self.names:
                if name not in session:
                    path = f"/home/{self.bed.user}/{self.home}/data/{name}.npy"
                    session.register(path, name=name, site=name)
            yield session

    def agent(self, name: str) -> int:
        """The agent's number, as its host knows it."""
        said = self.bed.host(name).run(f"cat {self.home}/state/agent.json").stdout
        return int(json.loads(said)["pid"])

    def end(self) -> None:
        for name in self.names:
            with contextlib.suppress(Exception):
                self.bed.host(name).end(self.agent(name), signal.SIGTERM)
