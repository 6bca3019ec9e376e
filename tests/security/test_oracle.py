"""Whatever is agreed, heard and asked in whatever order: no site hands out what is not granted.

An oracle that shares no code with the product reads the agreements as the documentation puts them:
one relation has to grant everything at once.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dataflow.agreements import Agreement, Derived, Relation, Request
from dataflow.catalog.records import Records
from dataflow.datasets import Dataset, Extent, Lineage, Replica, Variable
from dataflow.errors import NotGranted, SiteRefused
from dataflow.execution.events import SegmentOrder
from dataflow.graph.graph import of_dataset
from dataflow.graph.operation import operation
from dataflow.participant import agreeing
from dataflow.participant.audit import Audit, verify
from dataflow.participant.gate import Gate, Reader
from dataflow.sites import Site

USERS, SITES = ("anna", "eve"), ("vu", "uva", "surf", "desk")
HOMES = ("vu", "uva")
ROWS = 100
COMPUTES = {
    "computeToData": "provider",
    "dataThroughTtp": "other",
    "fetch": "requester",
    "nobody knows": "",
}


@operation(role="dataProvider", name="query", version="1")
def query(x: Any) -> Any:
    return x


@operation(role="computeProvider", name="mean", version="1")
def mean(x: Any) -> Any:
    return x


def some(*words: str) -> st.SearchStrategy[tuple[str, ...]]:
    """Mostly everything, so that something is granted at all; else a word or two, or none."""
    few = st.lists(st.sampled_from(words), max_size=2).map(tuple)
    return st.sampled_from([("*",)] * 3) | few


MOMENTS = st.none() | st.none() | st.none() | st.integers(0, 20).map(float)
RELATIONS = st.builds(
    Relation,
    id=st.sampled_from("abcdefgh"),
    users=some(*USERS),
    groups=st.sampled_from([(), ("team",)]),
    request_types=some("sql", "other"),
    datasets=some("vu-data", "tag:topic", "tag:topic=wages", "another"),
    archetypes=some("dataThroughTtp", "fetch", "computeToData"),
    compute_providers=some("surf", "desk"),
    purposes=some("study", "ads"),
    valid_from=MOMENTS,
    valid_until=MOMENTS,
    forced=st.sampled_from([{}, {}, {}, {"sql": ("query",)}, {"*": ("query",)}]),
    hidden=st.sampled_from([(), (), (), ("name",)]),
    row_floor=st.sampled_from([0, 0, ROWS, ROWS + 1]),
    derived=st.builds(Derived, copy=st.booleans(), reuse=st.booleans())
    | st.builds(Derived, reuse=st.booleans(), outlive=st.just(True)),
).filter(lambda relation: bool(relation.users or relation.groups))
AGREEMENTS = st.builds(
    Agreement,
    name=st.sampled_from(["one", "two"]),
    site=st.sampled_from(HOMES),
    covers=st.sampled_from([("*",), ("*",), ("vu-data",), ()]),
    relations=st.lists(RELATIONS, max_size=3, unique_by=lambda r: r.id).map(tuple),
    archetypes=st.sampled_from([("*",), ("*",), ("computeToData", "fetch")]),
    compute_providers=st.sampled_from([("*",), ("*",), ("desk",)]),
    groups=st.sampled_from([{}, {"team": ("eve",)}]),
)
#: When the results were made that are asked for.
MADE = 0.0
REQUESTS = st.builds(
    lambda type, purpose, archetypes: Request(
        type=type, purpose=purpose, archetypes=dict(zip(HOMES, archetypes, strict=True))
    ),
    st.sampled_from(["sql", "sql", "other"]),
    st.sampled_from(["study", "study", "ads"]),
    st.tuples(*(st.sampled_from(tuple(COMPUTES)) for _ in HOMES)),
)


# --- the oracle ------------------------------------------------------------------------------------


def has(words: Any, word: str) -> bool:
    return "*" in words or word in words


def about(agreements: list[Agreement], dataset: Dataset) -> list[Agreement]:
    mine = [a for a in agreements if a.site == dataset.site]
    return [a for a in mine if has(a.covers, dataset.name)]


def applies(agreement: Agreement, r: Relation, user: str, dataset: Dataset, now: float) -> bool:
    people = [*r.users, *(u for g in r.groups for u in agreement.groups.get(g, ()))]
    words = (dataset.name, "tag:topic", "tag:topic=wages")
    return (
        has(people, user)
        and any(has(r.datasets, word) for word in words)
        and (r.valid_from is None or now >= r.valid_from)
        and (r.valid_until is None or now < r.valid_until)
    )


def serves(
    agreement: Agreement, r: Relation, user: str, request: Request, dataset: Dataset, now: float
) -> bool:
    archetype = request.archetypes[dataset.site]
    return (
        applies(agreement, r, user, dataset, now)
        and has(r.request_types, request.type)
        and has(r.purposes, request.purpose)
        and has(r.archetypes, archetype)
        and has(agreement.archetypes, archetype)
        and bool(COMPUTES[archetype])
    )


def forced(r: Relation, request: Request) -> bool:
    return bool(r.forced.get("*") or r.forced.get(request.type) or r.hidden)


def rows_may_go(
    agreements: list[Agreement], dataset: Dataset, reader: Reader, now: float, steward: bool
) -> bool:
    """To everybody who sees them; the user's own hands are a site without a name."""
    found = about(agreements, dataset)
    if not found:
        return not steward
    how = COMPUTES[reader.request.archetypes[dataset.site]]

    def to(site: str) -> bool:
        return any(
            serves(a, r, reader.user, reader.request, dataset, now)
            and not forced(r, reader.request)
            and (
                how == "requester"
                or (
                    how == "other"
                    and has(r.compute_providers, site)
                    and has(a.compute_providers, site)
                )
            )
            for a in found
            for r in a.relations
        )

    return all(to(site) for site in reader.sites or ("",))


def result_may_go(
    agreements: list[Agreement],
    dataset: Dataset,
    maker: str,
    reader: Reader,
    now: float,
    steward: bool,
) -> bool:
    found = about(agreements, dataset)
    if not found:
        return not steward
    return any(
        (r.derived.copy or not reader.sites)
        and (
            applies(a, r, reader.user, dataset, now)
            or (r.derived.reuse and applies(a, r, maker, dataset, now))
            or (r.derived.outlive and reader.user == maker and applies(a, r, maker, dataset, MADE))
        )
        for a in found
        for r in a.relations
    )


def may_run(
    agreements: list[Agreement],
    dataset: Dataset,
    user: str,
    request: Request,
    now: float,
    steward: bool,
) -> bool:
    """A mean of the whole dataset, at the owner's own site."""
    found = about(agreements, dataset)
    if not found:
        return not steward
    how = COMPUTES[request.archetypes[dataset.site]]
    return any(
        serves(a, r, user, request, dataset, now)
        and not forced(r, request)
        and how in ("provider", "requester")
        and r.row_floor <= ROWS
        for a in found
        for r in a.relations
    )


# --- the sites -------------------------------------------------------------------------------------


class Place:
    """The gate of one site over real records."""

    def __init__(self, folder: Path, name: str, clock: Any) -> None:
        folder.mkdir()
        self.name, self.steward = name, name == "vu"
        self.records = Records(folder / "catalog.db", name)
        self.audit = Audit(folder / "audit.jsonl", clock)
        site = Site(name=name, trust="steward" if self.steward else "lab")
        known = {f"{o.operation.name}@1": o.operation for o in (query, mean)}
        self.gate = Gate(site, self.records, self.audit, clock, known)
        self.records.add(site)


class Sites(RuleBasedStateMachine):
    """Four sites; agreements change, news of them is cut off, time goes on, and everybody asks."""

    def __init__(self) -> None:
        super().__init__()
        self.folder, self.now = Path(tempfile.mkdtemp()), 0.0
        self.places = {n: Place(self.folder / n, n, lambda: self.now) for n in SITES}
        self.datasets: dict[str, Dataset] = {}
        self.copies: dict[tuple[str, str], Replica] = {}

    @initialize()
    def begin(self) -> None:
        variables = (Variable(name="a", dims=("row",), shape=(ROWS,), dtype="i8", nbytes=8),)
        for home in HOMES:
            data = Dataset(
                id=home,
                name=f"{home}-data",
                key=f"key-{home}",
                kind="table",
                extent=Extent(nbytes=8, variables=variables),
                site=home,
                tags={"topic": "wages"},
            )
            self.datasets[home] = data
            records: list[Any] = [data]
            for what, rows in (("rows", {data.key: 0}), ("mean", {})):
                lineage = Lineage(
                    operation=what,
                    version="1",
                    kind="opaque",
                    inputs=(data.key,),
                    origins=(data.key,),
                    rows=rows,
                )
                key = f"{what}-{home}"
                made = replace(
                    data, id=key, name=key, key=key, lineage=lineage, owner="anna", created=MADE
                )
                records.append(replace(made, tags={}))
            self.places[home].records.add(*records)
            for holder in (home, "surf"):
                for record in records:
                    copy = Replica(
                        key=record.key,
                        site=holder,
                        store="s",
                        url=f"file:///{holder}/{record.key}",
                        format="parquet",
                        nbytes=1,
                    )
                    self.copies[holder, record.key] = copy
                    self.places[holder].records.add(copy)
        for source in SITES:
            for listener in SITES:
                self.hear(source, listener)

    @rule(agreement=AGREEMENTS)
    def agree(self, agreement: Agreement) -> None:
        place = self.places[agreement.site]
        agreeing.put(place.records, place.audit, agreement, "root")

    @rule(source=st.sampled_from(HOMES), name=st.sampled_from(["one", "two"]))
    def withdraw(self, source: str, name: str) -> None:
        place = self.places[source]
        if any(a.name == name for a in place.records.agreements(source)):
            agreeing.withdraw(place.records, place.audit, name, "root")

    @rule(source=st.sampled_from(SITES), listener=st.sampled_from(SITES))
    def hear(self, source: str, listener: str) -> None:
        """News of one site arrives at another; until then that site knows what it knew."""
        if source == listener:
            return
        there, here = self.places[source].records, self.places[listener].records
        epoch, rows = there.page(source, 0)
        here.apply(source, rows, epoch)

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        home=st.sampled_from(HOMES),
        away=st.booleans(),
        what=st.sampled_from(["key", "rows", "mean"]),
        user=st.sampled_from((*USERS, "")),
        sites=st.lists(st.sampled_from(SITES), max_size=2, unique=True).map(tuple),
        request=REQUESTS,
    )
    def read(
        self,
        home: str,
        away: bool,
        what: str,
        user: str,
        sites: tuple[str, ...],
        request: Request,
    ) -> None:
        holder = self.places["surf" if away else home]
        copy = self.copies[holder.name, f"{what}-{home}"]
        reader = Reader(user=user, sites=sites, request=request)
        before = len(holder.audit.entries())
        try:
            holder.gate.read(copy, reader)
            served = True
        except NotGranted:
            served = False
            (entry,) = holder.audit.entries()[before:]
            assert entry["allowed"] is False
        known, dataset = holder.records.agreements(), self.datasets[home]
        closed = self.places[home].steward
        if what == "mean":
            allowed = result_may_go(known, dataset, "anna", reader, self.now, closed)
        else:
            allowed = rows_may_go(known, dataset, reader, self.now, closed)
        if user:
            assert allowed or not served, (dataset.name, reader, known)
        else:
            assert not served or not about(known, dataset), "nobody is granted nothing"

    @rule(home=st.sampled_from(HOMES), user=st.sampled_from(USERS), request=REQUESTS)
    def run_there(self, home: str, user: str, request: Request) -> None:
        place, dataset = self.places[home], self.datasets[home]
        graph = mean(of_dataset(dataset))
        order = SegmentOrder(
            id="o",
            job="j",
            plan="p",
            site=home,
            steps=tuple(graph.steps.values()),
            inputs={dataset.key: self.copies[home, dataset.key]},
            datasets={dataset.key: dataset},
            extents={},
            outputs=graph.outputs,
            user=user,
            request=request,
        )
        try:
            place.gate.order(order)
            let_in = True
        except (NotGranted, SiteRefused):
            let_in = False
        known = place.records.agreements()
        allowed = may_run(known, dataset, user, request, self.now, place.steward)
        assert allowed or not let_in, (dataset.name, user, request, known)

    @invariant()
    def logs_hold(self) -> None:
        for place in self.places.values():
            assert not verify(place.audit.path).broken

    def teardown(self) -> None:
        for place in self.places.values():
            place.records.close()
        shutil.rmtree(self.folder, ignore_errors=True)


TestSites = Sites.TestCase
TestSites.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
