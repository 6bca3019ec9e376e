"""Workers: whether what grants them is there and lets us ask."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from importlib.util import find_spec

import psutil

from dataflow.backends import commands
from dataflow.client.ssh import SshReach
from dataflow.config import Federation
from dataflow.config.backend_records import Batch, JobQueue, Sge, SshHosts
from dataflow.config.kubernetes import KubernetesSettings
from dataflow.config.records import SshAccess
from dataflow.errors import SiteError
from dataflow.session.doctor import judge
from dataflow.session.doctor.checks import (
    Check,
    Finding,
    Notes,
    bounded,
    failed,
    from_error,
    ok,
    warning,
)
from dataflow.session.doctor.sites import SSH_SECONDS, login, looked_there
from dataflow.versions import versions

#: Seconds for a command of a batch system; for all about workers.
COMMAND_SECONDS, WORKERS_SECONDS = 5.0, 20.0

#: What each batch system submits and cancels with.
_COMMANDS = {
    "sge": ("qsub", "qstat", "qdel"),
    "pbs": ("qsub", "qdel"),
    "slurm": ("sbatch", "scancel"),
    "lsf": ("bsub", "bkill"),
    "htcondor": ("condor_submit", "condor_rm"),
}

#: Package that a kind of workers needs, and the extra of ours that brings it.
_PACKAGES = {
    "sge": ("dask_jobqueue", "sge"),
    "jobqueue": ("dask_jobqueue", "sge"),
    "kubernetes": ("kr8s", "kubernetes"),
    "ssh": ("asyncssh", "ssh"),
}


async def examine_workers(federation: Federation) -> list[Check]:
    """All checks of how our own site gets its workers; nothing if it has no site."""
    backend = federation.backend
    if federation.me is None:
        return []
    settings = backend.settings
    if isinstance(settings, SshHosts) and find_spec("asyncssh") is not None:
        found = await asyncio.gather(*(_host(host, settings) for host in settings.hosts))
        return [check for checks in found for check in checks]

    async def look(notes: Notes) -> None:
        if not _installed(backend.kind, notes):
            return
        if backend.kind == "local":
            _machine(federation, notes)
        elif isinstance(settings, KubernetesSettings):
            await _kubernetes(federation.me or "", settings, notes)
        elif backend.kind in ("sge", "jobqueue"):
            await _batch(settings or Sge(), notes)

    return await bounded(f"workers ({backend.kind})", look, seconds=WORKERS_SECONDS)


def _installed(kind: str, notes: Notes) -> bool:
    package, extra = _PACKAGES.get(kind, ("", ""))
    if not package or find_spec(package) is not None:
        return True
    advice = f"pip install 'jupyter-dataflow[{extra}]'"
    return notes.add("package", failed(f"{package} is not installed here", advice))


def _machine(federation: Federation, notes: Notes) -> None:
    own = federation.backend
    total = psutil.virtual_memory().total
    notes.add("memory", judge.memory(own.workers, own.memory, total))
    notes.add("threads", judge.threads(own.workers, own.threads, os.cpu_count() or 1))


# --- batch systems --------------------------------------------------------------------------------


async def _batch(settings: Batch, notes: Notes) -> None:
    system = settings.system if isinstance(settings, JobQueue) else "sge"
    commands = _COMMANDS[system]
    missing = [command for command in commands if shutil.which(command) is None]
    if missing:
        said = f"{' and '.join(missing)} cannot be found"
        advice = f"run this on a host that may submit to {system}, with its commands on PATH"
        notes.add("commands", failed(said, advice))
        return
    notes.add("commands", ok(f"{', '.join(commands)} are there"))
    if not isinstance(settings, Sge):
        return
    notes.begin("answers")
    code, said = await _said("qstat")
    if code:
        advice = "is its qmaster up, and is this a submit host? (qconf -ss lists those)"
        notes.end(failed(f"qstat says: {_last(said)}", advice))
        return
    notes.end(ok("qstat answers"))
    if settings.queue:
        await _known("queue", settings.queue, "-sql", notes)
    if settings.parallel_environment:
        await _known("parallel environment", settings.parallel_environment, "-spl", notes)


async def _known(what: str, wanted: str, option: str, notes: Notes) -> None:
    """Check that Grid Engine lists what the site file names."""
    notes.begin(what)
    code, said = await _said("qconf", option)
    if code:
        notes.end(
            warning(f"qconf says: {_last(said)}", f"have somebody look whether {wanted} exists")
        )
        return
    listed = said.split()
    missing = [name for name in wanted.split(",") if name.partition("@")[0] not in listed]
    if missing:
        advice = f"mend it in the site file; there are {', '.join(listed) or 'none'}"
        notes.end(failed(f"there is no {what} {', '.join(missing)}", advice))
    else:
        notes.end(ok(wanted))


async def _said(*command: str) -> tuple[int, str]:
    """Exit status and words of a command; 127 if it cannot be run or takes too long."""
    try:
        status, out, err = await commands.said(*command, seconds=COMMAND_SECONDS)
    except TimeoutError:
        return 127, f"nothing within {COMMAND_SECONDS:g} s"
    except OSError as error:
        return 127, f"{command[0]}: {error.strerror}"
    return status, f"{out}{err}".strip()


def _last(text: str) -> str:
    return (text.splitlines() or ["nothing"])[-1]


# --- Kubernetes -----------------------------------------------------------------------------------


async def _kubernetes(site: str, settings: KubernetesSettings, notes: Notes) -> None:
    from dataflow.backends.kubernetes_api import KubernetesApi
    from dataflow.backends.surroundings import read_surroundings

    notes.begin("namespace")
    account = read_surroundings(os.environ).service_account
    try:
        api = await KubernetesApi.connect(site, settings, service_account=account)
    except SiteError as error:
        advice = f"try kubectl get jobs -n {settings.namespace} with the same kubeconfig"
        notes.end(from_error(error, advice))
        return
    host, port = api.server
    await api.close()
    notes.end(ok(f"{settings.namespace} at {host}:{port}: jobs may be listed"))


# --- hosts ----------------------------------------------------------------------------------------


async def _host(host: str, settings: SshHosts) -> list[Check]:
    async def look(notes: Notes) -> None:
        access = SshAccess(config=settings.config, known_hosts=settings.known_hosts)
        reach = SshReach(host, f"ssh://{host}", access)
        try:
            if not await login(reach, notes):
                return
            found = await looked_there(reach, settings.python or sys.executable, notes)
            if found is not None:
                notes.add("versions", _fit(found.versions, host))
        finally:
            await reach.close()

    return await bounded(f"workers (ssh) {host}", look, seconds=2 * SSH_SECONDS)


def _fit(theirs: dict[str, str], host: str) -> Finding:
    return judge.agreement(versions(), theirs, host)
