"""An agent as figures: what Prometheus reads, and who may."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from dataflow.agent.metrics import as_text
from dataflow.execution.tally import Figure


def samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_an_agent_tells(shared_agent: Any) -> None:
    answer = shared_agent.call("GET", "/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    found = samples(answer.text)
    site = shared_agent.participant.site.name
    assert found["dataflow_jobs", 'a "b"', site] == 2
    assert found["dataflow_served_bytes_total", site] == 7


def test_refused_requests_are_counted_and_tell_nothing(shared_agent: Any) -> None:
    refused = shared_agent.call("GET", "/metrics", role=None)
    assert refused.status_code == 401
    assert "dataflow_" not in refused.text
    found = samples(shared_agent.call("GET", "/metrics").text)
    site = shared_agent.participant.site.name
    assert found["dataflow_answers_total", "GET", "401", site] >= 1


def test_two_sites_in_one_text_are_told_apart() -> None:
    figure = Figure(name="dataflow_jobs", about="Jobs", value=1, labels={"status": "done"})
    text = as_text([figure], site="uva") + as_text([figure], site="amc")
    assert 'dataflow_jobs{status="done",this="uva"} 1.0' in text.decode()
    assert 'dataflow_jobs{status="done",this="amc"} 1.0' in text.decode()
