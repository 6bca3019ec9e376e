"""Answers of an agent: records as JSON, errors as JSON with the right status."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dataflow import errors
from dataflow.agent.door import BECAUSE, FAILED
from dataflow.documents import adapter

JSON = "application/json"

#: HTTP status of an error: the first class in this list that it belongs to decides.
_STATUS: Sequence[tuple[type[errors.DataflowError], int]] = (
    (errors.AmbiguousDataset, 409),
    (errors.UnknownDataset, 404),
    (errors.CatalogError, 400),
    (errors.ConfigError, 400),
    (errors.GraphError, 400),
    (errors.OutOfOrder, 409),
    (errors.UnknownNegotiation, 404),
    (errors.PolicyError, 403),
    (errors.PlacementError, 409),
    (errors.TransferFailed, 503),
    (errors.StorageError, 500),
    (errors.SiteRefused, 403),
    (errors.SiteError, 503),
    (errors.UnknownJob, 404),
    (errors.JobError, 409),
)

#: For the OpenAPI description: what an error looks like, whatever its status.
ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Error",
    "description": "A stable kind, and the arguments that make the typed error again.",
    "properties": {
        "kind": {"type": "string", "examples": ["unknown-dataset"]},
        "args": {"type": "array", "items": {}},
    },
    "required": ["kind", "args"],
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses=`` of a route that may answer with these statuses."""
    texts = {
        400: "The request is wrong",
        401: "No token, or one that is not known here",
        403: "Known, and not allowed to",
        404: "There is no such thing",
        409: "Not in the present state",
        413: "The body is too long",
        416: "There are no such bytes",
        500: "The agent failed",
        503: "Another site or a store does not answer",
    }
    content = {JSON: {"schema": ERROR_SCHEMA}}
    return {
        status: {"description": texts[status], "content": content}
        for status in sorted({400, 401, 403, 413, 500, *statuses})
    }


def record(value: Any, cls: Any, status: int = 200) -> Response:
    """An answer that is one record (or list of records), checked by nothing twice."""
    return Response(adapter(cls).dump_json(value), status, media_type=JSON)


def nothing() -> Response:
    """The answer to an instruction that was carried out: 204, no body."""
    return Response(status_code=204)


def refusal(status: int, kind: str, *args: Any) -> Response:
    """An answer that says no."""
    body = json.dumps({"kind": kind, "args": list(args)})
    return Response(body, status, media_type=JSON)


def status_of(error: errors.DataflowError) -> int:
    """The HTTP status that tells a stranger what kind of error this is."""
    for cls, status in _STATUS:
        if isinstance(error, cls):
            return status
    return 500


def install(app: FastAPI) -> None:
    """Make every error of ``app`` an error document."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, errors.DataflowError)
        request.scope[BECAUSE] = str(error)
        document = errors.to_document(error)
        return refusal(status_of(error), document["kind"], *document["args"])

    async def malformed(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        wrong = error.errors()
        request.scope[BECAUSE] = str(wrong[0]["msg"])
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        path = ".".join(str(part) for part in wrong[0]["loc"])
        return refusal(400, errors.ConfigError.kind, wrong[0]["msg"] + more, "request", path)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        request.scope[BECAUSE] = str(error.detail)
        answer = refusal(error.status_code, errors.DataflowError.kind, error.detail)
        answer.headers.update(error.headers or {})
        return answer

    async def unforeseen(_: Request, __: Exception) -> Response:
        return refusal(500, errors.DataflowError.kind, *FAILED["args"])

    app.add_exception_handler(errors.DataflowError, ours)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unforeseen)
