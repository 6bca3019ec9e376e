"""The session's view: datasets a page at a time, one of them, and requests that nobody sends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from dataflow.agreements import Agreement, Relation
from dataflow.catalog.snapshot import Snapshot
from dataflow.policy.archetype import Load
from dataflow.session import trying
from dataflow.testing import staged
from dataflow.testing.browser import show

pytest.importorskip("anywidget", reason="the extra 'notebook' is not installed")
from dataflow.widgets.session import LiveSession

EVIL = "<script>alert(1)</script>"


class Known:
    """A session as far as its view uses it, over a snapshot that was made here."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    def _snapshot(self) -> Snapshot:
        return self.snapshot

    def loads(self) -> dict[str, Load]:
        return {"amsterdam": Load(cpu=0.9, memory=0.25, threshold=0.8)}

    def verdicts(self, graph: Any, **asked: Any) -> Any:
        return trying.verdicts(graph, self.snapshot, user="anna", **asked)

    def open(self, name: str) -> Any:
        return xr.DataArray(np.arange(100.0).reshape(10, 10), dims=("a", "b"))

    def __repr__(self) -> str:
        return "<Session of anna: 3 of 4 sites answer>"


def many(count: int) -> Snapshot:
    known = staged.snapshot(1)
    first = known.datasets[0]
    sets = tuple(
        replace(
            first,
            id=f"id{n:06d}",
            name=EVIL if n == 0 else f"run{n:06d}",
            key=f"key{n:029d}",
            tags={"system": "adk" if n % 10 else "other", "run": str(n)},
        )
        for n in range(count)
    )
    return replace(known, datasets=sets, replicas={})


def test_pages() -> None:
    live = LiveSession(Known(many(1_000)))  # type: ignore[arg-type]
    first = live.facts["first"]
    assert (first["count"], first["pages"], len(first["rows"])) == (1_000, 40, 25)
    answer = live.command({"do": "find", "text": "run00001", "number": 0})
    assert [row["name"] for row in answer["rows"]] == [f"run00001{n}" for n in range(10)]
    answer = live.command({"do": "find", "tags": ["system=other"], "number": 99})
    assert (answer["count"], answer["page"], answer["pages"]) == (100, 3, 4)
    assert live.command({"do": "find", "site": "nowhere"})["count"] == 0


def test_what_one_may_do() -> None:
    closed = Agreement(name="closed", site="amsterdam")
    snapshot = replace(staged.snapshot(), agreements=(closed,))
    live = LiveSession(Known(snapshot))  # type: ignore[arg-type]
    seen = live.command({"do": "look", "id": "run0"})
    assert "amsterdam" in seen["may"]["missing"][0][1]
    free = live.command({"do": "look", "id": "run1"})
    assert {site: fine for _, site, fine, _ in free["may"]["rows"]} == {
        "amsterdam": True,
        "delft": True,
        "groningen": True,
        "utrecht": False,
    }
    relation = Relation(
        id="study",
        users=("anna",),
        request_types=("average",),
        datasets=("*",),
        archetypes=("computeToData",),
    )
    granted = replace(closed, relations=(relation,))
    live = LiveSession(Known(replace(snapshot, agreements=(granted,))))  # type: ignore[arg-type]
    asked = {"do": "try", "datasets": ["run0"]}
    assert live.command({**asked, "request": "copy"})["missing"]
    answer = live.command({**asked, "request": "average"})
    assert not answer["missing"]
    assert [site for _, site, fine, _ in answer["rows"] if fine] == ["amsterdam"]


def test_in_a_browser_with_very_many(page: Any) -> None:
    """10^5 datasets: the page has one screen of them, and goes on answering."""
    show(page, LiveSession(Known(many(100_000))))  # type: ignore[arg-type]
    page.get_by_text("100,000 datasets, page 1 of 4000").wait_for()
    assert page.locator("tr[data-id]").count() == 25
    assert page.locator("script").count() == 0
    assert page.get_by_role("button", name=EVIL).count() == 1, "shown as it is written"
    page.get_by_role("button", name="next").click()
    page.get_by_text("page 2 of 4000").wait_for()
    page.get_by_role("searchbox").fill("run0999")
    page.get_by_text("100 datasets, page 1 of 4").wait_for()
    page.get_by_role("button", name="run099905").click()
    page.locator(".panel h4", has_text="run099905").wait_for()
    assert "✗ away: the site does not answer" in page.locator(".panel").inner_text()
    page.get_by_role("button", name="show values").click()
    page.locator("pre.says", has_text="0.").wait_for()
    page.get_by_role("tab", name="sites and links").click()
    page.locator("tr.refused", has_text="utrecht").wait_for()
    page.locator("td", has_text="▲ loaded: processors 90%, memory 25%").wait_for()
    page.get_by_role("tab", name="try a request").click()
    page.locator("input[name=datasets]").fill("run000007")
    page.get_by_role("button", name="what would they say?").click()
    page.get_by_text("✓ may run there").first.wait_for()
