"""What is sent to Kubernetes: valid by its own schemas, strict, and gone with its owner."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.backends import manifests
from dataflow.backends.manifests import Owner, WorkerSpec
from dataflow.config.kubernetes import Claim, KubernetesSettings, Toleration
from dataflow.testing.kubernetes.admission import check_restricted

LEAST = KubernetesSettings(namespace="adk", image="registry.example.org/dataflow:0.1.0")
MOST = KubernetesSettings(
    namespace="adk",
    image="registry.example.org/dataflow@sha256:" + "0" * 64,
    service_account="worker",
    cpu=1.5,
    scratch=20_000_000_000,
    deadline=90.5,
    keep=0.0,
    user=None,
    pull_secrets=("pull",),
    selector=(("disk", "ssd"),),
    tolerations=(Toleration(key="gpu", value="yes", effect="NoSchedule"), Toleration()),
    claims=(Claim(name="adk-data", path="/data", read_only=True),),
    environment=(("OMP_NUM_THREADS", "4"),),
)
SPEC = WorkerSpec(
    name="dataflow-uva-7f3a",
    site="uva",
    job="figure 3",
    agent="c0ffee",
    scheduler="tls://10.1.2.3:8786",
    threads=2,
    memory=4_000_000_000,
    imports=("dask.array",),
    environment={"OMP_NUM_THREADS": "1"},
)
OWNED = replace(SPEC, owner=Owner(name="agent-0", uid="0000-1111"))


def job(spec: WorkerSpec = SPEC, settings: KubernetesSettings = LEAST) -> dict[str, Any]:
    return manifests.worker_job(spec, settings)


def secret() -> dict[str, Any]:
    return manifests.certificates(SPEC, LEAST, uid="1234", ca="A", certificate="B", key="C")


@pytest.mark.parametrize("version", ["1.28.0", "1.34.0", "1.37.0"])
def test_all_are_valid(version: str) -> None:
    for spec in (SPEC, OWNED):
        for settings in (LEAST, MOST):
            kubernetes_validate.validate(job(spec, settings), version, strict=True)
    kubernetes_validate.validate(secret(), version, strict=True)


def test_a_job_is_one_worker_that_is_never_tried_again_and_never_stays() -> None:
    spec = job(settings=MOST)["spec"]
    assert (spec["parallelism"], spec["completions"], spec["backoffLimit"]) == (1, 1, 0)
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert spec["activeDeadlineSeconds"] == 91
    assert spec["ttlSecondsAfterFinished"] == 0
    assert job()["spec"]["activeDeadlineSeconds"] == 8 * 3600


@pytest.mark.parametrize("settings", [LEAST, MOST])
def test_the_pod_keeps_the_restricted_standard(settings: KubernetesSettings) -> None:
    template = job(settings=settings)["spec"]["template"]
    check_restricted({"metadata": {"name": "worker"}, "spec": template["spec"]})
    pod = template["spec"]
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["automountServiceAccountToken"] is False
    writable = {mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"scratch"}
    assert pod["volumes"][0] == {
        "name": "scratch",
        "emptyDir": {"sizeLimit": str(settings.scratch)},
    }


def test_the_check_of_the_standard_would_find_what_is_wrong() -> None:
    pod = {"metadata": {"name": "worker"}, "spec": job()["spec"]["template"]["spec"]}
    for change in (
        lambda spec: spec["securityContext"].pop("runAsNonRoot"),
        lambda spec: spec["securityContext"].update(runAsUser=0),
        lambda spec: spec["securityContext"].pop("seccompProfile"),
        lambda spec: spec["containers"][0]["securityContext"].pop("capabilities"),
        lambda spec: spec["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
        lambda spec: spec["volumes"].append({"name": "h", "hostPath": {"path": "/"}}),
        lambda spec: spec.update(hostNetwork=True),
    ):
        wrong = copy.deepcopy(pod)
        change(wrong["spec"])  # type: ignore[no-untyped-call]
        with pytest.raises(Exception, match="violates PodSecurity"):
            check_restricted(wrong)


def test_requests_are_limits() -> None:
    resources = job()["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resources["requests"] == resources["limits"] == {"cpu": "2", "memory": "4000000000"}
    resources = job(settings=MOST)["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resources["limits"]["cpu"] == "1500m"


def test_the_secret_belongs_to_the_job_and_the_job_to_the_agent() -> None:
    assert secret()["metadata"]["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "Job", "name": SPEC.name, "uid": "1234"}
    ]
    assert "ownerReferences" not in job()["metadata"]
    assert job(OWNED)["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": "agent-0", "uid": "0000-1111"}
    ]


def test_labels_say_whose_it_is() -> None:
    labels = job()["metadata"]["labels"]
    assert labels["dataflow/site"] == "uva"
    assert labels["dataflow/job"] == "figure-3"
    assert job()["metadata"]["annotations"]["dataflow/job"] == "figure 3"
    assert job()["spec"]["template"]["metadata"]["labels"] == labels
    wanted = dict(
        pair.split("=") for pair in manifests.selector(site="uva", agent="c0ffee").split(",")
    )
    assert wanted.items() <= labels.items()


def test_the_settings_have_the_last_word_on_variables() -> None:
    variables = job(settings=MOST)["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "OMP_NUM_THREADS", "value": "4"} in variables
    assert [v["name"] for v in variables].count("OMP_NUM_THREADS") == 1


def test_the_key_is_nobodys_elses_where_workers_have_a_group() -> None:
    certificates = job()["spec"]["template"]["spec"]["volumes"][1]["secret"]
    assert certificates == {"secretName": SPEC.name, "defaultMode": 0o440}


@given(st.text())
def test_every_text_makes_a_label(text: str) -> None:
    made = manifests.label(text)
    assert re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", made)


@given(st.text(min_size=1))
def test_every_site_makes_a_name_with_room_for_that_of_its_pod(site: str) -> None:
    made = manifests.object_name(site, "0123abcd")
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", made)
    assert len(made + "-x2x4x") <= 63
    assert made.endswith("-0123abcd")
