"""Manifests of the Kubernetes backend: settings in, plain dictionaries out; nothing is sent here.

One worker is one Job with one Pod, not one Job with many:

- A Job whose ``parallelism`` falls ends Pods of its own choice, those at work too. A worker that we
  choose goes by its own Job.
- With ``backoffLimit: 0`` the first Pod that fails ends its Job, and with it all other Pods of it.
  Nothing is tried again behind our back, and nobody else's work is lost.
- Every worker has its own deadline, and a quota that is full refuses one worker, not all.

No object outlives its use, also if nobody is left to remove it. The worker ends when it loses its
scheduler; ``activeDeadlineSeconds`` ends it in any case; ``ttlSecondsAfterFinished`` removes a Job
that has ended; the Secret with the certificates belongs to the Job and goes with it; and where the
agent is a Pod itself, the Jobs belong to that Pod.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dataflow.config.kubernetes import KubernetesSettings

Manifest = dict[str, Any]

#: Labels that only we use; values are made by :func:`label`.
SITE, JOB, AGENT = "dataflow/site", "dataflow/job", "dataflow/agent"
#: What stands on every worker, for NetworkPolicies and for people.
ROLE: Mapping[str, str] = {
    "app.kubernetes.io/name": "dataflow",
    "app.kubernetes.io/component": "worker",
}
#: Where a worker may write, and where its certificates lie.
SCRATCH, CERTIFICATES = "/scratch", "/etc/dataflow/tls"
CA, CERTIFICATE, KEY = "ca.crt", "tls.crt", "tls.key"
#: The name of the only container of a worker's Pod.
CONTAINER = "worker"
#: Seconds for a worker to end by itself when it is asked to.
GRACE = 5
_LONGEST_NAME = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The Pod that the agent runs in: what belongs to it is removed with it."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """One worker to be made.

    Attributes
    ----------
    name
        Of Job, Secret and Dask worker.
    site, job, agent
        Labels: whose site, for which job of ours it was first asked for, by which run of the agent.
    scheduler
        Address, ``tls://…``.
    threads, memory
        Of the worker; bytes.
    imports
        Modules that it loads before it says that it is there.
    environment
        Variables that every worker has; those of the settings win.
    patience
        Seconds that it looks for its scheduler.
    owner
        The agent's Pod, if it has one.
    """

    name: str
    site: str
    job: str
    agent: str
    scheduler: str
    threads: int
    memory: int
    imports: Sequence[str] = ()
    environment: Mapping[str, str]
    patience: float = 60.0
    owner: Owner | None = None


def label(text: str) -> str:
    """A text as a label's value: at most 63 characters, only such as Kubernetes takes.

    Examples
    --------
    >>> label("figure 3: all of Ann's runs")
    'figure-3-all-of-Ann-s-runs'
    """
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:_LONGEST_NAME].strip("_.-")


def object_name(site: str, mark: str) -> str:
    """A name for a worker's objects: of its site, told from others by ``mark``.

    Examples
    --------
    >>> object_name("UvA_1", "7f3a")
    'dataflow-uva-1-7f3a'
    """
    # A Pod's name is its Job's and six characters more.
    room = _LONGEST_NAME - len("dataflow--") - len(mark) - 6
    told = re.sub(r"[^a-z0-9]+", "-", site.lower())[:room].strip("-")
    return "-".join(part for part in ("dataflow", told, mark) if part)


def selector(**labels: str) -> str:
    """A label selector for workers of ours: ``selector(site="uva", agent="7f3a")``."""
    wanted = {**ROLE, **{f"dataflow/{key}": label(value) for key, value in labels.items()}}
    return ",".join(f"{key}={value}" for key, value in wanted.items())


def worker_job(spec: WorkerSpec, settings: KubernetesSettings) -> Manifest:
    """The Job of one worker."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            **_metadata(spec, settings),
            **({"ownerReferences": [_owned_by_pod(spec.owner)]} if spec.owner else {}),
        },
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 0,
            "activeDeadlineSeconds": max(1, math.ceil(settings.deadline)),
            "ttlSecondsAfterFinished": math.ceil(settings.keep),
            "template": {
                "metadata": {"labels": _labels(spec), "annotations": _annotations(spec)},
                "spec": _pod(spec, settings),
            },
        },
    }


def certificates(
    spec: WorkerSpec, settings: KubernetesSettings, *, uid: str, ca: str, certificate: str, key: str
) -> Manifest:
    """The Secret that lets a worker talk to its scheduler; it belongs to the Job of this ``uid``.

    It is made after the Job, whose Pod waits for it. The other way round, an agent that dies between
    the two would leave a Secret that belongs to nobody.
    """
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": spec.name, "uid": uid}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {**_metadata(spec, settings), "ownerReferences": [owner]},
        "type": "Opaque",
        "immutable": True,
        "stringData": {CA: ca, CERTIFICATE: certificate, KEY: key},
    }


def _metadata(spec: WorkerSpec, settings: KubernetesSettings) -> Manifest:
    return {
        "name": spec.name,
        "namespace": settings.namespace,
        "labels": _labels(spec),
        "annotations": _annotations(spec),
    }


def _labels(spec: WorkerSpec) -> dict[str, str]:
    return {**ROLE, SITE: label(spec.site), JOB: label(spec.job), AGENT: label(spec.agent)}


def _annotations(spec: WorkerSpec) -> dict[str, str]:
    return {SITE: spec.site, JOB: spec.job}


def _owned_by_pod(owner: Owner) -> Manifest:
    return {"apiVersion": "v1", "kind": "Pod", "name": owner.name, "uid": owner.uid}


def _pod(spec: WorkerSpec, settings: KubernetesSettings) -> Manifest:
    security: Manifest = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if settings.user is not None:
        security |= {
            "runAsUser": settings.user,
            "runAsGroup": settings.user,
            "fsGroup": settings.user,
        }
    pod: Manifest = {
        "restartPolicy": "Never",
        "serviceAccountName": settings.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE,
        "securityContext": security,
        "containers": [_container(spec, settings)],
        "volumes": _volumes(spec, settings),
    }
    if settings.pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in settings.pull_secrets]
    if settings.selector:
        pod["nodeSelector"] = dict(settings.selector)
    if settings.tolerations:
        pod["tolerations"] = [
            {
                "operator": "Exists" if one.value is None else "Equal",
                **({"key": one.key} if one.key else {}),
                **({"value": one.value} if one.value is not None else {}),
                **({"effect": one.effect} if one.effect else {}),
            }
            for one in settings.tolerations
        ]
    return pod


def _container(spec: WorkerSpec, settings: KubernetesSettings) -> Manifest:
    share = {"cpu": cores(settings.cpu or spec.threads), "memory": str(spec.memory)}
    variables = {
        # Nothing but the scratch directory can be written.
        "HOME": SCRATCH,
        "TMPDIR": SCRATCH,
        "PYTHONDONTWRITEBYTECODE": "1",
        **spec.environment,
        **dict(settings.environment),
    }
    mounts = [
        {"name": "scratch", "mountPath": SCRATCH},
        {"name": "certificates", "mountPath": CERTIFICATES, "readOnly": True},
        *(
            {"name": f"claim-{i}", "mountPath": claim.path, "readOnly": claim.read_only}
            for i, claim in enumerate(settings.claims)
        ),
    ]
    return {
        "name": CONTAINER,
        "image": settings.image,
        "command": _command(spec),
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            *({"name": name, "value": value} for name, value in variables.items()),
        ],
        "resources": {"requests": share, "limits": dict(share)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
        # The last lines of what it said, without a right to read logs.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _command(spec: WorkerSpec) -> list[str]:
    """No nanny: a worker that dies is a Job that has failed, with its reason in its status."""
    command = ["python", "-m", "distributed.cli.dask_worker", spec.scheduler]
    command += ["--name", spec.name, "--no-nanny", "--no-dashboard"]
    command += ["--protocol", "tls", "--host", "$(POD_IP)"]
    command += ["--tls-ca-file", f"{CERTIFICATES}/{CA}"]
    command += ["--tls-cert", f"{CERTIFICATES}/{CERTIFICATE}", "--tls-key", f"{CERTIFICATES}/{KEY}"]
    command += ["--nthreads", str(spec.threads), "--memory-limit", str(spec.memory)]
    command += ["--local-directory", SCRATCH, "--death-timeout", f"{spec.patience:g}"]
    for module in spec.imports:
        command += ["--preload", module]
    return command


def _volumes(spec: WorkerSpec, settings: KubernetesSettings) -> list[Manifest]:
    # Only the group of the workers reads the key, where they have one.
    mode = 0o440 if settings.user is not None else 0o444
    return [
        {"name": "scratch", "emptyDir": {"sizeLimit": str(settings.scratch)}},
        {"name": "certificates", "secret": {"secretName": spec.name, "defaultMode": mode}},
        *(
            {
                "name": f"claim-{i}",
                "persistentVolumeClaim": {"claimName": claim.name, "readOnly": claim.read_only},
            }
            for i, claim in enumerate(settings.claims)
        ),
    ]


def cores(number: float) -> str:
    """A number of cores as Kubernetes writes it, in thousandths where it is not whole.

    Examples
    --------
    >>> cores(2), cores(0.5)
    ('2', '500m')
    """
    return str(int(number)) if number == int(number) else f"{math.ceil(number * 1000)}m"
