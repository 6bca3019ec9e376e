"""What a person sees of a plan: text, HTML, picture."""

from __future__ import annotations

import xml.dom.minidom
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.datasets import Dataset
from dataflow.errors import PlacementError
from dataflow.graph.graph import Graph, merge, of_dataset
from dataflow.placement.layout import HEIGHT, arrange, shorten
from dataflow.placement.make import make_plan
from dataflow.placement.measurements import Measurements, Pace, identity
from dataflow.placement.picture import MOST_BOXES, describe, draw, thickness
from dataflow.placement.plan import Plan
from dataflow.policy.check import check
from dataflow.sites import Site, Topology
from dataflow.testing.strategies import World, centre, dataset, replica, square, total, worlds

SITES = Topology(sites=tuple(Site(name=f"p{n}") for n in range(4)))
A, B = of_dataset(dataset("run1", 10**6)), of_dataset(dataset("run2", 10**5))
COPIES = {"run1": [replica("run1", "p1", 8 * 10**6)], "run2": [replica("run2", "p2", 8 * 10**5)]}


def plan(graph: Graph, **how: Any) -> Plan:
    return make_plan(
        graph,
        topology=SITES,
        replicas=how.pop("replicas", COPIES),
        verdicts=check(graph, SITES),
        **how,
    )


def of_world(world: World, result_at: str) -> Plan:
    return make_plan(
        world.graph,
        topology=world.topology,
        replicas=world.replicas,
        verdicts=world.verdicts,
        result_at=result_at,
    )


class Balance(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_one_line() -> None:
    found = plan(total(A, B))
    assert repr(found) == "<Plan 3 operations at 2 sites, 8 B moved, 74 ms>"


def test_table() -> None:
    lines = plan(total(A, B), result_at="p0").table().splitlines()
    assert lines[0] == "Plan 3 operations at 2 sites, 16 B moved, 0.12 s; results end at p0"
    assert lines[2].split() == ["operation", "site", "seconds", "memory", "because"]
    assert lines[3].startswith("total[run1]  p1")
    assert any(line.startswith("total[run2]  p2    p1  8 B") for line in lines)
    assert lines[-1].startswith("note: ")


def test_why() -> None:
    found = plan(total(A, B))
    why = found.why("total[run2]")
    assert why.site == "p2"
    assert repr(why).splitlines()[0].startswith("total[run2] at p2: 800 kB already there")
    assert found.why(found.outputs[0]).label == "total"
    with pytest.raises(PlacementError, match="no step 'nothing'; it has total"):
        found.why("nothing")


def test_html_is_whole_and_needs_nothing_from_outside() -> None:
    html = plan(total(A, B), result_at="p0")._repr_html_()
    reader = Balance()
    reader.feed(html)
    reader.close()
    assert not reader.open
    for word in ("<svg", "total[run1]", "prefers-color-scheme: dark", "aria-label", "3 notes"):
        assert word in html
    assert "<script" not in html
    assert html.replace("http://www.w3.org/2000/svg", "").find("http") == -1


def test_names_are_harmless() -> None:
    evil = '<script>alert("x")</script>&'
    bad = of_dataset(Dataset(id="x", name=evil, key="x", kind="array", extent=A.extent, site="p1"))
    found = plan(square(bad), replicas={"x": [replica("x", "p1", 8)]})
    assert "<script" not in found._repr_html_()
    xml.dom.minidom.parseString(draw(found))


@given(worlds(), st.booleans())
def test_every_picture_is_sound(world: World, deliver: bool) -> None:
    found = of_world(world, world.topology.sites[0].name if deliver else "")
    xml.dom.minidom.parseString(draw(found))
    assert found.table()
    assert found._repr_html_()
    scene = arrange(found)
    boxes = list(scene.boxes.values())
    running = [a for a in found.assignments if a.reused is None]
    assert len([b for b in boxes if b.kind == "step"]) == len(running)
    for n, one in enumerate(boxes):
        (band,) = [(y, tall) for site, y, tall in scene.bands if site == one.site]
        assert band[0] <= one.y
        assert one.y + HEIGHT <= band[0] + band[1]
        assert one.x + one.width <= scene.width
        for other in boxes[n + 1 :]:
            apart = (
                one.x + one.width <= other.x
                or other.x + other.width <= one.x
                or one.y + HEIGHT <= other.y
                or other.y + HEIGHT <= one.y
            )
            assert apart, f"{one.label} and {other.label} lie on one another"
    for arrow in scene.arrows:
        assert scene.boxes[arrow.source].column < scene.boxes[arrow.target].column
    labelled = [arrow for arrow in scene.arrows if arrow.label]
    assert len(labelled) == len(found.transfers)


def test_large_plans_are_summed_up() -> None:
    pool = [A, B]
    for n in range(MOST_BOXES):
        pool.append((square, centre)[n % 2](pool[n]))
    slow = Measurements(paces={identity(square.operation): {"p3": Pace(fixed=0.0, per_byte=0.0)}})
    found = plan(merge(pool[2:]), measurements=slow)
    text = draw(found)
    xml.dom.minidom.parseString(text)
    assert "operations" in text
    assert text.count("<rect") < 20
    assert f"{MOST_BOXES - 40} more." in describe(found)


def test_arrows_grow_with_the_logarithm() -> None:
    widths = [thickness(10**n) for n in range(15)]
    assert widths == sorted(widths)
    assert widths[0] == 1.6
    assert widths[-1] <= 12


def test_long_names_keep_both_ends() -> None:
    assert shorten("a" * 20) == "a" * 20
    assert shorten("align_everything_to_the_reference-12") == "align_everyth…nce-12"
