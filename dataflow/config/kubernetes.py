"""What a site file says about workers in a Kubernetes namespace, as frozen records."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A PersistentVolumeClaim that workers see at ``path``; where a ``file`` store of the site lies."""

    name: str
    path: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Toleration:
    """A taint that workers bear; an empty ``key`` bears all, an empty ``effect`` every effect."""

    key: str = ""
    value: str | None = None
    effect: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesSettings:
    """How and where workers are made as Jobs.

    Attributes
    ----------
    namespace, image
        Where, and what they run: an image with this package in it, of this version.
    service_account
        Whose name workers bear. They get no token of it, so it needs no rights.
    kubeconfig, context
        How the API server is reached from outside; empty: ``$KUBECONFIG``, ``~/.kube/config``, or
        the service account of the Pod that the agent runs in.
    address, port
        Where workers reach the scheduler, which runs in the agent. Empty: the address of the
        agent's Pod, or the one by which this machine reaches the API server; 0: any free port.
    cpu
        Cores of each worker, as request and as limit; 0: one for each thread.
    scratch
        Bytes that a worker may write below its scratch directory.
    deadline
        Seconds after which Kubernetes ends a worker, whatever it does.
    keep
        Seconds after which Kubernetes removes what is left of a worker that has ended.
    idle
        Seconds without work after which a worker goes.
    worth
        Seconds of planned work for which one more worker is worth its start.
    patience
        Seconds that the first worker may stand in the queue before an order is given up.
    user
        Number of the account (and of its group) that workers run as; ``None``: as the image or the
        namespace says, which must not be root.
    pull_secrets
        Names of Secrets to pull the image with.
    selector
        Labels that the machine of a worker must have.
    tolerations, claims, environment
        Taints borne, volumes seen, and variables set in workers.
    """

    namespace: str
    image: str
    service_account: str = "default"
    kubeconfig: str = ""
    context: str = ""
    address: str = ""
    port: int = 0
    cpu: float = 0.0
    scratch: int = 10_000_000_000
    deadline: float = 8 * 3600.0
    keep: float = 60.0
    idle: float = 60.0
    worth: float = 30.0
    patience: float = 900.0
    user: int | None = 1000
    pull_secrets: tuple[str, ...] = ()
    selector: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    claims: tuple[Claim, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
