"""``GET /metrics``: a site as figures, in the text format of Prometheus.

Whoever asks shows a token as everywhere else; that of a reader will do. What an agent serves says who
works with whom, on what, and how much: that is nothing for everybody on the network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from dataflow.agent.answers import refusal, refusals
from dataflow.agent.served import Own
from dataflow.execution.tally import Figure

router = APIRouter()


@router.get(
    "/metrics",
    tags=["site"],
    summary="What is worth watching, for Prometheus",
    response_class=Response,
    responses=refusals(404),
)
async def metrics(request: Request, own: Own) -> Response:
    try:
        from prometheus_client import CONTENT_TYPE_LATEST
    except ModuleNotFoundError:
        return refusal(404, "dataflow", "no metrics: pip install 'jupyter-dataflow[observe]'")
    answers: Counter[tuple[str, int]] = request.app.state.answers
    found = [
        *await own.figures(),
        *(
            Figure(
                name="dataflow_answers",
                about="Requests answered, by method and status",
                value=count,
                labels={"method": method, "status": str(status)},
                kind="counter",
            )
            for (method, status), count in sorted(answers.items())
        ),
    ]
    return Response(
        as_text(found, site=own.site.name), headers={"content-type": CONTENT_TYPE_LATEST}
    )


def as_text(figures: Iterable[Figure], *, site: str) -> bytes:
    """Figures in the text format of Prometheus, each with the name of the site."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(figures, site))
    return bytes(generate_latest(registry))


class _Once:
    """What a registry collects from."""

    def __init__(self, figures: Iterable[Figure], site: str) -> None:
        self._figures, self._site = list(figures), site

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        families: dict[str, Any] = {}
        for figure in self._figures:
            names = ["this", *sorted(figure.labels)]
            family = families.get(figure.name)
            if family is None:
                make = CounterMetricFamily if figure.kind == "counter" else GaugeMetricFamily
                family = families[figure.name] = make(figure.name, figure.about, labels=names)
            family.add_metric(
                [self._site, *(figure.labels[name] for name in names[1:])], figure.value
            )
        yield from families.values()
