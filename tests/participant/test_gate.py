"""Gate: a site's own word about orders and reads, whatever the coordinator believed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataflow.agreements import Agreement, Derived, Request
from dataflow.catalog.records import Records
from dataflow.datasets import Dataset, Extent, Lineage, Replica, Reproduction, Variable
from dataflow.errors import NotGranted, PolicyError, SiteRefused
from dataflow.execution.events import CompareOrder, Errand, SegmentOrder, TransferOrder
from dataflow.graph.anonymity import common_rows
from dataflow.graph.graph import Graph, of_dataset
from dataflow.graph.hiding import without_columns
from dataflow.graph.operation import Operation, operation
from dataflow.participant import agreeing, proving
from dataflow.participant.audit import Audit, verify
from dataflow.participant.gate import Gate, Reader, reader_of
from dataflow.participant.owners import Answer, Asking, ask_owners
from dataflow.policy.archetype import Wish
from dataflow.policy.scope import Scope
from dataflow.sites import Site
from dataflow.stores import Store
from tests.policy.examples import ANNA, agreement, relation, wages

C2D = Request(type="sqlDataRequest", archetypes={"vu": "computeToData"})
TTP = Request(type="sqlDataRequest", archetypes={"vu": "dataThroughTtp"})


@operation(role="dataProvider", version="1")
def query(x: Any) -> Any:
    return x


@operation(role="computeProvider", version="1")
def mean(x: Any) -> Any:
    return x


@operation(role="computeProvider", version="1")
def both(x: Any, y: Any) -> Any:
    return x


class Vu:
    """The gate of one site over real records."""

    def __init__(self, directory: Path, trust: Any = "steward") -> None:
        self.records = Records(directory / "catalog.db", "vu")
        self.audit = Audit(directory / "audit.jsonl", lambda: 1000.0)
        self.now = 1000.0
        operations = [query.operation, mean.operation, both.operation]
        installed = {f"{o.name}@{o.version}": o for o in operations}
        self.gate = Gate(
            Site(name="vu", trust=trust), self.records, self.audit, lambda: self.now, installed
        )
        extent = Extent(
            nbytes=800,
            variables=(Variable(name="a", dims=("row",), shape=(100,), dtype="i8", nbytes=800),),
        )
        self.dataset = wages("vu", extent=extent)
        self.replica = self.copy(self.dataset)
        self.records.add(self.dataset, self.replica)

    def agree(self, *relations: Any, **fields: Any) -> None:
        agreeing.put(self.records, self.audit, agreement("vu", *relations, **fields), "root")

    def copy(self, dataset: Dataset, url: str = "") -> Replica:
        return Replica(
            key=dataset.key,
            site="vu",
            store="data",
            url=url or f"file:///{dataset.name}",
            format="parquet",
            nbytes=100,
        )

    def order(self, graph: Graph, request: Request = C2D, **fields: Any) -> SegmentOrder:
        shipped: dict[str, Any] = {
            "id": "o1",
            "job": "j1",
            "plan": "p1",
            "site": "vu",
            "steps": tuple(graph.steps.values()),
            "inputs": {self.dataset.key: self.replica},
            "datasets": {self.dataset.key: self.dataset},
            "extents": {},
            "outputs": graph.outputs,
            "user": ANNA,
            "request": request,
        }
        return SegmentOrder(**{**shipped, **fields})

    def stored(self, graph: Graph, owner: str = ANNA, **fields: Any) -> Replica:
        """The result of an order that was let in, as the site writes it down."""
        order = self.gate.order(self.order(graph, **fields))
        assert isinstance(order, SegmentOrder)
        key = graph.outputs[0]
        dataset = Dataset(
            id=f"result {key}",
            name="mean",
            key=key,
            kind="table",
            extent=Extent(nbytes=10),
            site="vu",
            owner=owner,
            created=self.now,
            lineage=Lineage(
                operation="mean",
                version="1",
                kind="opaque",
                inputs=(self.dataset.key,),
                origins=order.origins.get(key, ()),
                entered=order.entered.get(key, {}),
                rows=order.rows.get(key, {}),
                services=order.services.get(key, {}),
            ),
        )
        replica = self.copy(dataset, f"file:///{key}")
        self.records.add(dataset, replica)
        return replica

    @property
    def source(self) -> Graph:
        return of_dataset(self.dataset)


@pytest.fixture
def vu(tmp_path: Path) -> Iterator[Vu]:
    site = Vu(tmp_path)
    yield site
    site.records.close()
    assert not verify(site.audit.path).broken


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Vu]:
    site = Vu(tmp_path, "lab")
    yield site
    site.records.close()


def refused(vu: Vu) -> list[dict[str, Any]]:
    return [entry for entry in vu.audit.entries() if entry.get("allowed") is False]


def test_an_order_that_is_granted_says_what_its_results_are_made_of(vu: Vu) -> None:
    vu.agree(relation())
    selected = query(vu.source)
    graph = mean(selected)
    order = vu.gate.order(vu.order(graph, origins={"x": ("forged",)}, rows={"x": {"forged": 0}}))
    assert isinstance(order, SegmentOrder)
    key = vu.dataset.key
    assert order.origins == {selected.key: (key,), graph.key: (key,)}
    assert order.rows == {selected.key: {key: 0}}
    (entry,) = [e for e in vu.audit.entries() if e["what"] == "segment"]
    assert (entry["user"], entry["allowed"]) == (ANNA, True)
    assert entry["clause"] == "vu: agreement 'wages', relation 'GUID'"


def test_without_agreement_a_steward_refuses_and_a_lab_does_not(vu: Vu, tmp_path: Path) -> None:
    with pytest.raises(NotGranted, match="no agreement is about 'wageGap'"):
        vu.gate.order(vu.order(mean(vu.source)))
    with pytest.raises(NotGranted):
        vu.gate.read(vu.replica, Reader(user=ANNA))
    assert len(refused(vu)) == 2


def test_a_lab_without_agreements_is_as_it_was(lab: Vu) -> None:
    lab.gate.order(lab.order(mean(lab.source)))
    lab.gate.read(lab.replica, Reader(user="anybody"))
    assert not lab.audit.path.exists()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"user": "eve"}, "no relation for user 'eve'"),
        ({"request": Request()}, "request type '' is not among"),
        ({"request": Request(type="sqlDataRequest")}, "a request without archetype"),
        ({"request": replace(C2D, archetypes={"vu": "fetch"})}, "archetype 'fetch' is not allowed"),
        ({"request": TTP}, "under dataThroughTtp a third party computes"),
    ],
)
def test_each_part_is_checked_again(vu: Vu, change: dict[str, Any], why: str) -> None:
    vu.agree(relation())
    with pytest.raises(NotGranted, match=why):
        vu.gate.order(vu.order(mean(vu.source), **change))
    (entry,) = refused(vu)
    assert why in entry["clause"]


def test_an_input_under_a_false_name_is_refused(vu: Vu) -> None:
    """The coordinator says that the file of the wages is something harmless."""
    free = wages("vu", "weather")
    vu.agree(relation(datasets=("weather",)))
    vu.records.add(free, vu.copy(free))
    graph = mean(of_dataset(free))
    for lying in (
        replace(vu.replica, key=free.key),
        replace(vu.copy(free), url=vu.replica.url),
        replace(vu.copy(free), url="file:///etc/passwd"),
    ):
        with pytest.raises(NotGranted, match="no copy that is known here"):
            vu.gate.order(vu.order(graph, inputs={free.key: lying}, datasets={free.key: free}))
    vu.gate.order(vu.order(graph, inputs={free.key: vu.copy(free)}, datasets={free.key: free}))


def test_an_operation_of_the_right_name_and_another_code_is_refused(vu: Vu) -> None:
    vu.agree(relation())

    @operation(role="computeProvider", name="mean", version="1")
    def other(x: Any) -> Any:
        return [x]

    with pytest.raises(SiteRefused, match="mean@1 is not the operation that is installed here"):
        vu.gate.order(vu.order(other(vu.source)))

    @operation(version="2", name="mean", role="computeProvider")
    def newer(x: Any) -> Any:
        return x

    with pytest.raises(SiteRefused, match="mean@2 is not"):
        vu.gate.order(vu.order(newer(vu.source)))


def test_a_label_that_the_user_made_up_does_not_count(vu: Vu) -> None:
    vu.agree(relation())
    graph = query(vu.source)
    (step,) = graph.steps.values()
    relabelled = replace(step, operation=replace(step.operation, role="computeProvider"))
    with pytest.raises(SiteRefused, match="query@1 is not the operation"):
        vu.gate.order(vu.order(graph, steps=(relabelled,)))


def test_rows_go_to_permitted_third_parties_only(vu: Vu) -> None:
    vu.agree(relation())
    surf = Reader(user=ANNA, sites=("surf",), request=TTP)
    vu.gate.read(vu.replica, surf)
    for reader, why in (
        (replace(surf, sites=("lab",)), "'lab' is no permitted compute provider"),
        (replace(surf, sites=("surf", "lab")), "'lab' is no permitted compute provider"),
        (replace(surf, sites=()), "'' is no permitted compute provider"),
        (replace(surf, request=C2D), "computeToData keeps 'wageGap' at vu"),
        (replace(surf, user="eve"), "no relation for user 'eve'"),
        (replace(surf, request=Request()), "request type ''"),
    ):
        with pytest.raises(NotGranted, match=why):
            vu.gate.read(vu.replica, reader)
    assert len(refused(vu)) == 6


def test_selected_rows_are_rows(vu: Vu) -> None:
    vu.agree(relation())
    replica = vu.stored(query(vu.source))
    vu.gate.read(replica, Reader(user=ANNA, sites=("surf",), request=TTP))
    with pytest.raises(NotGranted):
        vu.gate.read(replica, Reader(user=ANNA, request=C2D))


def test_results_go_to_who_may_ask_for_them_as_long_as_he_may(vu: Vu) -> None:
    vu.agree(relation())
    replica = vu.stored(mean(vu.source))
    vu.gate.read(replica, Reader(user=ANNA))
    vu.gate.read(replica, Reader(user=ANNA, sites=("lab",)))
    with pytest.raises(NotGranted, match="no relation for user 'eve'"):
        vu.gate.read(replica, Reader(user="eve"))
    vu.agree(relation(derived=Derived(reuse=True, copy=False)))
    vu.gate.read(replica, Reader(user="eve"))
    with pytest.raises(NotGranted, match="results are not copied to other sites"):
        vu.gate.read(replica, Reader(user=ANNA, sites=("lab",)))
    vu.agree()
    for user in (ANNA, "eve"):
        with pytest.raises(NotGranted):
            vu.gate.read(replica, Reader(user=user))


def test_hidden_columns_never_leave_as_they_are(vu: Vu) -> None:
    vu.agree(relation(hidden=("Gebdat",)))
    with pytest.raises(NotGranted, match=r"hidden columns \(Gebdat\)"):
        vu.gate.read(vu.replica, Reader(user=ANNA, sites=("surf",), request=TTP))


def test_fewer_rows_than_the_floor_are_not_computed_with(vu: Vu) -> None:
    vu.agree(relation(row_floor=100))
    vu.gate.order(vu.order(mean(vu.source)))
    vu.agree(relation(row_floor=101))
    with pytest.raises(NotGranted, match="fewer than 101 rows"):
        vu.gate.order(vu.order(mean(vu.source)))


def test_what_ends_and_what_may_finish(vu: Vu) -> None:
    vu.agree(relation(valid_until=2000.0))
    order = vu.gate.order(vu.order(mean(vu.source)))
    assert vu.gate.still(order) is None
    vu.agree(relation(archetypes=("dataThroughTtp",)))
    assert vu.gate.still(order) is None, "a milder change lets it finish"
    assert isinstance(order, SegmentOrder)
    vu.gate.look(order)
    vu.agree(relation(valid_until=2000.0))
    vu.now = 2000.0
    ended = vu.gate.still(order)
    assert isinstance(ended, NotGranted)
    assert "no longer valid" in str(ended)
    with pytest.raises(NotGranted, match="no longer valid"):
        vu.gate.look(order)
    vu.now = 1000.0
    vu.agree()
    assert vu.gate.still(order) is not None


def test_copies_are_fetched_without_being_asked_here(vu: Vu) -> None:
    """Whether rows may leave is the business of the site that has them."""
    copy = TransferOrder(id="t", job="j", site="vu", key="k", replica=vu.replica, user=ANNA)
    assert vu.gate.order(copy) is copy


def test_agreements_of_others_count_for_copies_of_their_data(tmp_path: Path) -> None:
    """A third party hands rows on only as their owner lets it, as last heard."""
    surf = Vu(tmp_path, "lab")
    theirs = wages("uva")
    surf.records.add(surf.copy(theirs, "file:///copies/uva"))
    source = Records(tmp_path / "uva.db", "uva")
    source.add(theirs, agreement("uva", relation(compute_providers=("vu",))))
    epoch, rows = source.page("uva", 0)
    surf.records.apply("uva", rows, epoch)
    copy = surf.copy(theirs, "file:///copies/uva")
    request = replace(TTP, archetypes={"uva": "dataThroughTtp"})
    with pytest.raises(NotGranted, match="uva: agreement 'wages'"):
        surf.gate.read(copy, Reader(user=ANNA, sites=("lab",), request=request))
    surf.records.close()
    source.close()


def test_a_third_party_asks_all_who_say_that_data_are_theirs(tmp_path: Path) -> None:
    """Whoever registers under another's key is one more owner, whatever his site is called."""
    surf = Vu(tmp_path, "lab")
    theirs = wages("uva")
    copy = surf.copy(theirs, "file:///copies/uva")
    surf.records.add(copy)
    heard(surf, "uva", theirs, agreement("uva", relation()))
    eve = Reader(user="eve", sites=("lab",), request=replace(TTP, archetypes={"evil": "fetch"}))
    anna = Reader(
        user=ANNA, sites=("surf",), request=replace(TTP, archetypes={"uva": "dataThroughTtp"})
    )
    surf.gate.read(copy, anna)
    stolen = replace(theirs, id="mine", site="evil")
    free = relation(users=("eve", ANNA), archetypes=("*",), compute_providers=("*",))
    open_to_all = agreement("evil", free, archetypes=("*",), compute_providers=("*",))
    heard(surf, "evil", stolen, open_to_all)
    with pytest.raises(NotGranted, match="uva: agreement 'wages'"):
        surf.gate.read(copy, eve)
    # Who may use both is told that they do not grant the same, and by whom.
    with pytest.raises(NotGranted, match="evil and uva both say that 'wageGap' is theirs"):
        surf.gate.read(copy, anna)
    heard(surf, "evil", stolen, agreement("evil", relation()))
    surf.gate.read(copy, anna)
    surf.records.close()


#: What a site that says that the data are its own may have agreed to: nothing, with nobody, and so on.
TERMS: dict[str, tuple[Any, ...]] = {
    "no agreement": (),
    "granted": (relation(compute_providers=("vu",)),),
    "granted to all": (relation(users=("*",), archetypes=("*",), compute_providers=("*",)),),
    "others are granted": (relation(users=("eve",), compute_providers=("vu",)),),
    "stays": (relation(archetypes=("computeToData",)),),
}


@pytest.mark.parametrize("first", TERMS)
@pytest.mark.parametrize("second", TERMS)
def test_plans_send_to_a_third_party_what_it_lets_in(
    first: str, second: str, tmp_path: Path
) -> None:
    third = Vu(tmp_path, "lab")
    theirs = wages("uva")
    third.records.add(Site(name="vu"), third.copy(theirs, "file:///copies/uva"))
    for site, terms in (("uva", first), ("evil", second)):
        about = [agreement(site, *TERMS[terms], compute_providers=("*",))] if TERMS[terms] else []
        heard(third, site, Site(name=site), replace(theirs, id=site, site=site), *about)
    graph = mean(of_dataset(theirs))
    asking = Asking(user=ANNA, type="sqlDataRequest", wish=Wish(archetype="dataThroughTtp"))
    try:
        answer = ask_owners(graph, third.records.snapshot(), asking, scope=Scope(), excluded={})
    except NotGranted:
        allowed, request = (
            False,
            replace(TTP, archetypes={"uva": "dataThroughTtp", "evil": "dataThroughTtp"}),
        )
    else:
        allowed, request = bool(answer.verdicts[graph.key]["vu"]), answer.request
    order = third.order(
        graph,
        request,
        inputs={theirs.key: third.copy(theirs, "file:///copies/uva")},
        datasets={theirs.key: theirs},
    )
    with nullcontext() if allowed else pytest.raises(NotGranted):
        third.gate.order(order)
    third.records.close()


def test_an_agreement_is_written_by_its_own_site(vu: Vu) -> None:
    with pytest.raises(PolicyError, match="every site writes its own"):
        agreeing.put(vu.records, vu.audit, agreement("uva"), "root")
    with pytest.raises(PolicyError, match="two relations of one id"):
        vu.agree(relation(), relation())
    with pytest.raises(PolicyError, match="no agreement 'other'"):
        agreeing.withdraw(vu.records, vu.audit, "other", "root")


def test_what_was_changed_stays_changed_over_a_restart(vu: Vu) -> None:
    file = agreement("vu", relation(), seed="one")
    agreeing.seed(vu.records, [file], [])
    agreeing.withdraw(vu.records, vu.audit, "wages", "root")
    agreeing.seed(vu.records, [file], [])
    (known,) = vu.records.agreements("vu")
    assert known.relations == (), "a restart brings nothing back"
    agreed = relation(id="urn:1", origin="agreed")
    agreeing.put(vu.records, vu.audit, replace(known, relations=(agreed,)), "root")
    agreeing.seed(vu.records, [replace(file, seed="two")], [])
    (known,) = vu.records.agreements("vu")
    assert [r.id for r in known.relations] == ["GUID", "urn:1"], "what was agreed stays"


def test_a_withdrawn_agreement_leaves_a_labs_data_closed(lab: Vu) -> None:
    lab.agree(relation())
    agreeing.withdraw(lab.records, lab.audit, "wages", "root")
    with pytest.raises(NotGranted):
        lab.gate.read(lab.replica, Reader(user=ANNA))


def test_who_reads_on_an_errand() -> None:
    errand = Errand(job="j", user=ANNA, request=C2D, to="lab")
    assert reader_of(errand, "surf") == Reader(
        user=ANNA, sites=("surf", "lab"), request=C2D, job="j"
    )
    assert reader_of(replace(errand, to="")).sites == ()


def test_agreements_are_plain(vu: Vu) -> None:
    vu.agree(relation())
    (known,) = vu.records.agreements()
    assert isinstance(known, Agreement)


def test_a_copy_under_way_ends_when_its_relation_is_gone(vu: Vu) -> None:
    vu.agree(relation())
    order = TransferOrder(
        id="t1",
        job="j1",
        site="vu",
        key=vu.dataset.key,
        replica=vu.replica,
        user=ANNA,
        request=TTP,
    )
    assert vu.gate.still(order) is None
    vu.agree(relation(users=("eve",)))
    denied = vu.gate.still(order)
    assert denied is not None
    assert "no relation for user" in str(denied)


def test_who_is_still_reading_is_not_written_down_again(vu: Vu) -> None:
    vu.agree(relation(archetypes=("fetch",)), archetypes=("*",))
    reader = Reader(
        user=ANNA, request=Request(type="sqlDataRequest", archetypes={"vu": "fetch"}), job="j1"
    )
    vu.gate.read(vu.replica, reader)
    before = len(vu.audit.entries())
    vu.gate.read(vu.replica, reader, again=True)
    assert len(vu.audit.entries()) == before
    vu.agree()
    with pytest.raises(NotGranted):
        vu.gate.read(vu.replica, reader, again=True)
    assert refused(vu)[-1]["what"] == "read"


def test_results_that_may_not_be_kept_are_marked(vu: Vu) -> None:
    vu.agree(relation(derived=Derived(keep=False)))
    selected = query(vu.source)
    graph = mean(selected)
    order = vu.gate.order(vu.order(graph, temporary=("forged",)))
    assert isinstance(order, SegmentOrder)
    assert set(order.temporary) == {selected.key, graph.key}


def test_what_was_hidden_for_one_counts_as_far_as_the_same_is_hidden_from_another(vu: Vu) -> None:
    vu.agree(
        relation(hidden=("Gebdat",)),
        relation(id="less", users=("less",), hidden=("Gebdat", "Geslacht")),
        relation(id="same", users=("same",), hidden=("Gebdat",), anonymity=5, among=("Geslacht",)),
    )
    kept = vu.stored(query(without_columns(vu.source, columns=["Gebdat"])))
    (selected,) = vu.records.snapshot().with_key(kept.key)
    assert selected.lineage is not None
    assert selected.lineage.services == {vu.dataset.key: ("without-columns(Gebdat)",)}
    further: dict[str, Any] = {"inputs": {kept.key: kept}, "datasets": {kept.key: selected}}
    graph = mean(of_dataset(selected))
    vu.gate.order(vu.order(graph, **further))
    with pytest.raises(NotGranted, match=r"without-columns\(Gebdat, Geslacht\) must be applied"):
        vu.gate.order(vu.order(graph, user="less", **further))
    with pytest.raises(NotGranted, match=r"common-rows\(5: Geslacht\) must be applied"):
        vu.gate.order(vu.order(graph, user="same", **further))
    vu.agree(relation(hidden=("Gebdat", "Geslacht")))
    with pytest.raises(NotGranted, match="must be applied"):
        vu.gate.order(vu.order(graph, **further))
    old = replace(selected, lineage=replace(selected.lineage, services={}))
    vu.agree(relation(hidden=("Gebdat",)))
    vu.records.add(old)
    with pytest.raises(NotGranted, match="must be applied"):
        vu.gate.order(vu.order(graph, **further))


def test_plans_put_in_what_was_not_forced_for_whoever_selected_before(vu: Vu) -> None:
    vu.agree(
        relation(hidden=("Gebdat",)),
        relation(id="less", users=("less",), hidden=("Gebdat", "Geslacht")),
        relation(id="same", users=("same",), hidden=("Gebdat",)),
    )
    vu.records.add(Site(name="vu", trust="steward", operations=("query@1", "mean@1")))
    kept = vu.stored(query(without_columns(vu.source, columns=["Gebdat"])))
    (selected,) = vu.records.snapshot().with_key(kept.key)
    further: dict[str, Any] = {"inputs": {kept.key: kept}, "datasets": {kept.key: selected}}
    graph = mean(of_dataset(selected))

    def planned(user: str) -> Answer:
        asking = Asking(user=user, type="sqlDataRequest", wish=Wish(archetype="computeToData"))
        return ask_owners(graph, vu.records.snapshot(), asking, scope=Scope(), excluded={})

    same = planned("same")
    assert same.graph.outputs == graph.outputs
    assert same.given == {kept.key: {vu.dataset.key: 1}}
    vu.gate.order(vu.order(same.graph, user="same", **further))
    less = planned("less")
    assert less.given == {kept.key: {vu.dataset.key: 0}}
    hides, computes = less.graph.steps.values()
    assert hides.operation == without_columns.operation
    assert (hides.inputs, computes.inputs) == ((kept.key,), (hides.key,))
    assert less.verdicts[computes.key]["vu"]
    vu.gate.order(vu.order(less.graph, user="less", **further))


def test_hidden_columns_are_hidden_from_operations_at_home_too(vu: Vu) -> None:
    vu.agree(relation(hidden=("Gebdat",)))
    without = without_columns(vu.source, columns=["Gebdat"])
    for graph in (
        mean(vu.source),
        query(vu.source),
        mean(without_columns(vu.source, columns=[])),
        mean(without_columns(vu.source, columns=["Salschal"])),
    ):
        with pytest.raises(NotGranted, match=r"without-columns\(Gebdat\) must be applied"):
            vu.gate.order(vu.order(graph))
    vu.gate.order(vu.order(mean(without)))
    fake = replace(without.steps[without.key].operation, code="ab" * 32)
    steps = tuple(
        replace(step, operation=fake) if step.key == without.key else step
        for step in mean(without).steps.values()
    )
    with pytest.raises(SiteRefused, match="is not the operation that is installed"):
        vu.gate.order(vu.order(mean(without), steps=steps))


def test_whoever_computes_gets_a_floor_and_whoever_selects_does_not(vu: Vu) -> None:
    vu.agree(relation(row_floor=10))
    selected = query(vu.source)
    graph = mean(selected)
    order = vu.gate.order(vu.order(graph, floors={graph.key: (0,)}))
    assert isinstance(order, SegmentOrder)
    assert order.floors == {graph.key: (10,)}


def test_of_which_datasets_rows_are_is_written_down_by_the_site(vu: Vu) -> None:
    vu.agree(relation(row_floor=10, anonymity=12, among=("a",)))
    selected = query(common_rows(vu.source, k=12, among=["a"]))
    order = vu.gate.order(vu.order(mean(selected), guarded={"x": {"y": 1}}))
    assert isinstance(order, SegmentOrder)
    assert order.guarded == {selected.key: {vu.dataset.key: 12}}


def test_rows_that_nobody_counts_are_given_to_no_command(tmp_path: Path) -> None:
    lab = Vu(tmp_path, "lab")
    lab.agree(relation(row_floor=10))
    for graph, fine in ((mean(lab.source), True), (mean(query(lab.source)), False)):
        steps = tuple(
            replace(step, operation=replace(step.operation, name="sh", command="cat {x}"))
            if step.key == graph.key
            else step
            for step in graph.steps.values()
        )
        order = lab.order(graph, steps=steps)
        if fine:  # all rows of a registered dataset: the owner's record has their number
            lab.gate.order(order)
            continue
        with pytest.raises(NotGranted, match="nobody counts the rows"):
            lab.gate.order(order)
    lab.records.close()


def test_reuse_does_not_lift_what_the_maker_may_not_copy(vu: Vu) -> None:
    vu.agree(relation(derived=Derived(copy=False, reuse=True)))
    replica = vu.stored(mean(vu.source))
    vu.gate.read(replica, Reader(user="eve"))
    with pytest.raises(NotGranted):  # what all may have is still for somebody
        vu.gate.read(replica, Reader(user=""))
    with pytest.raises(NotGranted, match="not copied to other sites"):
        vu.gate.read(replica, Reader(user="eve", sites=("lab",)))


def test_a_third_party_keeps_a_stewards_rows_closed_before_it_hears_of_agreements(
    tmp_path: Path,
) -> None:
    lab = Vu(tmp_path, "lab")
    dataset = wages("uva")
    copy = replace(lab.copy(dataset, "file:///copied"), site="vu")
    uva = Records(tmp_path / "uva.db", "uva")
    uva.add(Site(name="uva", trust="steward"), dataset)
    epoch, rows = uva.page("uva", 0)
    lab.records.apply("uva", rows, epoch)
    lab.records.add(copy)
    with pytest.raises(NotGranted, match="no agreement is about"):
        lab.gate.read(copy, Reader(user=ANNA))
    uva.close()
    lab.records.close()


def heard(vu: Vu, site: str, *records: Any) -> None:
    """Records that another site has written."""
    theirs = Records(vu.audit.path.parent / f"{site}.db", site)
    theirs.add(*records)
    epoch, rows = theirs.page(site, 0)
    vu.records.apply(site, rows, epoch)
    theirs.close()


TWICE = Request(type="sqlDataRequest", archetypes={"vu": "reproducibleScience"})


def test_what_is_not_proven_is_given_to_nobody_but_those_who_prove_it(vu: Vu) -> None:
    vu.agree(relation(archetypes=("reproducibleScience",)))
    graph = mean(vu.source)
    order = vu.gate.order(vu.order(graph, TWICE))
    assert isinstance(order, SegmentOrder)
    assert order.unproven == graph.outputs
    with pytest.raises(NotGranted, match="given out when a second run has come to the same"):
        vu.gate.look(order)
    assert refused(vu)[-1]["what"] == "read"
    lineage = Lineage(
        operation="mean",
        version="1",
        kind="opaque",
        inputs=(vu.dataset.key,),
        origins=order.origins[graph.key],
        unproven=True,
    )
    result = Dataset(
        id="result",
        name="mean",
        key=graph.key,
        kind="table",
        extent=Extent(nbytes=10),
        site="vu",
        owner=ANNA,
        lineage=lineage,
    )
    replica = vu.copy(result, "file:///result")

    def known(**proof: Any) -> None:
        told = Reproduction(site="surf", **proof) if proof else None
        vu.records.add(replace(result, lineage=replace(lineage, reproduced=told)), replica)

    known()
    with pytest.raises(NotGranted, match="given out when a second run has come to the same"):
        vu.gate.read(replica, Reader(user=ANNA, request=TWICE))
    with pytest.raises(NotGranted, match="given out when"):
        vu.gate.read(replica, Reader(user=ANNA, sites=("elsewhere",), request=TWICE))
    with pytest.raises(NotGranted, match="given out when"):
        vu.gate.read(replica, Reader(user=ANNA, sites=("surf",), request=TWICE))
    heard(vu, "surf", replace(result, site="surf", lineage=replace(lineage, site="vu")))
    with pytest.raises(NotGranted, match="given out when"):
        vu.gate.read(replica, Reader(user=ANNA, sites=("surf",), request=TWICE))
    heard(vu, "surf", replace(result, site="surf", lineage=replace(lineage, site="surf")))
    vu.gate.read(replica, Reader(user=ANNA, sites=("surf",), request=TWICE))
    vu.gate.read(replica, Reader(user=ANNA, sites=("vu",), request=TWICE))
    vu.gate.read(vu.replica, Reader(user=ANNA, sites=("surf",), request=TWICE))
    with pytest.raises(NotGranted, match="no permitted compute provider"):
        vu.gate.read(vu.replica, Reader(user=ANNA, sites=("elsewhere",), request=TWICE))
    with pytest.raises(NotGranted, match="no permitted compute provider"):
        vu.gate.read(vu.replica, Reader(user=ANNA, request=TWICE))
    known(equal=False, differs=("a/c/0",))
    with pytest.raises(NotGranted, match="the second run at 'surf' differs in a/c/0"):
        vu.gate.read(replica, Reader(user=ANNA, request=TWICE))
    known(equal=True)
    vu.gate.read(replica, Reader(user=ANNA, request=TWICE))


def withheld(vu: Vu) -> tuple[Graph, Dataset, Replica]:
    """A result of one run, at this site; it carries no rows."""
    vu.agree(relation(archetypes=("reproducibleScience",)))
    graph = mean(vu.source)
    lineage = Lineage(
        operation="mean",
        version="1",
        kind="opaque",
        inputs=(vu.dataset.key,),
        origins=(vu.dataset.key,),
        unproven=True,
        site="vu",
    )
    result = replace(
        wages("vu", "mean"), id="result", key=graph.outputs[0], owner=ANNA, lineage=lineage
    )
    replica = vu.copy(result, "file:///result")
    vu.records.add(result, replica)
    return graph, result, replica


def test_a_second_step_does_not_give_out_what_is_withheld(vu: Vu) -> None:
    _, result, replica = withheld(vu)
    graph = mean(of_dataset(result))
    given = {"inputs": {result.key: replica}, "datasets": {result.key: result}}
    for request in (Request(type="sqlDataRequest"), C2D):
        with pytest.raises(NotGranted, match="when a second run has come to the same"):
            vu.gate.order(vu.order(graph, request, **given))
    with pytest.raises(NotGranted, match="archetype 'unheard' is not known"):
        vu.gate.order(vu.order(graph, replace(C2D, archetypes={"vu": "unheard"}), **given))
    assert len(refused(vu)) == 3
    order = vu.gate.order(vu.order(graph, TWICE, **given))
    assert isinstance(order, SegmentOrder)
    assert order.unproven == graph.outputs
    assert result.lineage is not None
    proven = replace(result.lineage, reproduced=Reproduction(site="surf", equal=True))
    vu.records.add(replace(result, lineage=proven))
    vu.gate.order(vu.order(graph, C2D, **given))


def compare(key: str, copy: Replica, **fields: Any) -> CompareOrder:
    shipped: dict[str, Any] = {"user": ANNA, "request": TWICE, **fields}
    return CompareOrder(id="c1", job="j1", site="vu", key=key, copy=copy, **shipped)


def test_a_site_that_may_not_run_again_is_not_compared_with(vu: Vu) -> None:
    graph, _, replica = withheld(vu)
    key = graph.outputs[0]
    order = compare(key, replace(replica, site="surf"))
    assert vu.gate.order(order) is order
    with pytest.raises(NotGranted, match="'eve' is no permitted compute provider"):
        vu.gate.order(compare(key, replace(replica, site="eve")))
    with pytest.raises(NotGranted, match="no relation for user 'eve'"):
        vu.gate.order(compare(key, replace(replica, site="surf"), user="eve"))
    assert [entry["what"] for entry in refused(vu)] == ["compare", "compare"]


def test_only_what_a_site_calls_its_own_result_is_a_second_run(vu: Vu) -> None:
    """Not a file that lies there under the same key, nor a copy of the first result."""
    graph, result, replica = withheld(vu)
    key = graph.outputs[0]
    store = Store(name="disk", site="surf", url="file:///surf")
    made = replace(
        replica, site="surf", store="disk", url=f"file:///surf/results/{key[:2]}/{key}/a1"
    )
    assert result.lineage is not None
    theirs = replace(result, site="surf", lineage=replace(result.lineage, site="surf"))
    copied = replace(made, url=f"file:///surf/copies/{key[:2]}/{key}/a1")
    file = replace(made, url="file:///surf/mine/a1")
    heard(vu, "surf", store, made, copied, file)
    assert proving.second_of(made, vu.records) is None, "nothing says that it was made there"
    heard(vu, "surf", store, made, copied, file, theirs)
    assert proving.second_of(made, vu.records) == made
    told = (copied, file, replace(made, key="other"), replace(made, url=f"{made.url}/x"), replica)
    for other in (*told, replace(made, site="eve")):
        assert proving.second_of(other, vu.records) is None, other


NOTEBOOK_STEP = Operation(
    name="notebook",
    version="1",
    code="",
    kind="opaque",
    role="notebook",
    command="sh notebook",
)


def test_a_notebook_is_run_for_requests_of_its_own_type_only(lab: Vu) -> None:
    lab.agree(relation(archetypes=("fetch", "computeToData"), request_types=("*",)))
    graph = mean(lab.source)
    (step,) = graph.steps.values()
    steps = (replace(step, operation=NOTEBOOK_STEP),)
    with pytest.raises(NotGranted, match="a notebook is a request of type 'notebook'"):
        lab.gate.order(lab.order(graph, steps=steps))
    lab.gate.order(lab.order(graph, replace(C2D, type="notebook"), steps=steps))


def test_only_a_site_that_knows_says_that_it_is_proven() -> None:
    lineage = Lineage(
        operation="mean", version="1", kind="opaque", inputs=(), origins=("k",), unproven=True
    )
    made = replace(wages("vu", "mean"), lineage=lineage)
    told = replace(lineage, reproduced=Reproduction(site="surf", equal=True))
    homes = {"k": {"vu": [wages("vu")]}}
    eve = replace(made, id="eve", site="eve", lineage=told)
    assert "second run" in proving.withheld([made, eve], "surf", homes.__getitem__)
    owner = replace(made, lineage=told)
    assert proving.withheld([owner, eve], "surf", homes.__getitem__) == ""


def test_a_proof_is_not_forgotten_when_the_result_is_met_again() -> None:
    lineage = Lineage(operation="mean", version="1", kind="opaque", inputs=(), job="j1")
    made = replace(wages("vu", "mean"), lineage=lineage)
    told = replace(lineage, reproduced=Reproduction(site="surf", equal=True))
    known = {made.id: replace(made, lineage=told)}
    again = proving.with_proofs([made, "other"], known.get)
    assert again == [known[made.id], "other"]
    other = replace(made, lineage=replace(lineage, job="j2"))
    assert proving.with_proofs([other], known.get) == [other], "made anew, and not compared yet"
    assert proving.with_proofs([made], {}.get) == [made]


OUTLIVES = Derived(outlive=True)


def test_results_outlive_a_relation_that_says_so(vu: Vu) -> None:
    vu.agree(relation(valid_until=2000.0, derived=OUTLIVES))
    replica = vu.stored(mean(vu.source))
    vu.now = 2500.0
    vu.gate.read(replica, Reader(user=ANNA))
    vu.gate.read(replica, Reader(user=ANNA, sites=("lab",)))
    for closed, reader in (
        (replica, Reader(user="eve")),
        (replica, Reader(user="")),
        (vu.replica, Reader(user=ANNA, sites=("surf",), request=TTP)),
    ):
        with pytest.raises(NotGranted):
            vu.gate.read(closed, reader)
    vu.agree(relation(valid_until=2000.0))
    with pytest.raises(NotGranted, match="no longer valid"):
        vu.gate.read(replica, Reader(user=ANNA))
    vu.agree(relation(valid_until=2000.0, derived=OUTLIVES))
    vu.gate.read(replica, Reader(user=ANNA))
    vu.agree()
    with pytest.raises(NotGranted):
        vu.gate.read(replica, Reader(user=ANNA))


def test_what_is_made_of_what_outlives(vu: Vu) -> None:
    """Rounds go on with what owners gave before they went, and with nothing else of theirs."""
    vu.agree(relation(valid_until=2000.0, derived=OUTLIVES))
    vu.now = 1500.0
    first = mean(vu.source)
    result = vu.stored(first)
    (made,) = vu.records.snapshot().with_key(result.key)
    again = mean(of_dataset(made))
    inputs = {"inputs": {made.key: result}, "datasets": {made.key: made}}
    vu.now = 2500.0
    order = vu.gate.order(vu.order(again, **inputs))
    assert isinstance(order, SegmentOrder)
    assert order.entered == {again.outputs[0]: {vu.dataset.key: 1500.0}}
    assert vu.gate.still(order) is None
    later = vu.stored(again, **inputs)
    vu.now = 3000.0
    vu.gate.read(later, Reader(user=ANNA))
    assert vu.gate.still(replace(order, user="eve")) is not None
    # Somebody who may still use the data themselves makes of both what he may not have without them.
    vu.agree(relation(derived=OUTLIVES))
    two = {made.key: result, vu.dataset.key: vu.replica}
    order = vu.gate.order(vu.order(both(of_dataset(made), vu.source), inputs=two))
    assert isinstance(order, SegmentOrder)
    assert not any(order.entered.values())
    vu.agree(relation(valid_until=2000.0, derived=OUTLIVES))
    assert vu.gate.still(order) is not None, "it reads the data themselves"


def test_what_others_say_of_a_result_does_not_make_it_outlive(vu: Vu, tmp_path: Path) -> None:
    vu.agree(
        relation(valid_until=2000.0, derived=OUTLIVES),
        relation(id="bob", users=("bob",)),
    )
    vu.now = 2500.0
    graph = mean(vu.source)
    replica = vu.stored(graph, owner="bob", user="bob")
    (made,) = vu.records.snapshot().with_key(replica.key)
    forged = replace(made, id="forged", site="evil", owner=ANNA, created=1500.0)
    heard(vu, "evil", forged)
    assert len(vu.records.snapshot().with_key(replica.key)) == 2
    with pytest.raises(NotGranted):
        vu.gate.read(replica, Reader(user=ANNA))
    # Where the site has no record of its own, all that it has heard must say so.
    vu.records.remove(made)
    vu.gate.read(replica, Reader(user=ANNA))
    heard(vu, "uva", replace(made, id="true", site="uva"))
    with pytest.raises(NotGranted):
        vu.gate.read(replica, Reader(user=ANNA))


def test_of_what_it_has_not_heard_of_yet_a_lab_takes_the_orders_word(lab: Vu) -> None:
    """News of a result may be later than its copy, when an order begins and when it is looked at again."""
    lab.agree(relation(valid_until=2000.0, derived=OUTLIVES))
    lab.now = 1500.0
    result = lab.stored(mean(lab.source))
    (made,) = lab.records.snapshot().with_key(result.key)
    lab.records.remove(made)
    lab.now = 2500.0
    again = mean(of_dataset(made))
    inputs = {"inputs": {made.key: result}, "datasets": {made.key: made}}
    order = lab.gate.order(lab.order(again, **inputs))
    assert isinstance(order, SegmentOrder)
    assert order.origins[again.key] == (lab.dataset.key,)
    assert lab.gate.still(order) is None
    assert lab.gate.still(replace(order, user="eve")) is not None


def test_a_lab_does_not_go_back_to_the_orders_word(lab: Vu) -> None:
    """What it had a record of, when it let an order in, is not what somebody says it is."""
    lab.agree(relation(valid_until=2000.0, derived=OUTLIVES))
    lab.now = 1500.0
    result = lab.stored(mean(lab.source))
    (made,) = lab.records.snapshot().with_key(result.key)
    again = mean(of_dataset(made))
    inputs = {"inputs": {made.key: result}, "datasets": {made.key: made}}
    order = lab.gate.order(lab.order(again, unheard=(made.key,), **inputs))
    assert isinstance(order, SegmentOrder)
    assert order.unheard == ()
    lab.now = 2500.0
    assert lab.gate.still(order) is None
    lab.records.remove(made)
    assert lab.gate.still(order) is not None


def test_whoever_writes_down_a_result_as_his_own_data_does_not_make_it_his(vu: Vu) -> None:
    vu.agree(relation())
    result = vu.stored(mean(vu.source))
    (made,) = vu.records.snapshot().with_key(result.key)
    vu.gate.read(result, Reader(user=ANNA))
    everybody = agreement("evil", relation(users=("*",), derived=OUTLIVES), covers=(made.name,))
    heard(vu, "evil", replace(made, id="mine", site="evil", lineage=None), everybody)
    assert len(vu.records.snapshot().with_key(result.key)) == 2
    with pytest.raises(NotGranted):
        vu.gate.read(result, Reader(user="eve"))
    order = vu.order(mean(of_dataset(made)), inputs={made.key: result}, user="eve")
    with pytest.raises(NotGranted):
        vu.gate.order(order)


def test_a_steward_takes_nobodys_word_for_what_it_reads(vu: Vu) -> None:
    vu.agree(relation())
    result = vu.stored(mean(vu.source))
    (made,) = vu.records.snapshot().with_key(result.key)
    vu.records.remove(made)
    again = mean(of_dataset(made))
    with pytest.raises(NotGranted, match="nobody here knows what input"):
        vu.gate.order(vu.order(again, inputs={made.key: result}, datasets={made.key: made}))
    assert refused(vu)[-1]["what"] == "segment"
