"""What an administrator applies: valid for Kubernetes, strict, and enough for what the agent does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from dataflow.backends.manifests import ROLE
from dataflow.config import parse_site_file, read_site_file
from dataflow.config.kubernetes import KubernetesSettings
from dataflow.testing.kubernetes.admission import check_restricted

FOLDER = Path(__file__).parents[2] / "hpc" / "kubernetes"
#: The oldest and the newest whose schemas are at hand.
VERSIONS = ("1.28.0", "1.37.0")


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def everything() -> list[dict[str, Any]]:
    names = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    return [document for name in names for document in documents(name)]


def one(kind: str, name: str = "") -> dict[str, Any]:
    (found,) = [
        item
        for item in everything()
        if item["kind"] == kind and name in ("", item["metadata"]["name"])
    ]
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(version: str) -> None:
    for item in everything():
        kubernetes_validate.validate(item, version, strict=True)


def test_every_file_is_applied() -> None:
    named = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    others = {"kustomization.yaml", "outside.yaml"}
    assert {path.name for path in FOLDER.glob("*.yaml")} == {*named, *others}


def test_everything_is_in_the_one_namespace() -> None:
    namespace = one("Namespace")["metadata"]["name"]
    for item in everything():
        if item["kind"] != "Namespace":
            assert item["metadata"]["namespace"] == namespace
    assert not any(item["kind"].startswith("Cluster") for item in everything())


def test_the_role_grants_no_more_than_four_kinds() -> None:
    allowed = {
        (group, kind): set(rule["verbs"])
        for rule in one("Role")["rules"]
        for group in rule["apiGroups"]
        for kind in rule["resources"]
    }
    assert allowed == {
        ("batch", "jobs"): {"create", "delete", "list", "watch"},
        ("", "pods"): {"delete", "list", "watch"},
        ("", "secrets"): {"create"},
        ("", "events"): {"list"},
    }


def test_the_agent_keeps_the_restricted_standard() -> None:
    template = one("Deployment")["spec"]["template"]
    check_restricted({"metadata": {"name": "agent"}, "spec": template["spec"]})
    (container,) = template["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert one("Deployment")["spec"]["strategy"] == {"type": "Recreate"}


def test_what_refers_to_something_finds_it() -> None:
    pod = one("Deployment")["spec"]["template"]["spec"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert pod["serviceAccountName"] == one("RoleBinding")["subjects"][0]["name"]
    one("ServiceAccount", pod["serviceAccountName"])
    assert one("RoleBinding")["roleRef"]["name"] == one("Role")["metadata"]["name"]
    labels = one("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert one("Service")["spec"]["selector"] == labels
    assert one("NetworkPolicy", "dataflow-agent")["spec"]["podSelector"]["matchLabels"] == labels


def test_the_policy_is_about_the_labels_that_workers_have() -> None:
    policy = one("NetworkPolicy", "dataflow-worker")["spec"]
    assert policy["podSelector"]["matchLabels"] == ROLE
    assert policy["policyTypes"] == ["Ingress", "Egress"]


def test_the_site_files_say_what_the_manifests_do() -> None:
    inside = parse_site_file(one("ConfigMap")["data"]["site.yaml"])
    settings = inside.backend.settings
    assert isinstance(settings, KubernetesSettings)
    assert settings.namespace == one("Namespace")["metadata"]["name"]
    one("ServiceAccount", settings.service_account)
    (container,) = one("Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == settings.image
    assert inside.listen is not None
    assert inside.listen.port == container["ports"][0]["containerPort"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    # A path of a store is the same for the agent and for its workers.
    assert {claim.path for claim in settings.claims} <= mounts
    outside = read_site_file(FOLDER / "outside.yaml").backend.settings
    assert isinstance(outside, KubernetesSettings)
    assert outside.port > 0
