"""Grid Engine: one qmaster, an execd on each inner host of the site, one queue."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from dataflow.testing.bed import hosts
from dataflow.testing.bed.commands import BedError, run, wait
from dataflow.testing.bed.layout import HOSTS, QUEUE, SLOTS, HostPlan
from dataflow.testing.bed.processes import Process
from dataflow.testing.bed.state import State, directory

#: Setting of the whole cluster or of its scheduler → what it becomes; by default everything waits
#: for a quarter of a minute somewhere.
_GLOBAL = {
    "mailer": "/bin/true",
    "administrator_mail": "none",
    "load_report_time": "00:00:05",
    "max_unheard": "00:01:00",
    "shell_start_mode": "unix_behavior",
}
_SCHEDULER = {"schedule_interval": "0:0:2", "flush_submit_sec": "1", "flush_finish_sec": "1"}

_HOST_GROUP = "group_name @allhosts\nhostlist {hosts}\n"
_PARALLEL = """\
pe_name            smp
slots              999
user_lists         NONE
xuser_lists        NONE
start_proc_args    NONE
stop_proc_args     NONE
allocation_rule    $pe_slots
control_slaves     FALSE
job_is_first_task  TRUE
urgency_slots      min
accounting_summary FALSE
qsort_args         NONE
"""
# Without a threshold of load: two hosts on one busy machine both report all of its load.
_QUEUE = """\
qname                 {queue}
hostlist              @allhosts
seq_no                0
load_thresholds       NONE
suspend_thresholds    NONE
nsuspend              1
suspend_interval      00:05:00
priority              0
min_cpu_interval      00:05:00
processors            UNDEFINED
qtype                 BATCH INTERACTIVE
ckpt_list             NONE
pe_list               smp
rerun                 FALSE
slots                 {slots}
tmpdir                /tmp
shell                 /bin/bash
prolog                NONE
epilog                NONE
shell_start_mode      unix_behavior
starter_method        NONE
suspend_method        NONE
resume_method         NONE
terminate_method      NONE
notify                00:00:60
owner_list            NONE
user_lists            NONE
xuser_lists           NONE
subordinate_list      NONE
complex_values        NONE
projects              NONE
xprojects             NONE
calendar              NONE
initial_state         default
s_rt                  INFINITY
h_rt                  INFINITY
s_cpu                 INFINITY
h_cpu                 INFINITY
s_fsize               INFINITY
h_fsize               INFINITY
s_data                INFINITY
h_data                INFINITY
s_stack               INFINITY
h_stack               INFINITY
s_core                INFINITY
h_core                INFINITY
s_rss                 INFINITY
h_rss                 INFINITY
s_vmem                INFINITY
h_vmem                INFINITY
"""


def prepare(plan: HostPlan) -> None:
    """A cluster of the site's own, copied from what the packages made; nothing outside is written."""
    folder = hosts.site_folder(plan.site) / "gridengine"
    if folder.exists():
        return
    directory(folder.parent)
    fresh = directory(folder.with_suffix(".new"))
    run("cp", "--archive", "/var/lib/gridengine", fresh / "lib")
    run("cp", "--archive", "/var/spool/gridengine", fresh / "spool")
    (fresh / "lib/default/common/act_qmaster").write_text(f"{plan.name}\n")
    fresh.rename(folder)


def daemon(state: State, name: str, program: str) -> Process | None:
    """``sge_qmaster`` or ``sge_execd`` of a host, if it runs; not the shepherds it left behind."""
    for process in hosts.everybody(state, name):
        if process.name == program:
            return process
    return None


def ensure_qmaster(state: State, plan: HostPlan) -> bool:
    """Start and configure the qmaster unless it runs; whether it was started."""
    folder = hosts.site_folder(plan.site) / "gridengine"
    started = daemon(state, plan.name, "sge_qmaster") is None
    if started:
        hosts.start_daemon(
            state, plan.name, ["/etc/init.d/gridengine-master", "start"], log="sge.log"
        )
        wait("the qmaster answers", lambda: _answers(state, plan.name), seconds=60, pause=0.1)
    if not (folder / ".configured").exists():
        _configure(state, plan, folder)
        (folder / ".configured").touch()
    return started


def ensure_execd(state: State, plan: HostPlan) -> bool:
    """Start the execd unless it runs; whether it was started."""
    if daemon(state, plan.name, "sge_execd") is not None:
        return False
    hosts.start_daemon(state, plan.name, ["/etc/init.d/gridengine-exec", "start"], log="sge.log")
    return True


def wait_ready(state: State, plan: HostPlan, *, seconds: float = 90.0) -> None:
    """Wait until the queue takes jobs on every host.

    After the end of a qmaster its execds need up to 30 s to report again.
    """
    names = [other.name for other in HOSTS if "execd" in other.services]
    wait(
        f"queue instances on {', '.join(names)}",
        lambda: all(ready(state, plan, name) for name in names),
        seconds=seconds,
        pause=0.1,
    )


def ready(state: State, plan: HostPlan, name: str) -> bool:
    """Whether the queue takes jobs on the host of that name."""
    try:
        done = hosts.execute(state, plan.name, ["qstat", "-f"], check=False, timeout=10)
    except BedError:
        return False
    for line in done.stdout.splitlines():
        words = line.split()
        if words and words[0] == f"{QUEUE}@{name}":
            # queue, type, slots, load, architecture, and only then states, if it has any
            return len(words) == 5 and words[3] != "-NA-"
    return False


def _answers(state: State, name: str) -> bool:
    return hosts.execute(state, name, ["qconf", "-sh"], check=False, timeout=10).returncode == 0


def _configure(state: State, plan: HostPlan, folder: Path) -> None:
    scratch = directory(folder / "configuration")

    def qconf(*words: str | Path) -> str:
        return hosts.execute(state, plan.name, ["qconf", *words]).stdout

    execution = [other.name for other in HOSTS if "execd" in other.services]
    changed = _changed(qconf("-sconf", "global"), _GLOBAL)
    # One second instead of fifteen until an ended job can be seen by qacct.
    changed = re.sub(r"flush_time=[0-9:]+", "flush_time=00:00:01", changed)
    (scratch / "global").write_text(changed)
    qconf("-Mconf", scratch / "global")
    (scratch / "scheduler").write_text(_changed(qconf("-ssconf"), _SCHEDULER))
    qconf("-Msconf", scratch / "scheduler")
    qconf("-as", plan.name)
    qconf("-ah", ",".join(execution))
    (scratch / "hosts").write_text(_HOST_GROUP.format(hosts=" ".join(execution)))
    qconf("-Ahgrp", scratch / "hosts")
    (scratch / "parallel").write_text(_PARALLEL)
    qconf("-Ap", scratch / "parallel")
    (scratch / "queue").write_text(_QUEUE.format(queue=QUEUE, slots=SLOTS))
    qconf("-Aq", scratch / "queue")
    shutil.rmtree(scratch)


def _changed(text: str, settings: dict[str, str]) -> str:
    """Configuration lines with some values replaced; those that were not there come last."""
    left = dict(settings)
    lines = []
    for line in text.splitlines():
        name = line.split()[0] if line.split() else ""
        if not line.startswith("#"):
            lines.append(f"{name} {left.pop(name)}" if name in left else line)
    return "\n".join([*lines, *(f"{name} {value}" for name, value in left.items())]) + "\n"
