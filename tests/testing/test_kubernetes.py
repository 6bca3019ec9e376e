"""The stand-in for Kubernetes does what the documentation of the real one says, as far as it goes."""

from __future__ import annotations

import json
import ssl
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import kubernetes_validate
import psutil
import pytest

from dataflow.testing.kubernetes import TOKEN, KubernetesStandIn

JOBS, PODS = "/apis/batch/v1/namespaces/adk/jobs", "/api/v1/namespaces/adk/pods"
SECRETS = "/api/v1/namespaces/adk/secrets"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KubernetesStandIn]:
    with KubernetesStandIn(tmp_path / "cluster") as cluster:
        cluster.world.restricted = False
        yield cluster


def call(
    cluster: KubernetesStandIn, method: str, path: str, body: Any = None, token: str = TOKEN
) -> tuple[int, Any]:
    trusted = ssl.create_default_context(cafile=str(cluster.folder / "ca.crt"))
    request = urllib.request.Request(
        cluster.url + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}"},
    )
    try:
        with urllib.request.urlopen(request, context=trusted) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


def job(cluster: KubernetesStandIn, *command: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "worker", "image": cluster.image, "command": list(command)}
    pod = {"restartPolicy": "Never", "containers": [container], "terminationGracePeriodSeconds": 1}
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {**pod, **spec.pop("pod", {})}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "one", "labels": {"app": "x"}},
        "spec": {"backoffLimit": 0, **spec, "template": template},
    }


def until(condition: Any) -> Any:
    while not (found := condition()):
        time.sleep(0.05)
    return found


def conditions(cluster: KubernetesStandIn) -> dict[str, str]:
    (found,) = cluster.objects("jobs")
    return {one["type"]: one["reason"] for one in found["status"].get("conditions", ())}


def test_a_job_runs_its_command_and_says_how_it_ended(cluster: KubernetesStandIn) -> None:
    script = "echo to be $WORD; exit 3"
    container = {
        "name": "worker",
        "image": cluster.image,
        "command": ["sh", "-c", script],
        "env": [{"name": "WORD", "value": "or not"}],
    }
    made = job(cluster, pod={"containers": [container]})
    code, answer = call(cluster, "POST", JOBS, made)
    assert (code, answer["metadata"]["name"]) == (201, "one")
    assert call(cluster, "POST", JOBS, made)[0] == 409
    until(lambda: conditions(cluster))
    assert conditions(cluster) == {"Failed": "BackoffLimitExceeded"}
    (pod,) = cluster.objects("pods")
    state = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (state["exitCode"], state["reason"]) == (3, "Error")
    assert state["message"] == "to be or not\n"
    for item in (pod, *cluster.objects("jobs")):
        kubernetes_validate.validate(item, "1.34.0", strict=True)


def test_a_command_that_is_not_there_is_told(cluster: KubernetesStandIn) -> None:
    call(cluster, "POST", JOBS, job(cluster, "no-such-command"))
    until(lambda: conditions(cluster))
    (pod,) = cluster.objects("pods")
    state = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert state["reason"] == "StartError"
    assert "no-such-command" in state["message"]


def test_a_deadline_ends_it_and_time_removes_it(cluster: KubernetesStandIn) -> None:
    call(
        cluster,
        "POST",
        JOBS,
        job(cluster, "sleep", "600", activeDeadlineSeconds=1, ttlSecondsAfterFinished=1),
    )
    (pid,) = until(cluster.pids).values()
    until(lambda: conditions(cluster) == {"Failed": "DeadlineExceeded"})
    until(lambda: not psutil.pid_exists(pid))
    until(lambda: not cluster.left())


def test_what_belongs_to_a_job_goes_with_it(cluster: KubernetesStandIn) -> None:
    _, made = call(cluster, "POST", JOBS, job(cluster, "sh", "-c", "trap '' TERM; sleep 600"))
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "one"}
    for name, uid in (("owned", made["metadata"]["uid"]), ("orphan", "nobody's")):
        metadata = {"name": name, "ownerReferences": [{**owner, "uid": uid}]}
        call(cluster, "POST", SECRETS, {"metadata": metadata, "stringData": {"a": "b"}})
    until(lambda: cluster.left().get("secrets") == ["owned"])
    (pid,) = until(cluster.pids).values()
    assert call(cluster, "DELETE", f"{JOBS}/one")[0] == 200
    assert call(cluster, "GET", f"{JOBS}/one")[0] == 404
    until(lambda: not cluster.left())
    until(lambda: not psutil.pid_exists(pid))


def test_a_pod_that_is_deleted_at_once_is_killed_and_its_job_fails(
    cluster: KubernetesStandIn,
) -> None:
    call(cluster, "POST", JOBS, job(cluster, "sh", "-c", "trap '' TERM; sleep 600"))
    ((name, pid),) = until(cluster.pids).items()
    call(cluster, "DELETE", f"{PODS}/{name}", {"gracePeriodSeconds": 0})
    until(lambda: not psutil.pid_exists(pid))
    until(lambda: conditions(cluster))
    assert conditions(cluster) == {"Failed": "BackoffLimitExceeded"}


def test_a_pod_waits_for_its_secret(cluster: KubernetesStandIn) -> None:
    container = {
        "name": "worker",
        "image": cluster.image,
        "command": ["cat", "/etc/secret/word"],
        "volumeMounts": [{"name": "s", "mountPath": "/etc/secret"}],
    }
    volumes = [{"name": "s", "secret": {"secretName": "words", "defaultMode": 0o400}}]
    call(cluster, "POST", JOBS, job(cluster, pod={"containers": [container], "volumes": volumes}))
    (pod,) = until(lambda: cluster.objects("pods"))
    until(lambda: cluster.objects("pods")[0]["status"].get("containerStatuses"))
    assert not cluster.pids()
    call(cluster, "POST", SECRETS, {"metadata": {"name": "words"}, "stringData": {"word": "xyzzy"}})
    until(lambda: conditions(cluster))
    assert conditions(cluster) == {"Complete": "CompletionsReached"}
    folder = cluster.folder / "pods" / pod["metadata"]["name"]
    assert (folder / "log").read_text() == "xyzzy"
    assert (folder / "volumes" / "s" / "word").stat().st_mode & 0o777 == 0o400


def test_only_who_may_may(cluster: KubernetesStandIn) -> None:
    assert call(cluster, "GET", JOBS, token="unknown")[0] == 401
    cluster.accounts.add(
        "reader",
        "anna",
        "adk",
        [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["list"]}],
    )
    assert call(cluster, "GET", JOBS, token="reader")[0] == 200
    code, refusal = call(cluster, "POST", JOBS, job(cluster, "true"), token="reader")
    assert code == 403
    assert refusal["message"] == (
        'jobs.batch is forbidden: User "anna" cannot create resource "jobs" in API group "batch" '
        'in the namespace "adk"'
    )
    assert call(cluster, "GET", PODS, token="reader")[0] == 403
    elsewhere = JOBS.replace("adk", "default")
    assert call(cluster, "GET", elsewhere, token="reader")[0] == 403
    cluster.accounts.revoke("reader")
    assert call(cluster, "GET", JOBS, token="reader")[0] == 401


def test_lists_go_by_labels(cluster: KubernetesStandIn) -> None:
    cluster.world.cores = 0
    call(cluster, "POST", JOBS, job(cluster, "true"))
    assert len(call(cluster, "GET", f"{JOBS}?labelSelector=app%3Dx")[1]["items"]) == 1
    assert call(cluster, "GET", f"{JOBS}?labelSelector=app%3Dy")[1]["items"] == []


def test_a_standard_and_a_quota_keep_pods_out(cluster: KubernetesStandIn) -> None:
    cluster.world.restricted = True
    call(cluster, "POST", JOBS, job(cluster, "true"))
    (event,) = until(lambda: cluster.objects("events"))
    assert event["reason"] == "FailedCreate"
    assert 'violates PodSecurity "restricted:latest"' in event["message"]
    assert "runAsNonRoot != true" in event["message"]
    assert cluster.objects("pods") == []


def test_nothing_runs_when_it_is_over(tmp_path: Path) -> None:
    with KubernetesStandIn(tmp_path / "cluster") as cluster:
        cluster.world.restricted = False
        call(cluster, "POST", JOBS, job(cluster, "sleep", "600"))
        (pid,) = until(cluster.pids).values()
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
