"""Up and down: bring everything to where it should be, whatever stands already; take all away."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dataflow.testing.bed import environment, gridengine, hosts, links, packages, s3, ssh
from dataflow.testing.bed import state as states
from dataflow.testing.bed.commands import BedError, run, say
from dataflow.testing.bed.layout import BRIDGE, DISK, HOSTS, PRESETS, STATE, USER, HostPlan
from dataflow.testing.bed.state import State, directory


def up(python: Path | None = None) -> None:
    """Make the bed, or mend it; what works is left alone.

    Parameters
    ----------
    python
        The interpreter of the hosts' environment; by default the one of the standing bed, or
        Debian's own.
    """
    _require_root()
    os.umask(0o022)
    with states.lock("change"):
        if packages.ensure():
            say("packages are installed")
        directory(STATE)
        directory(DISK)
        state = states.load()
        if state is None:  # nothing of an earlier boot lives; its disks are of no use
            _clear()
            directory(STATE)
            state = State(secret=secrets.token_hex(20))
        base = python or (Path(state.base) if state.base else environment.DEFAULT_PYTHON)
        installed, prefix = environment.ensure(base)
        state.base, state.python = str(base), str(installed)
        state.save()
        ssh.ensure_user()
        ssh.ensure_keys()
        for plan in HOSTS:
            if "qmaster" in plan.services:
                gridengine.prepare(plan)
        links.ensure_bridge()
        for plan in HOSTS:
            _host(state, plan, prefix)
            _wake(state, plan)
        with ThreadPoolExecutor() as pool:
            for done in [pool.submit(work, state) for work in (_s3, _sshd, _gridengine)]:
                done.result()
        say(f"the bed stands: ssh -F {ssh.CONFIG} hpc")


def down(*, purge: bool = False) -> None:
    """End every host and remove what the bed made; environments and the user only by ``purge``."""
    _require_root()
    with states.lock("change"):
        state = states.load()
        if state is not None:
            for name in list(state.hosts):
                hosts.end(state, name)
            for site in list(state.cables):
                links.end_cable(state, site)
        links.remove_bridge()
        _clear()
        if purge:
            environment.remove()
            if run("id", USER, check=False).returncode == 0:
                run("userdel", "--remove", USER, check=False)
            shutil.rmtree(DISK, ignore_errors=True)
        say("the bed is down")


def _host(state: State, plan: HostPlan, prefix: Path) -> None:
    new = hosts.ensure(state, plan)
    hosts.show_python(state, plan.name, prefix)
    joined = (
        links.ensure_cable(state, plan, PRESETS["default"][plan.site])
        if plan.outside
        else links.ensure_lan(state, plan)
    )
    if new or joined:
        say(f"{plan.name}: {'started' if new else 'joined again'}")


def _wake(state: State, plan: HostPlan) -> None:
    """Let go on what somebody stopped and forgot."""
    for process in hosts.everybody(state, plan.name):
        if process.state == "T":
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.outer, signal.SIGCONT)


def _s3(state: State) -> None:
    for plan in HOSTS:
        if "radosgw" in plan.services and s3.ensure(state, plan):
            say(f"{plan.name}: S3 at {s3.endpoint()}")


def _sshd(state: State) -> None:
    for plan in HOSTS:
        if "sshd" in plan.services:
            if plan.outside is None:
                ssh.ensure_inner_key(plan)
            if ssh.ensure_sshd(state, plan, Path(state.python)):
                say(f"{plan.name}: sshd")


def _gridengine(state: State) -> None:
    for plan in HOSTS:
        if "qmaster" in plan.services:
            if gridengine.ensure_qmaster(state, plan):
                say(f"{plan.name}: qmaster")
            for other in HOSTS:
                if "execd" in other.services and gridengine.ensure_execd(state, other):
                    say(f"{other.name}: execd")
            gridengine.wait_ready(state, plan)


def _clear() -> None:
    """Remove records and disks; only when nothing uses them."""
    for folder in (STATE, DISK / "hosts", DISK / "sites"):
        shutil.rmtree(folder, ignore_errors=True)


def why_not() -> str:
    """Why no bed can be made here without installing anything; empty if it can."""
    if os.geteuid() != 0:
        return "the test bed needs root"
    missing = packages.missing()
    return f"missing: {', '.join(missing)} (make bed installs them)" if missing else ""


def _require_root() -> None:
    if os.geteuid() != 0:
        raise BedError("the test bed makes namespaces and interfaces, which needs root")


def stands() -> bool:
    """Whether a bed of this boot was made and its hosts and links live; a look, no repair."""
    if not Path(f"/sys/class/net/{BRIDGE}").exists():
        return False
    state = states.load()
    return state is not None and all(
        alive is not None and alive.there
        for alive in (
            *(state.hosts.get(plan.name) for plan in HOSTS),
            *(state.cables.get(plan.site) for plan in HOSTS if plan.outside),
        )
    )
