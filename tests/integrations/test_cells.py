"""Cells of a notebook as papermill takes them in: what is refused, and sites that do not answer."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import papermill  # noqa: F401  # first: it imports ours by its entry point
import pytest

from dataflow.errors import NotGranted, SiteUnreachable
from dataflow.integrations import papermill as engine
from dataflow.participant.notebooks import Cells

LINE = '{"index": 0, "event": "begun"}\n'


def told(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> tuple[list[Any], int]:
    """What becomes of these answers, each once; the job is over with the last. And the pauses."""
    left, pauses = list(answers), list[float]()
    clock = SimpleNamespace(sleep=pauses.append, monotonic=time.monotonic)
    monkeypatch.setattr(engine, "time", clock)
    program = SimpleNamespace(run="r", site="uva", status="running", over=True)

    def cells(site: str, run: str, since: int, wait: float) -> Cells:
        answer = left.pop(0) if left else Cells()
        if isinstance(answer, Exception):
            raise answer
        return answer

    session: Any = SimpleNamespace(
        cells=cells,
        participant=SimpleNamespace(ways=SimpleNamespace(slowness=lambda site: 0.0)),
    )
    job: Any = SimpleNamespace(
        view=lambda: SimpleNamespace(over=not left), programs=lambda: [program]
    )
    return list(engine.events_of(session, job)), len(pauses)


def test_a_site_that_is_away_for_a_moment_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    away = SiteUnreachable("uva", "no route")
    found, pauses = told(monkeypatch, away, away, Cells(lines=(LINE,), next=len(LINE)))
    assert found == [(0, "begun", {})]
    assert pauses == 2


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PATIENCE", -1.0)
    with pytest.raises(SiteUnreachable):
        told(monkeypatch, SiteUnreachable("uva", "no route"))


def test_what_has_ended_is_not_asked_without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    found, pauses = told(monkeypatch, Cells(), Cells(), Cells())
    assert not found
    assert pauses >= 2


def test_cells_that_are_not_given_out_are_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = NotGranted({"uva": "it is given out when a second run has come to the same"})
    assert told(monkeypatch, refusal, Cells(lines=(LINE,)))[0] == []
