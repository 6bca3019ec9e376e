"""S3: a real radosgw inside its own host, on that host's loopback, behind a gate that can misbehave."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from dataflow.testing.bed import control, hosts
from dataflow.testing.bed.commands import ENVIRONMENT, BedError, wait
from dataflow.testing.bed.layout import CHECKOUT, RGW_PORT, S3_PORT, STATE, HostPlan, host
from dataflow.testing.bed.processes import Process
from dataflow.testing.bed.state import State

ACCESS_KEY = "flowlab"
#: Bytes that all objects together may take; they lie in memory.
_SIZE = 4 * 2**30
_SCRIPT = CHECKOUT / "hpc" / "minio" / "radosgw.sh"
_DAEMONS = ("ceph-mon", "ceph-osd", "radosgw")


def endpoint() -> str:
    """The URL that clients are given."""
    return f"http://{host('cloud').outside}:{S3_PORT}"


def gate_socket() -> Path:
    """Where the gate is told what to do."""
    return STATE / "hosts" / "cloud" / "gate.sock"


def ensure(state: State, plan: HostPlan) -> bool:
    """Start what does not run; whether anything was started.

    Objects survive the end of radosgw and of the gate, not that of the others: they lie in memory.
    """
    folder = hosts.folder(plan.name) / "ceph"
    there = {process.name for process in hosts.everybody(state, plan.name)}
    started = False
    if not {"ceph-mon", "ceph-osd"} <= there or not (folder / ".made").exists():
        for process in hosts.everybody(state, plan.name):
            if process.name in _DAEMONS:
                hosts.execute(state, plan.name, ["kill", "-KILL", str(process.pid)], check=False)
        shutil.rmtree(folder, ignore_errors=True)
        _script(state, plan, folder)
        (folder / ".made").touch()
        started = True
    elif "radosgw" not in there:
        command: list[str | Path] = ["radosgw", "-c", folder / "ceph.conf", "-n", "client.rgw.a"]
        hosts.start_daemon(state, plan.name, command, log="s3.log")
        started = True
    if gate(state, plan.name) is None:
        _start_gate(state, plan)
        started = True
    wait("the S3 server answers", lambda: _answers(state, plan.name), seconds=60, pause=0.1)
    return started


def gate(state: State, name: str) -> Process | None:
    """The gate's process, if it runs."""
    for process in hosts.everybody(state, name):
        if "gate.py" in process.command:
            return process
    return None


def _script(state: State, plan: HostPlan, folder: Path) -> None:
    command = ["env", "STORE=memstore", f"SIZE={_SIZE}", str(_SCRIPT), "start"]
    command += [str(folder), str(RGW_PORT), ACCESS_KEY, state.secret]
    hosts.start_daemon(state, plan.name, command, log="s3.log", seconds=120)


def _start_gate(state: State, plan: HostPlan) -> None:
    own = STATE / "hosts" / plan.name
    gate_socket().unlink(missing_ok=True)
    program = CHECKOUT / "dataflow/testing/bed/gate.py"
    words: list[str | Path] = [hosts.PYTHON, "-I", program, f"{plan.outside}:{S3_PORT}"]
    words += [f"127.0.0.1:{RGW_PORT}", gate_socket()]
    with (own / "gate.log").open("ab") as log:
        process = subprocess.Popen(
            # No word to kill it with whoever started it: it stays.
            [
                word
                for word in hosts.argv(state, plan.name, words)
                if word not in ("--pdeathsig", "KILL")
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=ENVIRONMENT,
        )
    process.returncode = 0
    wait(f"the gate listens (see {own}/gate.log)", _gate_answers, seconds=10, pause=0.02)


def _gate_answers() -> bool:
    try:
        control.ask(gate_socket(), {})
    except OSError:
        return False
    return True


def _answers(state: State, name: str) -> bool:
    command = ["curl", "-s", "-o", "/dev/null", "--max-time", "2", f"http://127.0.0.1:{RGW_PORT}/"]
    try:
        return hosts.execute(state, name, command, check=False, timeout=10).returncode == 0
    except BedError:
        return False
