"""Who may do what, and which Pods are let in: the refusals of an API server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dataflow.testing.kubernetes.objects import KINDS, Object, Refused

#: Rules of a Role, as in its manifest.
Rules = Sequence[Mapping[str, Any]]
_MAY_ALL: Rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
_SAFE_VOLUMES = frozenset(
    {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"}
    | {"projected", "secret"}
)


class Accounts:
    """Tokens, whose they are, and what their owners may do in which namespace."""

    def __init__(self) -> None:
        self._tokens: dict[str, str] = {}
        self._rules: dict[str, tuple[str, Rules]] = {}

    def add(self, token: str, name: str, namespace: str, rules: Rules | None = None) -> None:
        """Let a token in; without rules it may do everything in its namespace."""
        self._tokens[token] = name
        self._rules[name] = (namespace, _MAY_ALL if rules is None else rules)

    def revoke(self, token: str) -> None:
        """Let a token in no more, as when it has expired."""
        self._tokens.pop(token, None)

    def who(self, authorization: str) -> str:
        """The account of a request.

        Raises
        ------
        Refused
            If the token is unknown.
        """
        name = self._tokens.get(authorization.removeprefix("Bearer ").strip())
        if name is None:
            raise Refused(401, "Unauthorized", "Unauthorized")
        return name

    def check(self, name: str, verb: str, kind: str, namespace: str) -> None:
        """Refuse what no rule allows.

        Raises
        ------
        Refused
            In the words of Kubernetes.
        """
        group = KINDS[kind][0]
        home, rules = self._rules[name]
        if home == namespace and any(_allows(rule, group, kind, verb) for rule in rules):
            return
        where = f"{kind}.{group}" if group else kind
        raise Refused(
            403,
            "Forbidden",
            f'{where} is forbidden: User "{name}" cannot {verb} resource "{kind}" in API group '
            f'"{group}" in the namespace "{namespace}"',
        )


def _allows(rule: Mapping[str, Any], group: str, kind: str, verb: str) -> bool:
    asked = (("apiGroups", group), ("resources", kind), ("verbs", verb))
    return all(not {"*", one}.isdisjoint(rule.get(key) or ()) for key, one in asked)


def check_restricted(pod: Object) -> None:
    """The Pod Security Standard *restricted*, as far as Pods like ours are concerned.

    Raises
    ------
    Refused
        With all that is wrong.
    """
    spec = pod["spec"]
    wrong = [
        f"volume {volume['name']!r}"
        for volume in spec.get("volumes") or ()
        if _SAFE_VOLUMES.isdisjoint(volume)
    ]
    wrong += [word for word in ("hostNetwork", "hostPID", "hostIPC") if spec.get(word)]
    whole = spec.get("securityContext") or {}
    for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
        own = container.get("securityContext") or {}
        capabilities = own.get("capabilities") or {}
        profile = (own.get("seccompProfile") or whole.get("seccompProfile") or {}).get("type")
        found = {
            "allowPrivilegeEscalation != false": own.get("allowPrivilegeEscalation") is not False,
            "unrestricted capabilities": "ALL" not in (capabilities.get("drop") or ())
            or bool(set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}),
            "runAsNonRoot != true": own.get("runAsNonRoot", whole.get("runAsNonRoot")) is not True,
            "runAsUser=0": own.get("runAsUser", whole.get("runAsUser")) == 0,
            "seccompProfile": profile not in ("RuntimeDefault", "Localhost"),
            "privileged": bool(own.get("privileged")),
        }
        wrong += [
            f"{what} (container {container['name']!r})" for what, is_so in found.items() if is_so
        ]
    if wrong:
        name = pod["metadata"].get("name") or pod["metadata"].get("generateName")
        text = f'pods "{name}" is forbidden: violates PodSecurity "restricted:latest": '
        raise Refused(403, "Forbidden", text + ", ".join(wrong))
