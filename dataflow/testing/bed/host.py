"""Host: what a test does with one host of the bed, and to it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataflow.testing.bed import gridengine, hosts, links, s3, ssh
from dataflow.testing.bed.commands import ENVIRONMENT, BedError, run, wait
from dataflow.testing.bed.layout import DISK, USER, HostPlan
from dataflow.testing.bed.processes import Process, is_alive, start_time
from dataflow.testing.bed.state import State

#: The name under which small disks stand in the list of mounts.
_SMALL_DISK = "bed-disk"
_CLOCK_SOURCE = Path(__file__).with_name("clock.c")
_CLOCK = DISK / "clock.so"


class Host:
    """One host of the bed. Nothing is kept here: every question is put to the machine."""

    def __init__(self, state: State, plan: HostPlan) -> None:
        self._state = state
        self.plan = plan
        self.name = plan.name

    def __repr__(self) -> str:
        return f"<Host {self.name} {'up' if self.up else 'down'}>"

    @property
    def up(self) -> bool:
        """Whether it runs at all; its daemons may not."""
        return hosts.is_up(self._state, self.name)

    # --- programs ------------------------------------------------------------------------------

    def run(
        self,
        command: str | Sequence[str | Path],
        *,
        user: str = USER,
        check: bool = True,
        timeout: float = 60,
        stdin: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the host to its end, from the user's home directory.

        Not by way of any network: it works while the host's link is cut.

        Parameters
        ----------
        command
            Words, or a line for bash.
        user
            ``"root"``, or the ordinary user that ssh knows.
        check
            Raise :class:`BedError`, with what was said, unless it ends with 0.
        timeout
            Seconds; then it is killed and BedError raised.
        """
        return hosts.execute(
            self._state,
            self.name,
            command,
            user=user,
            check=check,
            timeout=timeout,
            stdin=stdin,
            environment=environment,
        )

    def start(
        self, command: str | Sequence[str | Path], *, user: str = USER
    ) -> subprocess.Popen[str]:
        """Start a program in the host; the caller reads its output and ends it.

        Killing what is returned kills the program in the host.
        """
        return subprocess.Popen(
            hosts.argv(self._state, self.name, command, user=user),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=ENVIRONMENT,
        )

    def processes(self, *, user: str | None = None) -> list[Process]:
        """What runs in the host, in the order of birth; that user's alone if one is named."""
        found = hosts.everybody(self._state, self.name)
        if user is None:
            return found
        uid = int(run("id", "--user", user).stdout)
        return [process for process in found if process.uid == uid]

    # --- faults --------------------------------------------------------------------------------

    def end(self, pid: int, number: int = signal.SIGKILL) -> None:
        """Signal the process that the host knows as ``pid``; KeyError if there is none."""
        os.kill(self._outer(pid), number)

    def pause(self, *pids: int) -> None:
        """Stop these processes where they stand, all of the host's if none is named: a hang.

        Connections stay, and nobody answers. Processes that are born meanwhile are stopped too.
        """
        stopped: set[int] = set()
        while True:
            chosen = [
                process.outer
                for process in self.processes()
                if (not pids or process.pid in pids) and process.outer not in stopped
            ]
            if not chosen:
                return
            for outer in chosen:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(outer, signal.SIGSTOP)
            stopped.update(chosen)

    def resume(self, *pids: int) -> None:
        """Let these processes go on, all that were stopped if none is named."""
        for process in self.processes():
            if process.pid in pids or (not pids and process.state == "T"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.outer, signal.SIGCONT)

    def kill(self) -> None:
        """End the host at once, with everything in it, as a power cut would.

        Nobody is told: the network goes before the programs could say goodbye. Disks keep what was
        written. :meth:`Bed.repair` starts it again.
        """
        links.unplug(self._state, self.plan)
        hosts.end(self._state, self.name)

    def daemon(self, name: str) -> Daemon:
        """One of the host's daemons: sshd, qmaster, execd, radosgw or gate."""
        if name not in self.plan.services:
            there = ", ".join(self.plan.services) or "none"
            raise KeyError(f"{self.name} has no daemon {name!r}; it has {there}")
        return Daemon(self._state, self, name)

    @contextlib.contextmanager
    def disk(self, path: str | Path, nbytes: int, *, user: str = USER) -> Iterator[Disk]:
        """A disk of that size at ``path`` of this host, as long as the context lasts.

        All programs of the host see it, none of other hosts does. What was there before is hidden
        meanwhile; what is written is gone afterwards.
        """
        self.run(["mkdir", "-p", path], user="root")
        options = f"size={nbytes},mode=755,uid={user},gid={user}"
        self.run(["mount", "-t", "tmpfs", "-o", options, _SMALL_DISK, path], user="root")
        try:
            yield Disk(self, Path(path))
        finally:
            if self.up:
                self.run(["umount", "--lazy", path], user="root", check=False)

    def clock(self, seconds: float) -> None:
        """Make the host's time of day wrong by so much; 0 makes it right.

        It holds for programs that start from now on (sessions, batch jobs), not for those that run.
        Monotonic clocks and the times of files stay right.
        """
        if not _CLOCK.exists():
            fresh = _CLOCK.with_suffix(".new")
            run("tcc", "-shared", "-fPIC", "-o", fresh, _CLOCK_SOURCE)
            fresh.chmod(0o755)
            fresh.replace(_CLOCK)
        etc = self._etc
        (etc / "clock-offset").write_text(f"{seconds!r}\n")
        (etc / "ld.so.preload").write_text(f"{_CLOCK}\n" if seconds else "")

    def restore(self) -> None:
        """Undo what can be undone without starting anything: hangs, small disks, the clock."""
        if not self.up:
            return
        self.resume()
        mounts = Path(f"/proc/{hosts.pid(self._state, self.name)}/mounts").read_text()
        for line in mounts.splitlines():
            source, path = line.split()[:2]
            if source == _SMALL_DISK:
                self.run(["umount", "--lazy", path], user="root")
        if (self._etc / "ld.so.preload").read_text():
            self.clock(0)

    @property
    def _etc(self) -> Path:
        return Path(f"/proc/{hosts.pid(self._state, self.name)}/root/etc")

    def _outer(self, pid: int) -> int:
        for process in self.processes():
            if process.pid == pid:
                return process.outer
        raise KeyError(f"{self.name} has no process {pid}")


@dataclass(frozen=True, slots=True)
class Daemon:
    """One daemon of a host."""

    _state: State
    host: Host
    name: str

    @property
    def process(self) -> Process | None:
        """Its process, None if it does not run."""
        match self.name:
            case "sshd":
                return ssh.listener(self._state, self.host.name)
            case "gate":
                return s3.gate(self._state, self.host.name)
            case "radosgw":
                return gridengine.daemon(self._state, self.host.name, "radosgw")
            case _:
                return gridengine.daemon(self._state, self.host.name, f"sge_{self.name}")

    @property
    def up(self) -> bool:
        """Whether it runs, or hangs."""
        return self.process is not None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End it and wait until it is gone; sessions or jobs that it started go on.

        :meth:`Bed.repair` starts it again.
        """
        process = self._found()
        started = start_time(process.outer)
        os.kill(process.outer, number)
        wait(
            f"the end of {self.name} on {self.host.name}",
            lambda: started is None or not is_alive(process.outer, started),
            seconds=30,
            pause=0.01,
        )

    def hang(self) -> None:
        """Stop it where it stands; :meth:`resume` lets it go on."""
        self.host.pause(self._found().pid)

    def resume(self) -> None:
        """Let it go on."""
        self.host.resume(self._found().pid)

    def _found(self) -> Process:
        process = self.process
        if process is None:
            raise BedError(f"{self.name} does not run on {self.host.name}; Bed.repair() starts it")
        return process


@dataclass(frozen=True, slots=True)
class Disk:
    """A small disk of a host."""

    host: Host
    path: Path

    @property
    def free(self) -> int:
        """Bytes that can still be written."""
        command: list[str | Path] = ["df", "--block-size=1", "--output=avail", self.path]
        return int(self.host.run(command, user="root").stdout.split()[-1])

    def fill(self, *, leave: int = 0) -> None:
        """Take all of the room but ``leave`` bytes; call again to change that."""
        ballast = self.path / ".ballast"
        self.host.run(["rm", "-f", ballast], user="root")
        nbytes = self.free - leave
        if nbytes > 0:
            self.host.run(["fallocate", "-l", str(nbytes), ballast], user="root")
