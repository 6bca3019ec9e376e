"""DY-15 with processors that are really busy: the workers of two sites compute, or do not."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dataflow as flow
from dataflow.agreements import Agreement, Relation
from dataflow.testing.federation import Federation, SiteSettings

SERVICES = Path(__file__).parent / "services"
sys.path.insert(0, str(SERVICES))

import wages  # noqa: E402

C2D, TTP = "computeToData", "dataThroughTtp"
#: A worker that waits takes a hundredth of a processor; one that computes a third at the very least.
THRESHOLD = 0.2


@flow.operation(lazy=False, output=8)
def spin(x: Any, *, seconds: float, tag: str) -> Any:
    """Keep one processor busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))
    return x.sum()


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("loaded")
    environment = {"PYTHONPATH": str(SERVICES)}
    settings = {
        name: SiteSettings(memory="1 GB", environment=environment, more={"loaded_at": THRESHOLD})
        for name in ("vu", "surf")
    }
    users = {"anna": "user", "eve": "user", "root": "admin"}
    with Federation(folder, settings, users=users, ready_within=90) as federation:
        file = federation.sites_file_of("root")
        with flow.connect(file, user="root", state=folder / "root") as root:
            path = federation.data("vu") / "wageGap.parquet"
            pd.DataFrame({"Geslacht": ["M", "V"] * 500, "Salschal": range(1000)}).to_parquet(path)
            root.register(path.as_uri(), name="wageGap", site="vu")
            for name in settings:
                ballast = federation.data(name) / "ballast.npy"
                np.save(ballast, np.arange(10.0))
                root.register(ballast.as_uri(), name=f"ballast-{name}", site=name)
            federation.wait_measured(root)
            one = Relation(
                id="anna",
                users=("anna",),
                request_types=("sqlDataRequest",),
                datasets=("wageGap",),
                archetypes=(C2D, TTP),
                compute_providers=("surf",),
            )
            root.agree(Agreement(name="wages", site="vu", covers=("wageGap",), relations=(one,)))
        yield federation


def test_dy15_the_load_rule_under_real_load(sites: Federation, tmp_path: Path) -> None:
    with (
        flow.connect(sites.sites_file_of("anna"), user="anna", state=tmp_path / "anna") as anna,
        flow.connect(sites.sites_file_of("eve"), user="eve", state=tmp_path / "eve") as eve,
    ):

        def busy(site: str) -> Any:
            graph = spin(eve[f"ballast-{site}"], seconds=600.0, tag=str(tmp_path))
            plan = eve.plan(graph, result_at=site)
            assert {one.site for one in plan.assignments} == {site}
            return eve.submit(plan)

        def chosen() -> tuple[str, list[str]]:
            graph = wages.average(wages.query(anna["vu/wageGap"]), tag="dy15")
            plan = anna.plan(graph, request="sqlDataRequest")
            return plan.request.archetypes["vu"], [note for note in plan.notes if "load" in note]

        def becomes(archetype: str) -> None:
            limit = time.monotonic() + 120
            while (found := chosen())[0] != archetype:
                assert time.monotonic() < limit, found
                time.sleep(0.5)

        becomes(C2D)
        at_vu = busy("vu")
        becomes(TTP)  # vu is loaded, surf is not
        assert any("the load rule prefers it" in note for note in chosen()[1])
        at_surf = busy("surf")
        becomes(C2D)  # both are: the data stay
        assert any("the load rule prefers it" in note for note in chosen()[1])
        at_surf.cancel()
        becomes(TTP)
        at_vu.cancel()
        becomes(C2D)
