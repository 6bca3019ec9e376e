"""Hosts: namespaces around one process each.

What runs in a host ends with that process, and the rest of it (its interfaces, its mounts) ends with
what runs there.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from dataflow.testing.bed import processes
from dataflow.testing.bed import state as states
from dataflow.testing.bed.commands import ENVIRONMENT, BedError, run, start, wait
from dataflow.testing.bed.layout import CHECKOUT, DISK, STATE, USER, HostPlan, known_to
from dataflow.testing.bed.processes import Process
from dataflow.testing.bed.state import State, directory

#: What runs the bed's own small programs, in hosts and out of them: Debian's, which all can read.
PYTHON = "/usr/bin/python3"
#: The checkout whose code hosts run.
REPOSITORY = Path(__file__).resolve().parents[3]


def pid(state: State, name: str) -> int:
    """Pid 1 of a host, as this machine knows it; BedError if the host is down."""
    alive = state.hosts.get(name)
    if alive is None or not alive.there:
        raise BedError(f"host {name} is down; Bed.repair() or hpc/testbed/bed-up brings it back")
    return alive.pid


def is_up(state: State, name: str) -> bool:
    """Whether the host's pid 1 lives."""
    alive = state.hosts.get(name)
    return alive is not None and alive.there


def folder(name: str) -> Path:
    """What is the host's own on disk."""
    return DISK / "hosts" / name


def site_folder(site: str) -> Path:
    """What the hosts of a site share on disk."""
    return DISK / "sites" / site


def ensure(state: State, plan: HostPlan) -> bool:
    """Start the host unless it is up; whether it was started."""
    if is_up(state, plan.name):
        return False
    own = directory(STATE / "hosts" / plan.name)
    holder = start(
        *("unshare", "--net", "--uts", "--ipc", "--pid", "--mount", "--fork", "--kill-child"),
        # A pid 1 that ignores SIGCHLD reaps whatever its daemons leave behind.
        *("--mount-proc", "env", "--ignore-signal=CHLD", "sleep", "infinity"),
        log=own / "host.log",
    )

    def settled() -> bool:
        return any(_name(child) == "sleep" for child in processes.children(holder))

    wait(f"host {plan.name} starts (see {own}/host.log)", settled, seconds=10, pause=0.005)
    state.holders[plan.name] = states.alive(holder)
    state.hosts[plan.name] = states.alive(processes.children(holder)[0])
    state.save()
    _furnish(state, plan)
    return True


def end(state: State, name: str) -> None:
    """End the host at once, with everything in it."""
    for alive in (state.hosts.pop(name, None), state.holders.pop(name, None)):
        if alive is not None and not processes.end(alive.pid, alive.started):
            raise BedError(f"host {name}: process {alive.pid} does not end")
    state.save()


def argv(
    state: State, name: str, command: str | Sequence[str | Path], *, user: str = "root"
) -> list[str]:
    """The command line that runs ``command`` in a host; a string goes through bash."""
    words = ["bash", "-c", command] if isinstance(command, str) else [str(w) for w in command]
    enter = ["nsenter", "--target", str(pid(state, name)), "--net", "--uts", "--ipc", "--pid"]
    # Who kills nsenter ends what it runs; without this it would go on inside.
    become = ["setpriv", "--pdeathsig", "KILL"]
    if user != "root":
        become += ["--reuid", user, "--regid", user, "--init-groups", "--reset-env"]
    return [*enter, "--mount", "--", *become, "sh", "-c", 'cd "$HOME" && exec "$@"', "-", *words]


def execute(
    state: State,
    name: str,
    command: str | Sequence[str | Path],
    *,
    user: str = "root",
    check: bool = True,
    timeout: float = 60,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` in a host to its end."""
    if environment:
        settings = [f"{key}={value}" for key, value in environment.items()]
        words = ["bash", "-c", command] if isinstance(command, str) else list(command)
        command = ["env", *settings, *words]
    line = argv(state, name, command, user=user)
    return run(*line, check=check, timeout=timeout, stdin=stdin)


def start_daemon(
    state: State, name: str, command: Sequence[str | Path], *, log: str, seconds: float = 60
) -> None:
    """Run what puts itself into the background; its words go to a log of the host."""
    path = STATE / "hosts" / name / log
    with path.open("ab") as output:
        done = subprocess.run(
            argv(state, name, command),
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=seconds,
            env=ENVIRONMENT,
        )
    if done.returncode:
        tail = path.read_text(errors="replace").splitlines()[-5:]
        raise BedError(f"{name}: {command[0]} failed ({path}):\n" + "\n".join(tail))


def everybody(state: State, name: str) -> list[Process]:
    """The processes of a host but its pid 1; none if the host is down."""
    alive = state.hosts.get(name)
    if alive is None or not alive.there:
        return []
    return [process for process in processes.within(alive.pid) if process.pid != 1]


def show_python(state: State, name: str, prefix: Path) -> None:
    """Let the host's ordinary user read an interpreter that lives in somebody's closed home.

    The home is covered by an empty one that anybody may enter, and the interpreter appears in it at
    its own path.
    """
    closed = next(
        (
            folder
            for folder in reversed((prefix, *prefix.parents))
            if not folder.stat().st_mode & 0o001
        ),
        None,
    )
    if closed is None:
        return
    if _inside(state, name, prefix / "bin").is_dir() and _open(state, name, closed):
        return
    kept = folder(name) / "covered" / str(closed).strip("/").replace("/", "-")
    script = (
        'if [ "$(stat -f -c %T "$2")" != tmpfs ]; then mkdir -p "$3"; mount --bind "$2" "$3"; '
        'mount -t tmpfs -o mode=755,size=1m tmpfs "$2"; fi; mkdir -p "$1"; '
        'mount --bind "$3/$4" "$1"; mount -o remount,bind,ro "$1"'
    )
    words = [prefix, closed, kept, prefix.relative_to(closed)]
    execute(state, name, ["sh", "-ec", script, "-", *words])


def _open(state: State, name: str, closed: Path) -> bool:
    return bool(_inside(state, name, closed).stat().st_mode & 0o001)


def _inside(state: State, name: str, path: Path) -> Path:
    """How this machine names a path of the host."""
    return Path(f"/proc/{pid(state, name)}/root{path}")


def _furnish(state: State, plan: HostPlan) -> None:
    """Give a new host its name, its disks, its own /etc and /tmp, and the checkout to read."""
    own = directory(folder(plan.name))
    directory(own / "tmp", mode=0o1777)
    home = directory(site_folder(plan.site) / "home", mode=0o700)
    shutil.chown(home, USER, USER)
    directory(CHECKOUT)
    mounts = [
        f'mount --bind "{REPOSITORY}" "{CHECKOUT}" && mount -o remount,bind,ro "{CHECKOUT}"',
        f'mount --bind "{home}" "/home/{USER}"',
        f'mount --bind "{own}/tmp" /tmp',
        # Shared memory of one host is none of another's.
        "mount -t tmpfs -o mode=1777 tmpfs /dev/shm",
    ]
    shared = site_folder(plan.site) / "gridengine"
    if shared.is_dir():
        directory(own / "gridengine")
        shutil.chown(own / "gridengine", "sgeadmin", "sgeadmin")
        mounts += [
            f'mount --bind "{shared}/lib" /var/lib/gridengine',
            f'mount --bind "{shared}/spool" /var/spool/gridengine',
            f'mkdir -p /run/gridengine && mount --bind "{own}/gridengine" /run/gridengine',
        ]
    script = "\n".join([f"hostname {plan.name}", "ip link set lo up", _etc(plan), *mounts])
    execute(state, plan.name, ["sh", "-ec", script])


def _etc(plan: HostPlan) -> str:
    """A script that lays a host's own files over /etc; what it writes there stays its own.

    Its names are the only ones that the host knows, and nobody is asked for others. ``ld.so.preload``
    stands ready for the day its clock is wrong.
    """
    names = ["127.0.0.1 localhost"]
    names += [f"{address} {name}" for name, address in known_to(plan).items()]
    listed = "\n".join(names)
    return f"""
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/upper /mnt/work
mount -t overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work overlay /etc
umount --lazy /mnt
rm -f /etc/resolv.conf
touch /etc/resolv.conf /etc/ld.so.preload
echo {plan.name} > /etc/hostname
echo "{listed}" > /etc/hosts
[ ! -f /etc/nsswitch.conf ] || sed -i /^hosts:/d /etc/nsswitch.conf
echo "hosts: files" >> /etc/nsswitch.conf
"""


def _name(number: int) -> str:
    try:
        return Path(f"/proc/{number}/comm").read_text().strip()
    except OSError:
        return ""
