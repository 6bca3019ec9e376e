"""What Kubernetes says of a worker, in our words: Job, Pod and events in, a lease out. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dataflow.backends.base import Lease
from dataflow.backends.manifests import CONTAINER

Object = Mapping[str, Any]

#: Reasons of a container that waits, and will wait for ever until somebody mends something.
#: ``ErrImagePull`` is not among them: it is said after the first attempt, which may fail by chance.
_HOPELESS = frozenset(
    {
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImageNeverPull",
        "ImageInspectError",
        "ImagePullBackOff",
        "InvalidImageName",
        "RunContainerError",
    }
)
#: What every Pod says on its way; nobody needs to read it.
_ON_ITS_WAY = frozenset({"", "ContainerCreating", "PodInitializing"})
#: Lines of a worker's last words that are shown.
_LAST_LINES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a worker stands.

    Attributes
    ----------
    lease
        For whoever asks the backend.
    hopeless
        It waits for something that does not come by itself.
    lacks_pod
        Its Job has got no Pod; events say why.
    unexplained
        It has failed, and its Pod, which knows why, has not been heard yet.
    """

    lease: Lease
    hopeless: bool = False
    lacks_pod: bool = False
    unexplained: bool = False


def standing(job: Object, pod: Object | None = None, event: str = "") -> Standing:
    """How a worker stands, by its Job, the Job's Pod, and an event about the Job."""
    name = str(job["metadata"]["name"])
    status, spec = job.get("status") or {}, job.get("spec") or {}
    began = seconds_of(status.get("startTime"))
    limit = spec.get("activeDeadlineSeconds")
    until = None if began is None or limit is None else began + float(limit)
    host = _host(pod)
    failed = _condition(status, "Failed") or _condition(status, "FailureTarget")
    if failed is not None:
        why, unexplained = _why_failed(failed, pod)
        lease = Lease(id=name, status="failed", host=host, reason=why)
        return Standing(lease=lease, unexplained=unexplained)
    if _condition(status, "Complete") is not None or job["metadata"].get("deletionTimestamp"):
        return Standing(lease=Lease(id=name, status="ended", host=host))
    if pod is None:
        lease = Lease(id=name, status="queued", until=until, reason=event)
        return Standing(lease=lease, lacks_pod=True)
    phase = (pod.get("status") or {}).get("phase", "Pending")
    if phase == "Failed":  # the Job will say so in a moment
        lease = Lease(id=name, status="failed", host=host, reason=_why_pod_failed(pod))
        return Standing(lease=lease)
    since = _running_since(pod)
    if phase == "Running" and since is not None:
        return Standing(lease=Lease(id=name, status="running", host=host, since=since, until=until))
    if phase == "Succeeded":
        return Standing(lease=Lease(id=name, status="ended", host=host))
    reason, hopeless = _why_waiting(pod)
    lease = Lease(id=name, status="queued", host=host, until=until, reason=reason)
    return Standing(lease=lease, hopeless=hopeless)


def owner_of(pod: Object) -> str:
    """Name of the Job that a Pod belongs to; empty if to none."""
    for owner in pod["metadata"].get("ownerReferences") or ():
        if owner.get("kind") == "Job":
            return str(owner["name"])
    return ""


def seconds_of(time: str | None) -> float | None:
    """Seconds since the epoch of a time as Kubernetes writes it."""
    return None if not time else datetime.fromisoformat(time).timestamp()


def _condition(status: Object, kind: str) -> Object | None:
    for condition in status.get("conditions") or ():
        if condition.get("type") == kind and condition.get("status") == "True":
            found: Object = condition
            return found
    return None


def _said(words: Object) -> str:
    reason, message = str(words.get("reason") or ""), str(words.get("message") or "").strip()
    return ": ".join(part for part in (reason, message) if part)


def _host(pod: Object | None) -> str:
    return str((pod.get("spec") or {}).get("nodeName") or "") if pod is not None else ""


def _containers(pod: Object) -> Iterator[Object]:
    """State of the worker's container first, then those of others (a mesh may have added some)."""
    told = (pod.get("status") or {}).get("containerStatuses") or ()
    for entry in sorted(told, key=lambda entry: entry.get("name") != CONTAINER):
        yield entry.get("state") or {}


def _running_since(pod: Object) -> float | None:
    for state in _containers(pod):
        return seconds_of((state.get("running") or {}).get("startedAt"))
    return None


def _why_waiting(pod: Object) -> tuple[str, bool]:
    for state in _containers(pod):
        waiting = state.get("waiting") or {}
        if waiting.get("reason", "") not in _ON_ITS_WAY:
            return _said(waiting), waiting["reason"] in _HOPELESS
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return _said(condition), False
    return "", False


def _why_failed(condition: Object, pod: Object | None) -> tuple[str, bool]:
    """The reason, and whether the Pod has more to say that is not here yet."""
    # That a Pod failed more often than never is said of each; the Pod knows better.
    if condition.get("reason") not in ("BackoffLimitExceeded", "PodFailurePolicy"):
        return _said(condition), False
    known = _why_pod_failed(pod) if pod is not None else ""
    return known or _said(condition), not known


def _why_pod_failed(pod: Object) -> str:
    status = pod.get("status") or {}
    if status.get("reason"):  # Evicted, NodeLost, …
        return _said(status)
    target = _condition(status, "DisruptionTarget")
    if target is not None:
        return _said(target)
    for state in _containers(pod):
        ended = state.get("terminated")
        if ended:
            lines = str(ended.get("message") or "").strip().splitlines()[-_LAST_LINES:]
            told = f"{ended.get('reason', 'Error')} (exit code {ended.get('exitCode')})"
            return "\n".join([told + (":" if lines else ""), *lines])
    return ""
