"""A copy is a process of its own: session, folder, environment, log, and an end."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from dataflow.testing.copies import Copies, Copy
from dataflow.testing.federation import Federation


def test_a_command_in_a_copy(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    with Copies() as copies:
        copy = copies.start(("place", "no.json"), cwd=tmp_path, environment={"HOME": "/"}, log=log)
        copy.wait(60)
    assert copy.poll() == 0
    said = log.read_text()
    assert said.startswith("before\n")
    assert "no.json" in said
    copy.terminate()
    copy.kill()
    assert copy.wait() == 0


def test_how_a_copy_is_waited_for_and_ended(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        copy = Copy(process.pid)
        assert copy.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            copy.wait(0.01)
        copy.kill()
        process.wait()
        assert copy.wait(10) == 0
    assert Copy(process.pid).poll() == 0


def test_agents_are_copies_with_sessions_of_their_own(tmp_path: Path) -> None:
    assert Federation.copies is not None
    with Federation(tmp_path, ["a", "b"], ready_within=60) as federation:
        pids = {site: federation.pid(site) for site in federation.sites}
        assert {os.getsid(pid) for pid in pids.values()} == set(pids.values())
        parents = {psutil.Process(pid).ppid() for pid in pids.values()}
        assert len(parents) == 1
        for site, pid in pids.items():
            assert Path(f"/proc/{pid}/cwd").resolve() == federation.root(site)
            assert "listening on" in federation.log(site)
        processes = {site: federation.processes(site) for site in federation.sites}
        assert pids["a"] in {process.pid for process in processes["a"]}
        assert not set(processes["a"]) & set(processes["b"])
    for process in (*processes["a"], *processes["b"]):
        with suppress(psutil.NoSuchProcess):
            assert process.status() == psutil.STATUS_ZOMBIE, "nobody's child any more, and ended"
