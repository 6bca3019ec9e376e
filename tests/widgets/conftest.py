"""A browser for all tests of views; where there is none they are skipped, but not in CI."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from dataflow.testing import browser


@pytest.fixture(autouse=True)
def nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever whoever runs the tests has set for himself."""
    monkeypatch.delenv("DATAFLOW_LIVE_VIEWS", raising=False)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    pytest.importorskip("anywidget", reason="the extra 'notebook' is not installed")
    reason = browser.why_not()
    if reason and os.environ.get("CI") != "true":
        pytest.skip(reason)
    with browser.browser() as started:
        yield started


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """An empty page; errors on it are errors of the test."""
    context = chromium.new_context(viewport={"width": 1000, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request",
        lambda request: wrong.append(request.url) if request.url.startswith("http") else None,
    )
    yield page
    context.close()
    assert not wrong
