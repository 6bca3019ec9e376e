"""Sections of the site file for workers under a batch system, or on hosts by SSH."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dataflow.config import parse_site_file, read_site_file
from dataflow.config.backend_records import JobQueue, Sge, SshHosts
from dataflow.config.records import Backend
from dataflow.errors import ConfigError


def backend(text: str) -> Backend:
    return parse_site_file(f"site: {{name: a}}\nbackend: {text}").backend


def test_the_section_says_the_kind() -> None:
    found = backend("{workers: 8, memory: 4 GB, sge: {queue: lab.q, walltime: 1 h}}")
    assert found.kind == "sge"
    assert found.settings == Sge(queue="lab.q", walltime=3600.0)
    assert backend("{ssh: {hosts: [a, b]}}").settings == SshHosts(hosts=("a", "b"))
    assert backend("{jobqueue: {system: slurm}}").settings == JobQueue(system="slurm")
    assert backend("{kind: sge}").settings is None
    assert backend("{workers: 2}").kind == "local"


def test_all_that_grid_engine_may_be_told() -> None:
    found = backend(
        "{sge: {queue: a.q, project: p, walltime: 2 h, interface: ib0, scheduler_interface: eth1,"
        " directives: ['-m n'], prologue: ['module load python'], python: ~/env/bin/python,"
        " shared: /shared/me, logs: /shared/me/logs, idle: 0 s, worth: 30 s, look: 2 s,"
        " orphaned: 90 s, silence: 5 s, scratch: $TMPDIR/x, parallel_environment: smp,"
        " resources: {mem_free: 4G, gpu: '1'}, memory_resource: h_vmem}}"
    )
    assert found.settings == Sge(
        queue="a.q",
        project="p",
        walltime=7200.0,
        interface="ib0",
        scheduler_interface="eth1",
        directives=("-m n",),
        prologue=("module load python",),
        python=str(Path("~/env/bin/python").expanduser()),
        shared=Path("/shared/me"),
        logs=Path("/shared/me/logs"),
        idle=0.0,
        worth=30.0,
        look=2.0,
        orphaned=90.0,
        silence=5.0,
        scratch="$TMPDIR/x",
        parallel_environment="smp",
        resources={"mem_free": "4G", "gpu": "1"},
        memory_resource="h_vmem",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{kind: ssh}", "so a section 'ssh' must stand here"),
        ("{kind: jobqueue}", "so a section 'jobqueue' must stand here"),
        ("{kind: local, sge: {}}", "so a section 'sge' must not stand here"),
        ("{sge: {}, ssh: {hosts: [a]}}", "of one kind, not of ssh and sge"),
        ("{sge: {walltime: 60}}", "backend.sge.walltime: '60' has no unit: write '60 s'"),
        ("{sge: {walltime: 10 s}}", "must be 30 s or more"),
        ("{sge: {worth: 0 s}}", "must be longer than nothing"),
        ("{sge: {quee: a}}", "unknown key 'quee'; did you mean 'queue'?"),
        ("{sge: {queue: 'a b'}}", "must be one word"),
        ("{sge: {queue: '-a'}}", "must be one word"),
        ('{sge: {directives: ["-m n\\nrm"]}}', "must be one line of text"),
        ("{sge: {resources: {mem: '1 G'}}}", "must be one word, as after the = of -l"),
        ("{sge: {shared: here}}", "must begin at / or at ~"),
        ("{sge: {scratch: '/a b'}}", "must be a directory without spaces"),
        ("{ssh: {hosts: []}}", "at least 1 item"),
        ("{ssh: {hosts: [-oProxyCommand=x]}}", "must be one word"),
        ("{jobqueue: {system: torque}}", "must be 'pbs', 'slurm', 'lsf' or 'htcondor'"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        backend(text)
    assert said in str(caught.value)


@pytest.mark.parametrize("kind", ["sge", "ssh"])
def test_the_examples_are_right(kind: str) -> None:
    example = Path(__file__).parents[1] / "hpc" / kind / "site.yaml"
    assert read_site_file(example).backend.kind == kind
    # What is commented out is right as well, once its mark is taken away.
    text = re.sub(r"^(    )# (?=[a-z_]+:)", r"\1", example.read_text(), flags=re.MULTILINE)
    assert text != example.read_text()
    assert parse_site_file(text).backend.kind == kind
