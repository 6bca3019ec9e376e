"""Hosts: apart from one another, and every fault a test may ask for."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time

import pytest
from bed_network import until

from dataflow.testing.bed import Bed, BedError, Host
from dataflow.testing.bed.layout import HOSTS

INNER = {plan.name: plan.inside for plan in HOSTS if plan.outside is None}


@pytest.mark.parametrize(("name", "address"), sorted(INNER.items()))
def test_inner_hosts_are_reached_from_their_site_alone(bed: Bed, name: str, address: str):
    port = 22 if name == "edge-w1" else 6445  # sshd or execd
    site = bed.host(name).plan.site
    with pytest.raises(OSError, match=r"No route|unreachable"):
        socket.create_connection((address, port), 2)
    knock = f"timeout 2 bash -c '</dev/tcp/{address}/{port}'"
    assert bed.host(site).run(knock, check=False).returncode == 0
    for other in {"hpc", "edge", "cloud", "third"} - {site}:
        assert bed.host(other).run(knock, check=False).returncode != 0
    for stranger in set(INNER) - {name}:
        if bed.host(stranger).plan.site != site:
            assert bed.host(stranger).run(knock, check=False).returncode != 0
    # Nor do they reach out by themselves.
    out = f"timeout 2 bash -c '</dev/tcp/{bed.address('third')}/22'"
    assert bed.host(name).run(out, check=False).returncode != 0


def test_a_site_knows_no_way_into_the_world(bed: Bed):
    for host in bed.hosts:
        assert "default" not in host.run(["ip", "route"], user="root").stdout


def test_programs_run_as_who_was_asked_for(bed: Bed):
    host = bed.host("hpc-n1")
    assert host.run("hostname; id -un; pwd").stdout.split() == [
        "hpc-n1",
        bed.user,
        f"/home/{bed.user}",
    ]
    assert host.run(["id", "-u"], user="root").stdout.strip() == "0"
    with pytest.raises(BedError, match="no such thing"):
        host.run("echo no such thing >&2; exit 3")
    with pytest.raises(BedError, match=r"no end after 0\.5 s"):
        host.run(["sleep", "600.25"], timeout=0.5)
    until(lambda: not any("600.25" in process.command for process in host.processes()))


def test_processes_are_seen_and_ended_by_the_number_that_the_host_knows(bed: Bed):
    host = bed.host("third")
    program = host.start("echo $$; exec sleep 500")
    assert program.stdout is not None
    pid = int(program.stdout.readline())
    mine = [process for process in host.processes(user=bed.user) if process.pid == pid]
    assert [process.parent for process in mine] == [0]
    assert 0 < mine[0].peak < 100e6
    host.end(pid, signal.SIGTERM)
    program.communicate(timeout=10)
    assert all(process.pid != pid for process in host.processes())
    with pytest.raises(KeyError, match="third has no process"):
        host.end(pid)


def test_a_paused_host_hangs_and_goes_on(bed: Bed):
    host = bed.host("third")
    host.pause()
    with socket.create_connection((bed.address("third"), 22), 5) as end:
        end.settimeout(0.5)
        with pytest.raises(TimeoutError):
            end.recv(10)
        host.resume()
        end.settimeout(20)
        assert end.recv(4) == b"SSH-"


def hardware_addresses(host: Host) -> dict[str, str]:
    found = json.loads(host.run("ip -j link").stdout)
    return {link["ifname"]: link["address"] for link in found if link["ifname"] in ("wan0", "lan0")}


def test_a_killed_host_takes_everything_with_it_and_comes_back(bed: Bed):
    host = bed.host("edge")
    host.run("echo kept > kept")
    addresses = hardware_addresses(host)
    program = host.start("sleep 400")
    host.kill()
    assert program.wait(10) != 0
    program.communicate()
    assert not host.up
    assert host.processes() == []
    with pytest.raises(OSError, match=r"No route|timed out"):
        socket.create_connection((bed.address("edge"), 22), 2)
    with pytest.raises(BedError, match="edge is down"):
        host.run("true")
    bed.repair()
    assert bed.healthy
    assert bed.host("edge").run("cat kept").stdout == "kept\n"
    # Who was a neighbour knows the old ones, and goes on with them for minutes.
    assert hardware_addresses(bed.host("edge")) == addresses
    ssh = ["ssh", "-F", str(bed.ssh_config), "edge", "ssh edge-w1 hostname"]
    assert subprocess.run(ssh, capture_output=True, text=True, check=True).stdout == "edge-w1\n"


def test_a_small_disk_gets_full(bed: Bed):
    host = bed.host("hpc")
    path = f"/home/{bed.user}/results"
    with host.disk(path, 4_000_000) as disk:
        host.run(f"head -c 1000000 /dev/zero > {path}/a")
        disk.fill(leave=100_000)
        assert disk.free <= 104_096
        with pytest.raises(BedError, match="No space left"):
            host.run(f"head -c 1000000 /dev/zero > {path}/b")
        disk.fill(leave=2_000_000)
        host.run(f"head -c 1000000 /dev/zero > {path}/b")
    assert host.run(f"ls {path}").stdout == ""


def test_a_clock_is_wrong_for_whoever_starts_then(bed: Bed):
    host = bed.host("third")
    script = (
        "import queue, time; was = time.time(); begun = time.monotonic(); time.sleep(0.1)\n"
        "try: queue.Queue().get(timeout=0.1)\n"
        "except queue.Empty: pass\n"
        "assert 0.2 <= time.monotonic() - begun < 5; print(was)"
    )
    ssh = ["ssh", "-F", str(bed.ssh_config), "third", f'python3 -c "{script}"']
    for offset in (5.0, -3600.5, 0.0):
        host.clock(offset)
        before = time.time()
        said = float(subprocess.run(ssh, capture_output=True, text=True, check=True).stdout)
        assert before <= said - offset <= time.time()
        here = float(host.run(["/usr/bin/python3", "-c", "import time; print(time.time())"]).stdout)
        assert abs(here - offset - time.time()) < 10
    assert abs(float(bed.host("edge").run("date +%s").stdout) - time.time()) < 10


def test_restoring_undoes_what_was_forgotten(bed: Bed):
    host = bed.host("third")
    host.pause()
    host.clock(5)
    host.disk("/mnt", 1_000_000).__enter__()
    bed.restore()
    assert bed.healthy
    assert all(process.state != "T" for process in host.processes())
    assert "bed-disk" not in host.run("cat /proc/mounts").stdout
    assert abs(float(host.run("date +%s").stdout) - time.time()) < 3


def test_names_that_are_not_there(bed: Bed):
    with pytest.raises(KeyError, match="no host 'hpc-n9'"):
        bed.host("hpc-n9")
    with pytest.raises(KeyError, match="edge has no daemon 'qmaster'; it has sshd"):
        bed.host("edge").daemon("qmaster")
