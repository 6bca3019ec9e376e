"""What Kubernetes says of a worker, read from the objects that it shows."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow.backends.pods import owner_of, seconds_of, standing


def job(*conditions: dict[str, str], **status: Any) -> dict[str, Any]:
    told = {"startTime": "2026-01-01T00:00:00Z", **status}
    if conditions:
        told["conditions"] = list(conditions)
    return {
        "metadata": {"name": "w"},
        "spec": {"activeDeadlineSeconds": 60},
        "status": told,
    }


def pod(
    phase: str = "Pending", state: dict[str, Any] | None = None, **status: Any
) -> dict[str, Any]:
    told: dict[str, Any] = {"phase": phase, **status}
    if state is not None:
        # A mesh has put its own container in front of ours.
        other = {"name": "a-proxy", "state": {"running": {"startedAt": "2025-01-01T00:00:00Z"}}}
        told["containerStatuses"] = [other, {"name": "worker", "state": state}]
    owner = {"kind": "Job", "name": "w"}
    return {
        "metadata": {"name": "w-x", "ownerReferences": [owner]},
        "spec": {"nodeName": "m1"},
        "status": told,
    }


BEGAN = seconds_of("2026-01-01T00:00:00Z")


def test_a_running_worker_has_a_host_and_an_end() -> None:
    found = standing(job(), pod("Running", {"running": {"startedAt": "2026-01-01T00:00:05Z"}}))
    assert BEGAN is not None
    assert found.lease.status == "running"
    assert (found.lease.host, found.lease.since) == ("m1", BEGAN + 5)
    assert found.lease.until == BEGAN + 60
    assert not found.hopeless


@pytest.mark.parametrize(
    ("given", "reason", "hopeless"),
    [
        (pod(state={"waiting": {"reason": "ContainerCreating"}}), "", False),
        (pod(), "", False),
        (
            pod(state={"waiting": {"reason": "ErrImagePull", "message": "x: not found"}}),
            "ErrImagePull: x: not found",
            False,
        ),
        (
            pod(state={"waiting": {"reason": "ImagePullBackOff", "message": "Back-off x"}}),
            "ImagePullBackOff: Back-off x",
            True,
        ),
        (
            pod(
                conditions=[
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/3 nodes are available: 3 Insufficient memory.",
                    }
                ]
            ),
            "Unschedulable: 0/3 nodes are available: 3 Insufficient memory.",
            False,
        ),
    ],
)
def test_why_it_waits(given: dict[str, Any], reason: str, hopeless: bool) -> None:
    found = standing(job(), given)
    assert found.lease.status == "queued"
    assert (found.lease.reason, found.hopeless) == (reason, hopeless)


def test_a_job_without_a_pod_says_what_its_event_says() -> None:
    found = standing(job(), None, "FailedCreate: exceeded quota")
    assert found.lacks_pod
    assert found.lease.status == "queued"
    assert found.lease.reason == "FailedCreate: exceeded quota"


FAILED = {"type": "Failed", "status": "True"}
BACKOFF = {**FAILED, "reason": "BackoffLimitExceeded", "message": "Job has reached the limit"}


@pytest.mark.parametrize(
    ("given", "its_pod", "reason"),
    [
        (
            job({**FAILED, "reason": "DeadlineExceeded", "message": "Job was active longer"}),
            None,
            "DeadlineExceeded: Job was active longer",
        ),
        (
            job(BACKOFF),
            pod("Failed", {"terminated": {"reason": "OOMKilled", "exitCode": 137}}),
            "OOMKilled (exit code 137)",
        ),
        (
            job(BACKOFF),
            pod(
                "Failed",
                {
                    "terminated": {
                        "reason": "Error",
                        "exitCode": 1,
                        "message": "a\nb\nc\nno module\n",
                    }
                },
            ),
            "Error (exit code 1):\nb\nc\nno module",
        ),
        (
            job(BACKOFF),
            pod("Failed", reason="Evicted", message="The node was low on resource: memory."),
            "Evicted: The node was low on resource: memory.",
        ),
        (
            job({"type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded"}),
            pod(
                "Failed",
                conditions=[
                    {
                        "type": "DisruptionTarget",
                        "status": "True",
                        "reason": "PreemptionByScheduler",
                    }
                ],
            ),
            "PreemptionByScheduler",
        ),
        (job(BACKOFF), None, "BackoffLimitExceeded: Job has reached the limit"),
        (
            job(),
            pod("Failed", {"terminated": {"reason": "Error", "exitCode": 2}}),
            "Error (exit code 2)",
        ),
    ],
)
def test_why_it_failed(given: dict[str, Any], its_pod: dict[str, Any] | None, reason: str) -> None:
    found = standing(given, its_pod)
    assert found.lease.status == "failed"
    assert found.lease.reason == reason


def test_an_end_without_failure() -> None:
    assert standing(job({"type": "Complete", "status": "True"})).lease.status == "ended"
    assert standing(job(), pod("Succeeded")).lease.status == "ended"
    going = job()
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z"
    assert standing(going).lease.status == "ended"
    assert standing(job({"type": "Failed", "status": "False"}), pod()).lease.status == "queued"


def test_whose_a_pod_is() -> None:
    assert owner_of(pod()) == "w"
    assert owner_of({"metadata": {"name": "x"}}) == ""
