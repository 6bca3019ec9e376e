"""Twice: where a second run may be, and what has to be brought there."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow.errors import NotGranted
from dataflow.graph.graph import Graph, of_dataset
from dataflow.policy.agreement import Asked
from dataflow.policy.archetype import SHIPPED
from dataflow.policy.rights import Right, right_of, standing
from dataflow.policy.twice import Second, is_wanted, second_run
from dataflow.sites import Site, Topology
from tests.policy.examples import ANNA, agreement, relation, wages
from tests.policy.test_rights import anonymize, mean, query, together

TWICE = "reproducibleScience"
VU, UVA = wages("vu"), wages("uva")
WORLD = Topology(
    sites=(
        *(Site(name=name) for name in ("desk", "surf", "uva", "vu")),
        Site(name="bucket", workers=0, stores_only=True),
        Site(name="rug", trust="steward"),
    ),
    away=frozenset({"desk"}),
)


def rights(archetype: str = TWICE, **terms: Any) -> dict[str, tuple[Right, ...]]:
    found = {}
    for dataset in (VU, UVA):
        said = relation(**{"archetypes": (TWICE, "computeToData"), **terms})
        about = agreement(dataset.site, said, compute_providers=("*",))
        how = standing([about], [dataset], Asked(user=ANNA, type="sqlDataRequest"), steward=False)
        assert how is not None
        asked = Asked(user=ANNA, type="sqlDataRequest")
        found[dataset.key] = (right_of(how, archetype, SHIPPED, asked),)
    return found


def again(graph: Graph, *first: str, **how: Any) -> Second:
    excluded = how.pop("excluded", {})
    installed = how.pop("installed", {})
    return second_run(
        tuple(graph.steps.values()),
        graph.outputs,
        rights(**how),
        {},
        WORLD,
        first=first,
        excluded=excluded,
        installed=installed,
    )


def test_it_is_wanted_by_the_archetype_only() -> None:
    assert is_wanted(rights())
    assert not is_wanted(rights("computeToData"))


def test_the_whole_graph_runs_at_a_permitted_site() -> None:
    graph = mean(query(of_dataset(VU)))
    found = again(graph, "vu")
    assert found == Second(site="surf", brought=(VU.key,), steps=tuple(graph.steps))


def test_two_owners_have_to_permit_the_same_site() -> None:
    graph = together(mean(query(of_dataset(VU))), mean(query(of_dataset(UVA))))
    assert again(graph, "vu", "uva").brought == tuple(sorted((VU.key, UVA.key)))
    with pytest.raises(NotGranted, match="'surf' is no permitted compute provider"):
        again(graph, "vu", "uva", compute_providers=("elsewhere",))


def test_what_is_forced_or_hidden_stays_with_the_owner() -> None:
    selected = anonymize(of_dataset(VU))
    graph = mean(query(selected))
    found = again(graph, "vu", forced={"*": ("sql-anonymize",)})
    assert found.brought == (selected.key,)
    assert len(found.steps) == 2
    with pytest.raises(NotGranted, match="has hidden columns"):
        again(mean(query(of_dataset(VU))), "vu", hidden=("Naam",))
    with pytest.raises(NotGranted, match="sql-anonymize must be applied"):
        again(mean(query(of_dataset(VU))), "vu", forced={"*": ("sql-anonymize",)})


def test_everybody_who_may_not_is_named_with_the_reason() -> None:
    graph = mean(query(of_dataset(VU)))
    with pytest.raises(NotGranted) as refused:
        again(graph, "vu", "uva", compute_providers=("*",), excluded={"surf": "it is closed today"})
    (said,) = refused.value.refusals.values()
    for words in (
        "desk: does not answer",
        "bucket: has stores only",
        "surf: it is closed today",
        "rug: a steward site, and",
    ):
        assert words in said
    names = frozenset(f"{s.operation.name}@1" for s in graph.steps.values())
    steward = again(
        graph,
        *("vu", "uva"),
        compute_providers=("*",),
        excluded={"surf": "closed"},
        installed={"rug": names},
    )
    assert steward.site == "rug"


def test_the_first_run_stays_where_it_was() -> None:
    """The right to run again is no right to plan the first run there; nor do rows go to people."""
    (right,) = rights()[VU.key]
    step = next(iter(mean(of_dataset(VU)).steps.values()))
    assert right.refuses(step, 0, "vu") is None
    assert right.refuses(step, 0, "surf") is not None
    assert right.refuses(step, 0, "surf", again=True) is None
    assert right.refuses(step, 0, "desk", again=True) is not None
    assert right.goes_to("surf", 0) is None
    assert right.goes_to("", 0) is not None
    (anybody,) = rights(compute_providers=("*",))[VU.key]
    assert anybody.goes_to("", 0) is not None
    (once,) = rights("computeToData")[VU.key]
    assert once.refuses(step, 0, "surf", again=True) is not None
