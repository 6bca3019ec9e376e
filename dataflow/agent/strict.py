"""JSON as it comes in: only what can also be stored and sent on.

Python's own reader takes NaN, infinite numbers, halves of letters and any depth; each would
be kept in a journal that could then never be read out again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.responses import Response


class _StrictRequest(Request):
    async def json(self) -> Any:
        body = await self.body()
        try:
            document = from_json(body, allow_inf_nan=False)
            json.dumps(document, allow_nan=False)  # 1e999 is no NaN, and still not a number
        except (ValueError, RecursionError) as error:
            wrong = {"type": "json_invalid", "loc": ("body",), "msg": f"not JSON: {error}"}
            raise RequestValidationError([wrong]) from None
        return document


class StrictRoute(APIRoute):
    """A route whose JSON body is read strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly
