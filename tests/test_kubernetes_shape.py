"""The section of the site file for workers in a Kubernetes namespace."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow.config import parse_site_file
from dataflow.config.kubernetes import Claim, KubernetesSettings, Toleration
from dataflow.config.records import Backend
from dataflow.errors import ConfigError

LEAST = "namespace: adk, image: 'registry.example.org/dataflow:0.1.0'"


def backend(text: str) -> Backend:
    return parse_site_file(f"site: {{name: a}}\nbackend: {text}").backend


def test_namespace_and_image_are_enough() -> None:
    found = backend(f"{{kind: kubernetes, workers: 8, memory: 4 GB, kubernetes: {{{LEAST}}}}}")
    assert found.workers == 8
    assert found.memory == 4_000_000_000
    assert found.settings == KubernetesSettings(
        namespace="adk", image="registry.example.org/dataflow:0.1.0"
    )
    assert backend(f"{{kubernetes: {{{LEAST}}}}}").kind == "kubernetes"


def test_all_that_may_be_said() -> None:
    found = backend(
        f"{{kubernetes: {{{LEAST}, service_account: worker, kubeconfig: ~/lab.yaml, context: lab,"
        " address: login.example.org, port: 8786, cpu: 1.5, scratch: 20 GB, deadline: 2 h,"
        " keep: 0 s, idle: 5 min, worth: 1 min, patience: 1 h, user: null, pull_secrets: [pull],"
        " selector: {disk: ssd}, tolerations: [{key: gpu, value: 'yes', effect: NoSchedule}, {}],"
        " claims: [{name: adk-data, path: /data, read_only: true}],"
        " environment: {OMP_NUM_THREADS: '1'}}}"
    )
    assert found.settings == KubernetesSettings(
        namespace="adk",
        image="registry.example.org/dataflow:0.1.0",
        service_account="worker",
        kubeconfig=str(Path("~/lab.yaml").expanduser()),
        context="lab",
        address="login.example.org",
        port=8786,
        cpu=1.5,
        scratch=20_000_000_000,
        deadline=7200.0,
        keep=0.0,
        idle=300.0,
        worth=60.0,
        patience=3600.0,
        user=None,
        pull_secrets=("pull",),
        selector=(("disk", "ssd"),),
        tolerations=(Toleration(key="gpu", value="yes", effect="NoSchedule"), Toleration()),
        claims=(Claim(name="adk-data", path="/data", read_only=True),),
        environment=(("OMP_NUM_THREADS", "1"),),
    )


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ("{image: x}", "'namespace' is missing"),
        ("{namespace: adk}", "'image' is missing"),
        (f"{{{LEAST}, deadline: 3600}}", "has no unit"),
        (f"{{{LEAST}, deadline: 10 ms}}", "at least a second"),
        (f"{{{LEAST}, worth: 0 s}}", "worth must be more than 0"),
        (f"{{{LEAST}, scratch: 20}}", "has no unit"),
        (f"{{{LEAST}, imege: x}}", "unknown key 'imege'"),
        (f"{{{LEAST}, user: 0}}", "at least 1"),
        (f"{{{LEAST}, cpu: 0}}", "at least 0.01"),
        (f"{{{LEAST}, kubeconfig: lab.yaml}}", "absolute path"),
        (f"{{{LEAST}, environment: {{S3_SECRET: x}}}}", "a secret must not stand in this file"),
        (f"{{{LEAST}, environment: {{'1X': x}}}}", "no name of an environment variable"),
        (f"{{{LEAST}, selector: {{'a b': x}}}}", "is no label"),
        (f"{{{LEAST}, tolerations: [{{value: x}}]}}", "a value needs its key"),
        (f"{{{LEAST}, claims: [{{name: a, path: data}}]}}", "no place for a volume"),
        (f"{{{LEAST}, claims: [{{name: a, path: /a}}, {{name: b, path: /a}}]}}", "the same path"),
        ("{namespace: Adk, image: x}", "no name of a namespace"),
        ("{namespace: adk, image: 'a b'}", "no name of an image"),
        (f"{{{LEAST}, service_account: A_B}}", "no name that Kubernetes takes"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(section: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match="(?s)backend.kubernetes.*" + complaint):
        backend(f"{{kind: kubernetes, kubernetes: {section}}}")


def test_the_kind_needs_its_section() -> None:
    with pytest.raises(ConfigError, match="a section 'kubernetes' must stand here"):
        backend("{kind: kubernetes}")
