"""Two universities and a third party on this machine, for the notebook; with sites of your own you need
none of this."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import dataflow as flow
from dataflow.agreements import Agreement, Relation
from dataflow.testing import wage_gap
from dataflow.testing.federation import Federation, SiteSettings

UNIVERSITIES = ("vu", "uva")
SERVICES = [f"dataflow.operations:{name}" for name in ("query", "aggregate", "algorithm")]


def two_universities(folder: str | Path = "", *, megabits: float = 100) -> Federation:
    """Start three sites: each a process with its own folder, Dask worker and token.

    ``vu`` and ``uva`` are stewards: they run the services of this package and nothing else, for whom
    their agreements name. ``surf`` has computers only. What goes in or out of a site goes through a
    proxy of ``megabits`` per second, which counts. They end with this process, or by
    ``federation.stop()``.
    """
    folder = Path(folder or tempfile.mkdtemp(prefix="two-universities-"))
    steward = SiteSettings(more={"trust": "steward", "operations": SERVICES})
    sites = {"vu": steward, "uva": steward, "surf": SiteSettings()}
    federation = Federation(
        folder,
        sites,
        rate=megabits * 1e6 / 8,
        users={"anna": "user", "dean": "admin"},
        ready_within=60,
    )
    federation.start()
    with dean_of(federation) as dean:
        for site in UNIVERSITIES:
            for path in wage_gap.write(site, federation.data(site)):
                dean.register(path.as_uri(), name=path.stem, site=site)
            dean.agree(agreement(site))
    return federation


def dean_of(federation: Federation) -> Any:
    """A session of whoever may change the agreements."""
    state = federation.folder / "dean"
    return flow.connect(federation.sites_file_of("dean"), user="dean", state=state)


def agreement(
    site: str, archetypes: tuple[str, ...] = ("computeToData", "dataThroughTtp")
) -> Agreement:
    """What a university agrees to: Anna may ask for the wage gap, in these ways; nobody, in none."""
    relation = Relation(
        id="wage-gap study",
        users=("anna",),
        request_types=("sqlDataRequest",),
        datasets=("Personen", "Aanstellingen"),
        archetypes=archetypes,
        compute_providers=("surf",),
    )
    return Agreement(name="wages", site=site, relations=(relation,) if archetypes else ())
