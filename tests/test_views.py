"""What a notebook shows of each thing: one line, and HTML that is whole, harmless and at rest."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from dataflow.agreements import Agreement, Relation
from dataflow.catalog.listing import Listing
from dataflow.catalog.snapshot import Snapshot
from dataflow.datasets import Dataset, Extent, Lineage, Replica, Variable
from dataflow.execution.view import JobView, LedgerEntry
from dataflow.graph.graph import Graph, of_dataset
from dataflow.graph.operation import operation
from dataflow.placement.make import make_plan
from dataflow.placement.plan import Plan
from dataflow.policy.check import check
from dataflow.policy.table import Verdicts
from dataflow.session.listings import Jobs, Ledger
from dataflow.sites import Link, Site, Topology
from dataflow.stores import Store

EVIL = "<script>alert('x')</script>\"&"
#: Tags without an end.
VOID = {"br", "img", "input", "meta", "link", "hr"}


class Reader(HTMLParser):
    """Fails on what is not closed, or closed by something else."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert not [name for name, _ in attrs if name.startswith("on")], "runs nothing"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def dataset(name: str = EVIL) -> Dataset:
    variable = Variable(
        name=name,
        dims=("frame", "atom"),
        shape=(98, -1),
        dtype="float32",
        nbytes=800,
        chunks=(9, 9),
    )
    return Dataset(
        id="d1",
        name=name,
        key="k" * 32,
        kind="array",
        extent=Extent(nbytes=800, variables=(variable,)),
        site=EVIL,
        owner=EVIL,
        tags={EVIL: EVIL},
        lineage=Lineage(operation=EVIL, version="1", kind="opaque", inputs=(), site=EVIL),
    )


def topology() -> Topology:
    names = (EVIL, "delft", "bucket", "gone")
    sites = tuple(Site(name=name, workers=2, stores_only=name == "bucket") for name in names)
    links = (
        Link(source=EVIL, target="delft", bandwidth=1e8, latency=0.01, origin="measured"),
        Link(source="delft", target=EVIL, bandwidth=1e6, latency=0.5, via="bucket"),
        Link(source="gone", target=EVIL, bandwidth=1e-3, latency=1e9, origin="closed"),
    )
    stores = (Store(name=EVIL, site="delft", url="file:///x"),)
    return Topology(sites=sites, links=links, stores=stores, away=frozenset({"gone"}))


def graph() -> Graph:
    @operation(kind="opaque", output=100)
    def mean(x: object, name: str = "") -> object:
        return x

    return mean(of_dataset(dataset()), name=EVIL)


def plan() -> Plan:
    whole, world = graph(), topology()
    copy = Replica(key="k" * 32, site=EVIL, store="s", url="file:///x", format="zarr", nbytes=800)
    return make_plan(
        whole,
        topology=world,
        replicas={copy.key: (copy,)},
        verdicts=check(whole, world),
        result_at="delft",
    )


def agreement() -> Agreement:
    relation = Relation(
        id=EVIL, users=(EVIL,), datasets=("*",), forced={EVIL: (EVIL,)}, valid_until=2e9
    )
    return Agreement(
        name=EVIL, site=EVIL, owner=EVIL, relations=(relation,), groups={EVIL: (EVIL,)}
    )


def verdicts() -> Verdicts:
    table = check(graph(), topology(), excluded={"delft": EVIL})
    return Verdicts({EVIL: next(iter(table.values()))}, missing={EVIL: EVIL}, notes=(EVIL,))


def ledger() -> Ledger:
    entry = LedgerEntry(job="j", key="k", source=EVIL, target="delft", nbytes=9, label=EVIL)
    return Ledger([entry])


VIEWS = {
    "dataset": dataset,
    "topology": topology,
    "graph": graph,
    "leaf": lambda: of_dataset(dataset()),
    "plan": plan,
    "why": lambda: plan().why("mean"),
    "difference": lambda: plan().compare(plan()),
    "agreement": agreement,
    "closed": lambda: Agreement(name="none", site="uva"),
    "verdicts": verdicts,
    "ledger": ledger,
    "jobs": lambda: Jobs([JobView(id="j", status="running", user=EVIL, tags={EVIL: EVIL})]),
    "listing": lambda: Listing([dataset()], Snapshot(datasets=(dataset(),), topology=topology())),
}


@pytest.mark.parametrize("name", sorted(VIEWS))
def test_html_is_whole_and_harmless(name: str) -> None:
    html = VIEWS[name]()._repr_html_()
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert not reader.open
    assert "script" not in reader.seen
    assert EVIL in reader.text or name in ("difference", "closed")
    outside = re.findall(r"(?:src|href|url\()[^>]*?https?:[^\"' ]*|@import", html)
    assert not outside, "nothing is fetched"
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("name", ["dataset", "topology", "graph", "plan", "agreement", "verdicts"])
def test_repr_is_one_line(name: str) -> None:
    line = repr(VIEWS[name]())
    assert "\n" not in line
    assert re.fullmatch(r"<[A-Z]\w+.*>", line)


def test_what_can_be_chosen_is_offered() -> None:
    assert topology()._ipython_key_completions_() == [EVIL, "delft", "bucket", "gone"]
    assert topology()["delft"].workers == 2
    assert verdicts()._ipython_key_completions_() == [EVIL]


def test_pictures_are_drawn_in_words_as_well() -> None:
    for view in (topology(), graph(), plan()):
        label = re.search(r'<svg[^>]* role="img"[^>]* aria-label="([^"]{20,})"', view._repr_html_())
        assert label, view


def test_verdicts_say_why_not() -> None:
    table = check(graph(), topology())
    shown = Verdicts({"mean": next(iter(table.values()))})
    assert shown["mean"]["delft"].allowed
    assert not shown["mean"]["gone"]
    assert repr(shown) == "<Verdicts 1 step at 4 sites: 2 of 4 allowed>"
    assert "the site does not answer" in shown._repr_html_()
