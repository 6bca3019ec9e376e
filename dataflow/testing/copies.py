"""Copies: agents that are forked from one process which has imported what agents need.

An agent that starts afresh imports for seconds, and so do its workers. For tests that start a hundred of
them there is one process that imports and does nothing else: :class:`Copies` has it forked. A copy has its
own session, folder, environment and log, and runs the command ``dataflow`` as if it had been typed; its
workers are copies as well (:mod:`dataflow.backends.forking`). What a copy does not have is an environment
that others can read: the kernel shows what the process started with that it was forked from.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import arbitrary_address  # type: ignore[attr-defined]
from pathlib import Path
from typing import Any, Self

import psutil

#: Dask's setting for how worker processes come about.
METHOD = "DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD"


class Copy:
    """A process that was forked for us, as :class:`subprocess.Popen` shows those that we started.

    It is nobody's child here, so how it ended is not known.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        try:
            self._process: psutil.Process | None = psutil.Process(pid)
        except psutil.NoSuchProcess:
            self._process = None

    def poll(self) -> int | None:
        """0 if it has ended, ``None`` while it runs."""
        if self._process is None or not self._process.is_running():
            self.returncode = 0
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended.

        Raises
        ------
        subprocess.TimeoutExpired
            If it runs for longer than ``timeout`` seconds.
        """
        if self._process is not None:
            try:
                self._process.wait(timeout)
            except psutil.TimeoutExpired:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0) from None
        self.returncode = 0
        return 0

    def terminate(self) -> None:
        """SIGTERM."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._process.send_signal(number)


class Copies:
    """The process that is copied: started with the first copy that is asked for, it ends with this one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def start(
        self, words: tuple[str, ...], *, cwd: Path, environment: Mapping[str, str], log: Path
    ) -> Copy:
        """``dataflow WORDS`` in a copy, with everything it prints at the end of a file.

        Raises
        ------
        RuntimeError
            If the process that is copied ends twice.
        """
        asked = {
            "words": words,
            "cwd": str(cwd),
            "environment": dict(environment),
            "log": str(log),
        }
        with self._lock:
            for _ in range(2):  # one that has ended is begun anew, once
                if self._process is None:
                    self._process = self._begin()
                if answer := self._asked(self._process, asked):
                    return Copy(int(answer))
                status = self._process.wait()
                self._process = None
        raise RuntimeError(f"the process to copy has ended with status {status}")

    @staticmethod
    def _asked(process: subprocess.Popen[bytes], asked: Mapping[str, Any]) -> bytes:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            process.stdin.flush()
        return process.stdout.readline()

    def close(self) -> None:
        """End the process that is copied; copies go on."""
        with self._lock:
            if self._process is not None:
                self._process.communicate()
                self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @staticmethod
    def _begin() -> subprocess.Popen[bytes]:
        from dataflow.backends.cluster import environment
        from dataflow.backends.forking import HASH_SEED

        # Python and libraries look at these once.
        early = {
            "PYTHONHASHSEED": HASH_SEED,
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "MALLOC_TRIM_THRESHOLD_": "65536",
            METHOD: "forkserver",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "dataflow.testing.copies"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment(), **early},
            start_new_session=True,
        )


def main() -> None:
    """Be copied for each line of standard input, and tell who the copy is, until there are no more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    _import()
    gc.collect()
    gc.freeze()  # what all have in common is not looked through, and so not copied, again
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a copy here
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            answers.close()
            _become(asked)
            return
        answers.write(f"{pid}\n".encode())
        answers.flush()


def _import() -> None:
    from importlib import import_module

    from dataflow.agent.lean import UNUSED, without
    from dataflow.backends.cluster import IMPORTS

    with without(*UNUSED):
        for name in (
            "dataflow.agent.serve",
            "dataflow.participant",
            "dataflow.participant.planning",
        ):
            import_module(name)
    for name in (
        "dataflow.cli.app",
        "dataflow.storage.probe",
        "distributed.nanny",
        "distributed.worker",
        *IMPORTS,
    ):
        import_module(name)


def _become(asked: Mapping[str, Any]) -> None:
    """Run a command, as a process of its own would. Ends this one."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing, log = (
        os.open(os.devnull, os.O_RDONLY),
        os.open(asked["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT),
    )
    for there, here in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(there, here)
    for opened in (nothing, log):
        os.close(opened)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.environ[METHOD] = "forkserver"
    sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    import dask

    dask.config.refresh()
    _copy_workers_too()
    sys.argv = ["dataflow", *asked["words"]]
    runpy.run_module("dataflow", run_name="__main__")


def _copy_workers_too() -> None:
    """Have Python's *forkserver* be a copy of this process, and not one that imports everything anew.

    What ``forkserver.ensure_running`` does, but for the start of an interpreter.
    """
    resource_tracker.ensure_running()
    server: Any = forkserver._forkserver
    with socket.socket(socket.AF_UNIX) as listening:
        address = arbitrary_address("AF_UNIX")
        listening.bind(address)
        os.chmod(address, 0o600)
        listening.listen()
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(theirs)
                forkserver.main(listening.detach(), ours, [])
            finally:  # that of our own session: nothing of it is this process's to tidy
                os._exit(0)
        os.close(ours)
    server._forkserver_address = address
    server._forkserver_alive_fd = theirs
    server._forkserver_pid = pid


if __name__ == "__main__":
    main()
