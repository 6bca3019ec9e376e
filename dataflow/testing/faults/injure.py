"""Injuries: what each kind of fault is for each part, done to the bed, and how it is undone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

from dataflow.testing.bed import Host
from dataflow.testing.bed.commands import run
from dataflow.testing.bed.layout import BRIDGE
from dataflow.testing.faults.cells import Cell
from dataflow.testing.faults.scene import Scene

Undo = Callable[[], None]

#: Execution hosts of ``hpc``.
HOSTS = ("hpc-n1", "hpc-n2")
#: A slow process runs for so long (s), and stands still for so long, in turn.
_RUNS, _STANDS = 0.02, 0.18
#: Bytes per second of a slow S3 server.
_SLOW_S3 = 400e3
#: A bucket of tokens into which no frame fits: everything is lost without a word.
_NOTHING = ["tbf", "rate", "8bit", "burst", "40", "latency", "1ms"]


def injure(scene: Scene, cell: Cell, where: tuple[str, int] | None) -> Undo:
    """Do it; what undoes it.

    Parameters
    ----------
    where
        Host and number of the worker that runs the job's step, once there is one.
    """
    bed = scene.bed
    match cell.part:
        case "worker":
            assert where is not None
            name, pid = where
            if cell.kind == "cut":
                return _reset(bed.host(name), pid)
            return _process(cell.kind, bed.host(name), [pid])
        case "host":
            return _host(scene, cell.kind, where[0] if where else HOSTS[0])
        case "qmaster":
            if cell.kind == "cut":
                return _off_the_lan(scene, HOSTS)
            process = bed.host("hpc").daemon("qmaster").process
            assert process is not None
            return _process(cell.kind, bed.host("hpc"), [process.pid])
        case "agent" | "coordinator":
            name = "hpc" if cell.part == "agent" else str(scene.kept_by)
            if cell.kind == "cut":
                bed.link(name).cut()
                return bed.link(name).heal
            agent = scene.agent(name)
            assert agent is not None, f"no agent runs at {name}"
            return _process(cell.kind, bed.host(name), [agent])
        case "kernel":
            return _kernel(scene, cell.kind)
        case "sshd":
            return _sshd(bed.host("hpc"), cell.kind)
        case _:
            return _s3(scene, cell.kind)


def _process(kind: str, host: Host, pids: Sequence[int]) -> Undo:
    if kind == "kill":
        for pid in pids:
            host.end(pid, signal.SIGKILL)
        return _nothing
    if kind == "hang":
        host.pause(*pids)
        return lambda: host.resume(*pids)
    return _throttled([p.outer for p in host.processes() if p.pid in pids])


def _reset(host: Host, pid: int) -> Undo:
    """End all connections of one process, as a firewall that forgot them would."""
    for line in host.run(["ss", "-Htnp"], user="root").stdout.splitlines():
        if f"pid={pid}," in line:
            local, there = line.split()[3:5]
            words = ["ss", "-K", "-tn", "src", local, "dst", there]
            host.run(words, user="root", check=False)
    return _nothing


def _host(scene: Scene, kind: str, name: str) -> Undo:
    host = scene.bed.host(name)
    if kind == "kill":
        host.kill()
        return _nothing
    if kind == "hang":
        host.pause()
        return host.resume
    if kind == "cut":
        return _off_the_lan(scene, [name])
    return _throttled([process.outer for process in host.processes()[1:]])


def _off_the_lan(scene: Scene, names: Sequence[str]) -> Undo:
    door = scene.bed.host("hpc")
    for name in names:
        door.run(["ip", "link", "set", f"p-{name}", "nomaster"], user="root")

    def undo() -> None:
        for name in names:
            words = ["ip", "link", "set", f"p-{name}", "master", "lan0"]
            door.run(words, user="root", check=False)

    return undo


def _kernel(scene: Scene, kind: str) -> Undo:
    pid = scene.kernel.process.pid
    if kind == "kill":
        scene.kernel.end(signal.SIGKILL)
        return _nothing
    if kind == "hang":
        os.kill(pid, signal.SIGSTOP)
        return lambda: os.kill(pid, signal.SIGCONT)
    if kind == "cut":
        run("tc", "qdisc", "add", "dev", BRIDGE, "root", *_NOTHING)
        return lambda: _said(run("tc", "qdisc", "del", "dev", BRIDGE, "root", check=False))
    return _throttled([pid])


def _sshd(host: Host, kind: str) -> Undo:
    sshd = [process for process in host.processes() if process.name.startswith("sshd")]
    daemon = host.daemon("sshd").process
    assert daemon is not None
    sessions = [process.pid for process in sshd if process.pid != daemon.pid]
    if kind == "cut":
        for pid in sessions:
            with contextlib.suppress(KeyError, ProcessLookupError):
                host.end(pid, signal.SIGKILL)
        return _nothing
    with contextlib.suppress(KeyError, ProcessLookupError):
        return _process(kind, host, [daemon.pid, *sessions])
    return _nothing


def _s3(scene: Scene, kind: str) -> Undo:
    bed = scene.bed
    if kind == "cut":
        bed.link("cloud").cut()
        return bed.link("cloud").heal
    if kind == "slow":
        bed.s3.slow(_SLOW_S3)
        return lambda: bed.s3.slow(0.0)
    process = bed.host("cloud").daemon("radosgw").process
    assert process is not None
    return _process(kind, bed.host("cloud"), [process.pid])


def _throttled(pids: Sequence[int]) -> Undo:
    """Let processes run a tenth of the time."""
    done = threading.Event()

    def signal_all(number: int) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def slow() -> None:
        while not done.is_set():
            signal_all(signal.SIGSTOP)
            time.sleep(_STANDS)
            signal_all(signal.SIGCONT)
            time.sleep(_RUNS)

    thread = threading.Thread(target=slow, daemon=True)
    thread.start()

    def undo() -> None:
        done.set()
        thread.join()
        signal_all(signal.SIGCONT)

    return undo


def _nothing() -> None:
    """What was ended is started by :meth:`Bed.repair`, or by the toolkit itself."""


def _said(_: subprocess.CompletedProcess[str]) -> None:
    """What the command said does not matter."""
