"""The section ``kubernetes`` of a site file's ``backend``.

::

    backend:
      kind: kubernetes
      workers: 8                    # at most
      threads: 2                    # of each, and so much CPU
      memory: 4 GB                  # of each, request and limit
      kubernetes:
        namespace: adk
        image: registry.example.org/adk/dataflow:0.1.0
        deadline: 4 h               # a worker that is older is ended by Kubernetes
        idle: 2 min                 # without work for so long: it goes
        claims: [{name: adk-data, path: /data, read_only: true}]

The other keys, and what holds without them: :class:`dataflow.config.kubernetes.KubernetesSettings`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from dataflow.config.kubernetes import Claim, KubernetesSettings, Toleration
from dataflow.config.shape import Bytes, Seconds, Shape

_DEFAULT = KubernetesSettings(namespace="-", image="-")
_LABEL_VALUE = r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?"
_LABEL_KEY = r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"


def _label_name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", value):
        raise ValueError(f"{value!r} is no name of a namespace: small letters, digits and '-' only")
    return value


def _object_name(value: str) -> str:
    if len(value) > 253 or not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", value):
        raise ValueError(
            f"{value!r} is no name that Kubernetes takes: small letters, digits, '-' and '.' only"
        )
    return value


def _image(value: str) -> str:
    if not re.fullmatch(r"[\w.:/@-]+", value, re.ASCII) or not re.match(r"[A-Za-z0-9]", value):
        raise ValueError(f"{value!r} is no name of an image: write registry/name:tag")
    return value


def _absolute(value: str) -> str:
    if not value.startswith("/") or ":" in value or ".." in value.split("/") or value == "/":
        raise ValueError(f"{value!r} is no place for a volume: write an absolute path, without ':'")
    return value


def _file(value: str) -> str:
    path = Path(value).expanduser()
    if not path.is_absolute():
        raise ValueError(f"{value!r} must be an absolute path, or begin with ~")
    return str(path)


def _labels(value: dict[str, str]) -> dict[str, str]:
    for key, text in value.items():
        if not re.fullmatch(_LABEL_KEY, key) or not re.fullmatch(_LABEL_VALUE, text):
            raise ValueError(f"'{key}: {text}' is no label that Kubernetes takes")
    return value


def _variables(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"{name!r} is no name of an environment variable")
        if re.search(r"secret|passw|token|access_key|credential", name, re.IGNORECASE):
            raise ValueError(f"{name!r}: a secret must not stand in this file")
    return value


ObjectName = Annotated[str, AfterValidator(_object_name)]


class ClaimShape(Shape):
    """A PersistentVolumeClaim and where workers see it."""

    name: ObjectName
    path: Annotated[str, AfterValidator(_absolute)]
    read_only: bool = False


class TolerationShape(Shape):
    """A taint that workers bear."""

    key: str = ""
    value: str | None = None
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""

    @model_validator(mode="after")
    def _a_value_has_a_key(self) -> TolerationShape:
        if self.value is not None and not self.key:
            raise ValueError("a value needs its key")
        return self


class KubernetesShape(Shape):
    """Workers as Jobs in a namespace."""

    namespace: Annotated[str, AfterValidator(_label_name)]
    image: Annotated[str, AfterValidator(_image)]
    service_account: ObjectName = _DEFAULT.service_account
    kubeconfig: Annotated[str, AfterValidator(_file)] | None = None
    context: str = _DEFAULT.context
    address: Annotated[str, Field(pattern=r"^[A-Za-z0-9:._-]*$")] = _DEFAULT.address
    port: Annotated[int, Field(ge=0, le=65535)] = _DEFAULT.port
    cpu: Annotated[float, Field(ge=0.01)] | None = None
    scratch: Bytes = _DEFAULT.scratch
    deadline: Seconds = _DEFAULT.deadline
    keep: Seconds = _DEFAULT.keep
    idle: Seconds = _DEFAULT.idle
    worth: Seconds = _DEFAULT.worth
    patience: Seconds = _DEFAULT.patience
    user: Annotated[int, Field(ge=1)] | None = _DEFAULT.user
    pull_secrets: list[ObjectName] = Field(default_factory=list)
    selector: Annotated[dict[str, str], AfterValidator(_labels)] = Field(default_factory=dict)
    tolerations: list[TolerationShape] = Field(default_factory=list)
    claims: list[ClaimShape] = Field(default_factory=list)
    environment: Annotated[dict[str, str], AfterValidator(_variables)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _possible(self) -> KubernetesShape:
        if self.deadline < 1:
            raise ValueError("deadline must be at least a second")
        if self.worth <= 0:
            raise ValueError("worth must be more than 0")
        for what in ("name", "path"):
            told = [getattr(claim, what) for claim in self.claims]
            if len(set(told)) < len(told):
                raise ValueError(f"two claims have the same {what}")
        return self

    def record(self) -> KubernetesSettings:
        """The record; without the section's own defaults nothing is left open."""
        return KubernetesSettings(
            namespace=self.namespace,
            image=self.image,
            service_account=self.service_account,
            kubeconfig=self.kubeconfig or "",
            context=self.context,
            address=self.address,
            port=self.port,
            cpu=self.cpu or 0.0,
            scratch=self.scratch,
            deadline=self.deadline,
            keep=self.keep,
            idle=self.idle,
            worth=self.worth,
            patience=self.patience,
            user=self.user,
            pull_secrets=tuple(self.pull_secrets),
            selector=tuple(sorted(self.selector.items())),
            tolerations=tuple(
                Toleration(key=one.key, value=one.value, effect=one.effect)
                for one in self.tolerations
            ),
            claims=tuple(
                Claim(name=one.name, path=one.path, read_only=one.read_only) for one in self.claims
            ),
            environment=tuple(sorted(self.environment.items())),
        )
