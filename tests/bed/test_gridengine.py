"""Grid Engine: jobs run on both hosts, and its daemons can die."""

from __future__ import annotations

import pytest
from bed_network import until

from dataflow.testing.bed import Bed


def test_jobs_run_on_both_hosts_as_the_user(bed: Bed):
    login = bed.host("hpc")
    job = "#!/bin/bash\necho $(hostname) $(id -un); sleep 2\n"
    numbers = [
        login.run(r"qsub -terse -j y -o out.\$JOB_ID", stdin=job).stdout.strip() for _ in range(4)
    ]
    until(lambda: not login.run("qstat").stdout, seconds=60)
    said = [login.run(f"cat out.{number}").stdout.split() for number in numbers]
    assert {host for host, _ in said} == {"hpc-n1", "hpc-n2"}
    assert {user for _, user in said} == {bed.user}


def test_the_accounting_knows_what_was_asked_for(bed: Bed):
    login = bed.host("hpc")
    words = "qsub -terse -sync y -pe smp 2 -l h_rt=60"
    number = login.run(words, stdin="exit 3\n", check=False).stdout.split()[0]
    until(lambda: login.run(f"qacct -j {number}", check=False).returncode == 0)
    record = login.run(f"qacct -j {number}")
    facts = dict(
        line.split(None, 1) for line in record.stdout.splitlines()[1:] if len(line.split()) > 1
    )
    assert facts["exit_status"].strip() == "3"
    assert facts["slots"].strip() == "2"
    assert facts["qname"].strip() == bed.queue


def test_clearing_ends_jobs_and_programs(bed: Bed):
    login = bed.host("hpc")
    for _ in range(6):
        login.run("qsub -terse -o /dev/null -j y", stdin="sleep 500\n")
    until(lambda: " r " in login.run("qstat").stdout)
    program = bed.host("third").start("sleep 500")
    bed.clear()
    program.communicate(timeout=10)
    until(lambda: not login.run("qstat").stdout)
    assert not any(host.processes(user=bed.user) for host in bed.hosts)


@pytest.mark.slow
def test_a_killed_qmaster_comes_back_and_its_jobs_go_on(bed: Bed):
    login = bed.host("hpc")
    number = login.run("qsub -terse -o kept.txt -j y", stdin="sleep 4; echo done\n").stdout.strip()
    until(lambda: " r " in login.run("qstat").stdout)
    login.daemon("qmaster").kill()
    assert login.run("qstat", check=False).returncode != 0
    bed.repair()
    until(lambda: login.run(f"qacct -j {number}", check=False).returncode == 0, seconds=60)
    assert login.run("cat kept.txt").stdout == "done\n"


def test_a_killed_execd_comes_back(bed: Bed):
    bed.host("hpc-n1").daemon("execd").kill()
    # What it was just about to start has its name for a moment longer.
    until(lambda: not bed.healthy)
    bed.repair()
    assert bed.healthy


@pytest.mark.slow
def test_a_killed_compute_host_comes_back_and_takes_jobs(bed: Bed):
    bed.host("hpc-n2").kill()
    bed.repair()
    words = f"qsub -sync y -q {bed.queue}@hpc-n2 -j y -o where.txt"
    bed.host("hpc").run(words, stdin="hostname\n", timeout=90)
    assert bed.host("hpc").run("cat where.txt").stdout == "hpc-n2\n"
