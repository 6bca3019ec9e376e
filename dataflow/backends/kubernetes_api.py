"""The API server of Kubernetes, as far as the backend needs it: the only module that sees kr8s.

kr8s finds the server, the certificates and the token (kubeconfig, or the service account of a Pod),
also anew when a token was exchanged, and speaks HTTP. Objects go in and come out as plain
dictionaries. Every call has a time limit; what goes wrong is one of our own errors.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from dataflow.config.kubernetes import KubernetesSettings
from dataflow.errors import SiteError, SiteRefused, SiteUnreachable

#: Seconds for the API server to answer a question.
ANSWER = 5.0
#: Seconds after which it ends a watch, so that a connection that is dead is not listened to for ever.
WATCH = 60.0
_VERSIONS = {"jobs": "batch/v1"}
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _TOO_MANY = 401, 403, 404, 429

Object = Mapping[str, Any]


class Expired(Exception):
    """The version to watch from is too old: list again."""


class KubernetesApi:
    """One namespace of one API server; made by :meth:`connect`."""

    def __init__(self, site: str, namespace: str, api: Any) -> None:
        self._site, self._namespace, self._api = site, namespace, api

    @classmethod
    async def connect(
        cls, site: str, settings: KubernetesSettings, *, service_account: str | None = None
    ) -> KubernetesApi:
        """Find the API server, and ask it for Jobs.

        Parameters
        ----------
        service_account
            Directory with token and certificate; ``None``: where every Pod has it.

        Raises
        ------
        SiteRefused
            If there are no credentials, or they are not accepted, or do not reach far enough.
        SiteUnreachable
            If there is no answer within :data:`ANSWER`.
        """
        import kr8s.asyncio

        # Not by its factory, which shares connections, and leaves them open when the first call fails.
        api = kr8s.asyncio.Api(
            bypass_factory=True,
            kubeconfig=settings.kubeconfig or None,
            context=settings.context or None,
            serviceaccount=service_account,
            namespace=settings.namespace,
        )
        self = cls(site, settings.namespace, api)
        try:
            async with _translated(site, "(not known yet)"), asyncio.timeout(ANSWER):
                await api.auth
            async with self._call("GET", "jobs", params={"limit": "1"}):
                pass  # also says whether we may
        except (ValueError, KeyError, FileNotFoundError) as error:
            reason = (
                f"no way to a Kubernetes API was found ({_text(error)})\n"
                "What you can do: set kubeconfig: in the site file, or run the agent as a Pod."
            )
            raise SiteRefused(site, reason) from error
        except BaseException:
            await self.close()
            raise
        return self

    @property
    def server(self) -> tuple[str, int]:
        """Host and port of the API server."""
        parts = urlsplit(self._api.auth.server)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    async def create(self, manifest: Object) -> Object:
        """Make an object; what the server made of it."""
        kind = manifest["kind"].lower() + "s"
        async with self._call("POST", kind, content=json.dumps(manifest)) as answer:
            made: Object = answer.json()
            return made

    async def delete(self, kind: str, name: str, *, at_once: bool = False) -> None:
        """Remove an object and what belongs to it; harmless if it is not there.

        Parameters
        ----------
        at_once
            Without time for its processes to end by themselves.
        """
        options = {"propagationPolicy": "Background"} | (
            {"gracePeriodSeconds": 0} if at_once else {}
        )
        call = self._call("DELETE", kind, name, allowed=_NOT_FOUND, content=json.dumps(options))
        async with call:
            pass

    async def listed(self, kind: str, selector: str) -> tuple[list[Object], str]:
        """Objects with these labels, and the version of the world that they stand for."""
        async with self._call("GET", kind, params={"labelSelector": selector}) as answer:
            found = answer.json()
            return list(found["items"]), str(found["metadata"].get("resourceVersion", ""))

    async def changes(
        self, kind: str, selector: str, version: str
    ) -> AsyncIterator[tuple[str, Object]]:
        """What changes from a version on: ``ADDED``, ``MODIFIED`` or ``DELETED``, and the object.

        Ends when the server ends it, which is no error.

        Raises
        ------
        Expired
            If the version is too old.
        """
        import httpx

        params = {"labelSelector": selector, "watch": "true", "resourceVersion": version}
        params["timeoutSeconds"] = f"{WATCH:.0f}"
        # A server that is there says something before it ends the watch; one that is not says nothing.
        timeout = httpx.Timeout(ANSWER, read=WATCH + ANSWER)
        call = self._call("GET", kind, stream=True, params=params, timeout=timeout)
        async with call as answer:
            async for line in answer.aiter_lines():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise Expired(str(event["object"].get("message", "")))
                yield event["type"], event["object"]

    async def why_no_pod(self, job: str) -> str:
        """What an event says about a Job that gets no Pod; empty if none, or none may be read."""
        wanted = f"involvedObject.kind=Job,involvedObject.name={job}"
        params = {"fieldSelector": wanted}
        async with self._call("GET", "events", allowed=_FORBIDDEN, params=params) as answer:
            if answer.status_code == _FORBIDDEN:
                return ""
            told = [event for event in answer.json()["items"] if event.get("type") == "Warning"]
            return f"{told[-1].get('reason')}: {told[-1].get('message')}" if told else ""

    async def close(self) -> None:
        """Close the connections."""
        # kr8s has no public way, and a connection that is left open is a warning.
        if self._api._session is not None:
            await self._api._session.aclose()

    @asynccontextmanager
    async def _call(
        self, method: str, kind: str, name: str = "", *, allowed: int = 0, **more: Any
    ) -> AsyncIterator[Any]:
        what = f"{method} {kind}"
        more.setdefault("timeout", ANSWER)
        async with _translated(self._site, self._api.auth.server):
            call = self._api.call_api(
                method,
                version=_VERSIONS.get(kind, "v1"),
                namespace=self._namespace,
                url=f"{kind}/{name}".rstrip("/"),
                # Else kr8s tries again what is only refused.
                raise_for_status=not allowed,
                **more,
            )
            async with call as answer:
                if allowed and answer.is_error and answer.status_code != allowed:
                    raise _error(self._site, answer, what)
                yield answer


@asynccontextmanager
async def _translated(site: str, server: str) -> AsyncIterator[None]:
    import httpx
    import kr8s

    try:
        yield
    except SiteError:
        raise
    except kr8s.ServerError as error:
        if error.response is None:
            raise SiteUnreachable(site, _text(error)) from error
        raise _error(site, error.response, server) from error
    except (kr8s.APITimeoutError, httpx.HTTPError, OSError, TimeoutError) as error:
        reason = f"the Kubernetes API at {server} does not answer ({_text(error)})"
        raise SiteUnreachable(site, reason) from error


def _error(site: str, answer: Any, what: str) -> SiteError:
    """A refusal in Kubernetes' own words."""
    try:
        said = str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        said = str(answer.text)[:200].strip() or str(answer.reason_phrase)
    code = int(answer.status_code)
    if code == _UNAUTHORIZED:
        return SiteRefused(
            site,
            f"Kubernetes does not accept the token ({said})\n"
            "What you can do: log in to the cluster again, or renew the token.",
        )
    if code == _TOO_MANY or code >= 500:
        return SiteUnreachable(site, f"the Kubernetes API answers {code} to {what}: {said}")
    return SiteRefused(site, f"Kubernetes says: {said}")


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
