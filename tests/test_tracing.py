"""Traces: nothing where nobody asks; over real agents one job is one trace."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from dataflow import tracing
from dataflow.errors import ConfigError
from dataflow.testing.federation import Federation, SiteSettings


@flow.operation(kind="elementwise")
def plus(x: Any, *, number: int) -> Any:
    return x + number


@pytest.fixture(autouse=True)
def _off(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(tracing.VARIABLE, raising=False)
    yield
    tracing.end()


def test_nothing_is_loaded_or_sent_unless_it_is_asked_for() -> None:
    program = """
import sys
from dataflow import tracing
tracing.begin("me")
with tracing.span("plan", job="j") as span, tracing.caused_by({"traceparent": "x"}.get):
    span.say(steps=3)
    span.failed("no")
    tracing.done("operation", 1.0)
    tracing.submitted("j")
with tracing.job("j") as span:
    span.end()
assert tracing.headers() == {}
assert not any(name.startswith("opentelemetry") for name in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("asked", ["yes", "file:relative", "http://collector"])
def test_what_is_not_understood_is_an_error(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.sdk")
    monkeypatch.setenv(tracing.VARIABLE, asked)
    with pytest.raises(ConfigError, match="say otlp, process or file:/path"):
        tracing.begin("me")


def test_without_the_sdk_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    monkeypatch.setenv(tracing.VARIABLE, "otlp")
    with pytest.raises(ConfigError, match=r"pip install 'jupyter-dataflow\[telemetry\]'"):
        tracing.begin("me")


def test_commits_are_timed_where_nothing_is_traced() -> None:
    with tracing.commits() as seconds:
        with tracing.committing("k"):
            time.sleep(0.01)
        with pytest.raises(ValueError, match="no"), tracing.committing("k"):
            raise ValueError("no")
    assert len(seconds) == 1
    assert seconds[0] >= 0.01


def test_a_job_is_one_trace_over_all_sites(tmp_path: Path) -> None:
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    provider, kept = trace.TracerProvider(shutdown_on_exit=False), memory.InMemorySpanExporter()
    provider.add_span_processor(export.SimpleSpanProcessor(kept))
    tracing.begin("notebook", provider)
    files = {name: tmp_path / f"{name}.jsonl" for name in ("amsterdam", "delft")}
    sites = {
        name: SiteSettings(environment={tracing.VARIABLE: f"file:{file}"})
        for name, file in files.items()
    }
    with Federation(tmp_path / "sites", sites, ready_within=120) as federation:
        path = federation.data("amsterdam") / "run.npy"
        np.save(path, np.arange(50))
        with flow.connect(federation.sites_file, state=tmp_path / "notebook") as session:
            session.register(str(path), name="run", site="amsterdam")
            with provider.get_tracer("paper").start_as_current_span("figure 3") as figure:
                steps = plus(session["run"], number=2)
                plan = session.plan(steps, scope="{plus: amsterdam}", result_at="delft")
                job = session.submit(plan)
            np.testing.assert_array_equal(job.result(60), np.arange(50) + 2)
    told = [_as_sites_write(span) for span in kept.get_finished_spans()]
    told += [span for file in files.values() for span in _lines(file)]
    spans = {span["name"]: span for span in told}
    assert set(spans) >= {"plan", "job", "segment", "transfer", "operation", "commit"}
    context = figure.get_span_context()
    assert {span["context"]["trace_id"] for span in told} == {f"0x{context.trace_id:032x}"}
    parents = {name: span["parent_id"] for name, span in spans.items()}
    ids = {name: span["context"]["span_id"] for name, span in spans.items()}
    assert parents["plan"] == parents["job"] == ids["figure 3"]
    assert parents["segment"] == parents["transfer"] == ids["job"]
    assert parents["operation"] == ids["segment"]
    of_job = [span for span in told if span["name"] not in ("figure 3", "plan")]
    assert {span["attributes"]["dataflow.job"] for span in of_job} == {job.id}
    assert spans["operation"]["attributes"]["dataflow.site"] == "amsterdam"
    assert spans["transfer"]["attributes"]["dataflow.site"] == "delft"
    assert spans["transfer"]["attributes"]["dataflow.source"] == "amsterdam"
    assert spans["job"]["attributes"]["dataflow.status"] == "done"
    assert all(span["status"]["status_code"] == "UNSET" for span in told)


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def _as_sites_write(span: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(span.to_json())
    return found
