"""The HTTP of the stand-in: paths, verbs, lists, watches and refusals as an API server has them."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from dataflow.testing.kubernetes.admission import Accounts
from dataflow.testing.kubernetes.controllers import Controllers
from dataflow.testing.kubernetes.objects import KINDS, Object, Objects, Refused

#: What it says it is.
VERSION = "v1.34.1"
_VERBS = {"POST": "create", "DELETE": "delete", "PATCH": "patch", "PUT": "update"}


@dataclass(slots=True, kw_only=True)
class Faults:
    """What is wrong with the API server at the moment.

    Attributes
    ----------
    slow
        Seconds before each answer.
    deaf
        It takes requests and never answers.
    answers
        A code, such as 503, that is the answer to everything; 0 for none.
    watches
        Number of the present watches; another number cuts those that are open, without an end.
    """

    slow: float = 0.0
    deaf: bool = False
    answers: int = 0
    watches: int = 0
    calls: list[tuple[str, str]] = field(default_factory=list)


class Cut(Exception):
    """A connection that ends in the middle."""


class ApiServer:
    """The web application."""

    def __init__(self, objects: Objects, controllers: Controllers, accounts: Accounts) -> None:
        self.objects, self.controllers, self.accounts = objects, controllers, accounts
        self.faults = Faults()
        verbs = ["GET", "POST", "DELETE", "PATCH", "PUT"]
        home = "/namespaces/{namespace}/{kind}"
        routes = [
            Route("/version", self._checked(self._version)),
            Route("/api", self._checked(self._roots)),
            Route("/apis", self._checked(self._roots)),
            Route("/api/v1", self._checked(self._resources)),
            Route("/apis/batch/v1", self._checked(self._resources)),
        ]
        for root in ("/api/v1", "/apis/batch/v1"):
            for path in (home, home + "/{name}"):
                routes.append(Route(root + path, self._checked(self._objects), methods=verbs))
        self.app = Starlette(routes=routes)

    def _checked(
        self, answer: Callable[[Request, str], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def checked(request: Request) -> Response:
            self.faults.calls.append((request.method, request.url.path))
            await asyncio.sleep(self.faults.slow)
            while self.faults.deaf:
                await asyncio.sleep(0.1)
            try:
                if self.faults.answers:
                    code = self.faults.answers
                    raise Refused(code, "ServiceUnavailable", "the server is not ready")
                who = self.accounts.who(request.headers.get("authorization", ""))
                return await answer(request, who)
            except Refused as refusal:
                # What was sent with the question is read: over a connection that is closed before,
                # the answer may not arrive.
                await request.body()
                return JSONResponse(refusal.document(), refusal.code)

        return checked

    async def _version(self, request: Request, who: str) -> Response:
        major, minor, _ = VERSION.removeprefix("v").split(".")
        return JSONResponse({"major": major, "minor": minor, "gitVersion": VERSION})

    async def _roots(self, request: Request, who: str) -> Response:
        if request.url.path == "/api":
            return JSONResponse({"kind": "APIVersions", "versions": ["v1"]})
        version = {"groupVersion": "batch/v1", "version": "v1"}
        group = {"name": "batch", "versions": [version], "preferredVersion": version}
        return JSONResponse({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]})

    async def _resources(self, request: Request, who: str) -> Response:
        wanted = "batch" if "batch" in request.url.path else ""
        found = [
            {
                "name": kind,
                "singularName": word.lower(),
                "namespaced": True,
                "kind": word,
                "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
            }
            for kind, (group, _, word) in KINDS.items()
            if group == wanted
        ]
        version = "batch/v1" if wanted else "v1"
        return JSONResponse(
            {"kind": "APIResourceList", "groupVersion": version, "resources": found}
        )

    async def _objects(self, request: Request, who: str) -> Response:
        namespace, kind = request.path_params["namespace"], request.path_params["kind"]
        name = request.path_params.get("name", "")
        if (
            kind not in KINDS
            or ("batch" if "/batch/" in request.url.path else "") != KINDS[kind][0]
        ):
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        watch = request.query_params.get("watch") in ("true", "1")
        reading = "get" if name else "watch" if watch else "list"
        verb = _VERBS.get(request.method, reading)
        self.accounts.check(who, verb, kind, namespace)
        match verb:
            case "create":
                return JSONResponse(self._create(kind, namespace, await request.json()), 201)
            case "get":
                return JSONResponse(self.objects.get(kind, namespace, name))
            case "delete":
                body = await request.body()
                options = json.loads(body) if body else {}
                grace = options.get("gracePeriodSeconds")
                return JSONResponse(self.controllers.delete(kind, namespace, name, grace))
            case "list":
                return JSONResponse(self._list(request, kind, namespace))
            case "watch":
                return StreamingResponse(self._watch(request, kind, namespace))
            case _:
                raise Refused(405, "MethodNotAllowed", f"{verb} is not known here")

    def _create(self, kind: str, namespace: str, item: Object) -> Object:
        if item.get("metadata", {}).get("namespace", namespace) != namespace:
            raise Refused(
                400, "BadRequest", "the namespace of the object is not that of the request"
            )
        if kind == "secrets":
            given = item.pop("stringData", None) or {}
            coded = {key: base64.b64encode(text.encode()).decode() for key, text in given.items()}
            item["data"] = {**(item.get("data") or {}), **coded}
        self.controllers.admit(kind, namespace, item)
        return self.objects.create(kind, namespace, item)

    def _list(self, request: Request, kind: str, namespace: str) -> Object:
        asked = request.query_params
        labels, fields = asked.get("labelSelector", ""), asked.get("fieldSelector", "")
        items = self.objects.listed(kind, namespace, labels, fields)
        group, version, word = KINDS[kind]
        return {
            "kind": f"{word}List",
            "apiVersion": f"{group}/{version}" if group else version,
            "metadata": {"resourceVersion": self.objects.version},
            "items": items,
        }

    async def _watch(self, request: Request, kind: str, namespace: str) -> AsyncIterator[bytes]:
        asked, number = request.query_params, self.faults.watches
        labels, fields = asked.get("labelSelector", ""), asked.get("fieldSelector", "")
        version = int(asked.get("resourceVersion") or 0)
        loop = asyncio.get_running_loop()
        until = loop.time() + float(asked.get("timeoutSeconds", "300"))
        while loop.time() < until:
            try:
                version, events = self.objects.since(version, kind, namespace, labels, fields)
            except Refused as refusal:
                yield json.dumps({"type": "ERROR", "object": refusal.document()}).encode() + b"\n"
                return
            for event in events:
                yield json.dumps(event).encode() + b"\n"
            await self.objects.news(until - loop.time())
            while self.faults.deaf:
                await asyncio.sleep(0.1)
            if self.faults.watches != number:
                raise Cut
