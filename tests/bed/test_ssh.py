"""SSH: one key opens, nothing else does; the project's own program runs on every host."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from bed_network import until

from dataflow.testing.bed import Bed


def ssh(bed: Bed, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ssh", "-F", str(bed.ssh_config), *words],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
    )


@pytest.mark.parametrize("name", ["hpc", "edge", "edge-w1", "third"])
def test_the_key_opens_and_the_agent_can_be_started(bed: Bed, name: str):
    done = ssh(bed, name, "hostname; id --user --name; dataflow agent --help > help && wc -l help")
    assert done.stdout.split()[:2] == [name, bed.user]
    assert done.returncode == 0, done.stderr


def test_a_foreign_key_and_a_password_are_refused(bed: Bed, tmp_path: Path):
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    foreign = ssh(bed, "-o", f"IdentityFile={key}", "-i", str(key), "-F", "/dev/null",
                  "-o", "IdentitiesOnly=yes", "-o", f"UserKnownHostsFile={bed.known_hosts}",
                  f"{bed.user}@{bed.address('hpc')}", "true")  # fmt: skip
    assert foreign.returncode == 255
    assert "Permission denied (publickey)" in foreign.stderr


def test_the_inner_host_is_reached_from_its_door_alone(bed: Bed):
    assert ssh(bed, "edge", "ssh edge-w1 hostname").stdout.strip() == "edge-w1"
    done = ssh(bed, "third", f"ssh -o BatchMode=yes -o ConnectTimeout=2 {'10.79.0.11'} hostname")
    assert done.returncode == 255


def test_homes_belong_to_sites(bed: Bed):
    ssh(bed, "edge", "echo here > mine")
    assert ssh(bed, "edge-w1", "cat mine").stdout == "here\n"
    assert ssh(bed, "third", "cat mine").returncode == 1


def test_a_killed_sshd_leaves_its_sessions_and_is_repaired(bed: Bed):
    with subprocess.Popen(
        ["ssh", "-F", str(bed.ssh_config), "edge", "read line; echo $line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as session:
        host = bed.host("edge")
        until(lambda: any("read line" in process.command for process in host.processes()))
        host.daemon("sshd").kill()
        assert not bed.healthy
        assert "refused" in ssh(bed, "edge", "true").stderr
        assert session.communicate("still here\n", timeout=20)[0] == "still here\n"
    bed.repair()
    assert ssh(bed, "edge", "hostname").stdout.strip() == "edge"


def test_a_hung_sshd_accepts_and_says_nothing(bed: Bed):
    daemon = bed.host("third").daemon("sshd")
    daemon.hang()
    done = ssh(bed, "-o", "ConnectTimeout=1", "third", "true")
    assert "timed out" in done.stderr
    daemon.resume()
    assert ssh(bed, "third", "true").returncode == 0
