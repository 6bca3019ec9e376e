"""Up twice is quick, down leaves nothing, and nothing but the standard library is needed."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from bed_network import until

from dataflow.testing.bed import Bed, BedError, layout, up
from dataflow.testing.bed import state as states

TESTBED = Path(__file__).parents[2] / "hpc" / "testbed"


def leftovers() -> list[str]:
    """What the bed made and is still there."""
    found = [name for name in os.listdir("/sys/class/net") if name.startswith("flow")]
    found += [
        line for line in Path("/proc/mounts").read_text().splitlines() if "dataflow-bed" in line
    ]
    routes = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
    found += [line for line in routes.splitlines() if line.startswith("unreachable 10.7")]
    own = os.readlink("/proc/self/ns/net")
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                command = Path(f"/proc/{entry}/cmdline").read_bytes()
                elsewhere = os.readlink(f"/proc/{entry}/ns/net") != own
            except OSError:
                continue
            if b"dataflow-bed" in command or (elsewhere and b"infinity" in command):
                found.append(f"process {entry}: {command!r}")
    found += [
        str(path)
        for path in (layout.STATE, layout.DISK / "hosts", layout.DISK / "sites")
        if path.exists()
    ]
    return found


def test_a_bed_that_stands_is_left_alone(bed: Bed):
    before = (layout.STATE / "bed.json").read_text()
    begun = time.monotonic()
    subprocess.run([TESTBED / "bed-up"], check=True, capture_output=True)
    spent = time.monotonic() - begun
    assert (layout.STATE / "bed.json").read_text() == before
    assert spent < 10


@pytest.mark.slow
def test_down_leaves_nothing_and_up_makes_it_again(bed: Bed):
    recorded = states.load()
    assert recorded is not None
    program = bed.host("hpc-n1").start("setsid sleep 4000 & sleep 4000")
    subprocess.run([TESTBED / "bed-down"], check=True, capture_output=True)
    program.communicate(timeout=10)
    assert leftovers() == []
    assert not any(
        alive.there
        for part in (recorded.hosts, recorded.holders, recorded.cables)
        for alive in part.values()
    )
    with pytest.raises(BedError, match="no test bed stands here"):
        Bed.current()
    subprocess.run([TESTBED / "bed-down"], check=True, capture_output=True)  # twice does no harm
    fresh = Bed.ensure()
    assert fresh.healthy
    assert fresh.host("hpc").run("qstat; qacct -j 1", check=False).returncode != 0


def test_a_lost_cable_is_made_again(bed: Bed):
    recorded = states.load()
    assert recorded is not None
    os.kill(recorded.cables["third"].pid, 9)
    until(lambda: not bed.link("third").alive)
    assert not bed.stands
    bed.repair()
    assert bed.healthy
    ssh = ["ssh", "-F", str(bed.ssh_config), "third", "hostname"]
    assert subprocess.run(ssh, capture_output=True, text=True, check=True).stdout == "third\n"


def test_the_records_are_for_root(bed: Bed):
    assert (layout.STATE / "bed.json").stat().st_mode & 0o777 == 0o600
    look = bed.host("hpc").run(["cat", str(layout.STATE / "bed.json")], check=False)
    assert "Permission denied" in look.stderr


def test_debians_python_alone_is_enough(made_bed: None):
    code = (
        "import sys; sys.path.insert(0, '.'); import dataflow.testing.bed.__main__,"
        " dataflow.testing.bed.cable, dataflow.testing.bed.gate, dataflow.testing.bed.bed"
    )
    subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-c", code], check=True, cwd=Path(__file__).parents[2]
    )


def test_who_is_not_root_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert up.why_not() == "the test bed needs root"
    with pytest.raises(BedError, match="needs root"):
        up.up()
