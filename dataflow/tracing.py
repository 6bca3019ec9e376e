"""Tracing: what a job does where, as OpenTelemetry spans; nothing at all unless it is asked for.

``DATAFLOW_TRACES`` asks for it, in the environment of a notebook and of each agent:

- ``otlp``: to the collector that OpenTelemetry's own variables name (``OTEL_EXPORTER_OTLP_ENDPOINT``);
- ``process``: to the tracer provider that this process has set up;
- ``file:/path``: one JSON object a line, for a site without a collector.

Otherwise OpenTelemetry is not even imported, and every function here returns at once. A job is one
trace over all sites: requests carry its ``traceparent``. Every span bears the job's id, so that
what is taken up after a restart, in a trace of its own, is still found.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from pathlib import Path
from typing import Any

from dataflow.errors import ConfigError

VARIABLE = "DATAFLOW_TRACES"

#: Jobs of which the parent is remembered until they begin.
MOST_PARENTS = 1000

_tracer: Any = None
_parents: dict[str, Any] = {}
#: The job on behalf of which something runs here.
_job: ContextVar[str] = ContextVar("dataflow-job", default="")
_commits: ContextVar[list[float] | None] = ContextVar("dataflow-commits", default=None)


def begin(name: str, provider: Any = None) -> None:
    """Trace from now on what this process does as ``name``, if the environment asks for it.

    Parameters
    ----------
    provider
        A tracer provider to tell, whatever the environment says.

    Raises
    ------
    ConfigError
        If it asks for something else, or for what is not installed.
    """
    global _tracer
    asked = os.environ.get(VARIABLE, "")
    if provider is not None:
        _tracer = provider.get_tracer("dataflow")
    elif _tracer is None and asked:
        _tracer = _tracer_for(asked, name)


def _tracer_for(asked: str, name: str) -> Any:
    try:
        from opentelemetry import trace

        if asked == "process":
            return trace.get_tracer("dataflow")
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        # Not set as the process's: what other libraries would say of every request is not asked for.
        provider = TracerProvider(
            resource=Resource.create({"service.name": "dataflow", "service.instance.id": name})
        )
        provider.add_span_processor(_processor_for(asked))
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{VARIABLE} asks for traces, which need {error.name!r}: "
            "pip install 'jupyter-dataflow[telemetry]'"
        ) from error
    return provider.get_tracer("dataflow")


def _processor_for(asked: str) -> Any:
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        ConsoleSpanExporter,
        SimpleSpanProcessor,
    )

    if asked == "otlp":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return BatchSpanProcessor(OTLPSpanExporter())
    if not asked.startswith("file:/"):
        raise ConfigError(f"{VARIABLE}={asked}: say otlp, process or file:/path")
    path = Path("/" + asked.removeprefix("file:").lstrip("/"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        out = path.open("a", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{VARIABLE}={asked}: {error.strerror or error}") from error
    return SimpleSpanProcessor(
        ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\n")
    )


def end() -> None:
    """Trace no more; what is still open is not told. A provider goes on until who made it ends it."""
    global _tracer
    _tracer = None
    _parents.clear()


class Mark:
    """A span that is open; of no effect where nothing is traced."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def say(self, **about: Any) -> None:
        """Add what has become known."""
        if self._span is not None:
            self._span.set_attributes(_attributes(about))

    def failed(self, reason: str) -> None:
        """It did not come about."""
        if self._span is not None:
            from opentelemetry.trace import StatusCode

            self._span.set_status(StatusCode.ERROR, reason)

    def end(self) -> None:
        """It is over; only for what :func:`job` began."""
        if self._span is not None:
            self._span.end()


_NOTHING = Mark()


@contextmanager
def span(name: str, **about: Any) -> Iterator[Mark]:
    """What runs inside is a span; an exception that leaves it is its failure."""
    if _tracer is None:
        yield _NOTHING
        return
    token = _job.set(about.get("job") or _job.get())
    try:
        about["job"] = _job.get() or None
        with _tracer.start_as_current_span(name, attributes=_attributes(about)) as opened:
            yield Mark(opened)
    finally:
        _job.reset(token)


def done(name: str, seconds: float, **about: Any) -> None:
    """A span that ends now, of what another process did and timed."""
    if _tracer is None:
        return
    now = time.time_ns()
    begun = now - int(max(seconds, 0.0) * 1e9)
    _tracer.start_span(name, start_time=begun, attributes=_attributes(about)).end(now)


def _attributes(about: Mapping[str, Any]) -> dict[str, Any]:
    return {f"dataflow.{name}": value for name, value in about.items() if value is not None}


# --- between processes ------------------------------------------------------------------------


def headers() -> dict[str, str]:
    """What a request carries, so that what it causes belongs to the same trace."""
    found: dict[str, str] = {}
    if _tracer is not None:
        _propagator().inject(found)
    return found


@contextmanager
def caused_by(header: Callable[[str], str | None]) -> Iterator[None]:
    """What runs inside was caused by a request; ``header`` looks up one of its headers."""
    said = header("traceparent") if _tracer is not None else None
    if not said:
        yield
        return
    from opentelemetry import context

    token: Token[Any] = context.attach(_propagator().extract({"traceparent": said}))
    try:
        yield
    finally:
        context.detach(token)


def _propagator() -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator()


# --- jobs -------------------------------------------------------------------------------------


def submitted(job: str) -> None:
    """Remember what caused a job: it may begin much later."""
    if _tracer is None:
        return
    from opentelemetry import context

    while len(_parents) >= MOST_PARENTS:
        del _parents[next(iter(_parents))]
    _parents[job] = context.get_current()


@contextmanager
def job(id: str, **about: Any) -> Iterator[Mark]:
    """Open the span of a job, which whoever holds it ends; what is begun inside belongs to it."""
    if _tracer is None:
        yield _NOTHING
        return
    from opentelemetry import context, trace

    # Without a known cause it is one of its own, and not of whatever runs here at the moment.
    parent = _parents.pop(id, None) or context.Context()
    opened = _tracer.start_span("job", context=parent, attributes=_attributes({"job": id, **about}))
    token = context.attach(trace.set_span_in_context(opened, parent))
    try:
        yield Mark(opened)
    finally:
        context.detach(token)


# --- commits, in processes that trace nothing themselves ----------------------------------------


@contextmanager
def commits() -> Iterator[list[float]]:
    """Collects the seconds of every commit inside."""
    found: list[float] = []
    token = _commits.set(found)
    try:
        yield found
    finally:
        _commits.reset(token)


@contextmanager
def committing(key: str) -> Iterator[None]:
    """What runs inside makes a result visible."""
    found, begun = _commits.get(), time.perf_counter()
    with span("commit", key=key):
        yield
    if found is not None:
        found.append(time.perf_counter() - begun)
