"""Workers on hosts that are reached by a real sshd: what every backend promises, and dead hosts."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dataflow.backends.base import Backend
from dataflow.testing.backends import BackendContract
from dataflow.testing.bed import Bed
from dataflow.testing.bed.layout import CHECKOUT

SECTION = "backend: {workers: 2, memory: 500 MB, ssh: {hosts: [edge-w1]}}\n"


def workers(bed: Bed) -> list[str]:
    """Command lines on the inner host that are ours."""
    processes = bed.host("edge-w1").processes(user=bed.user)
    return [process.command for process in processes if "python" in process.command]


def emptied(bed: Bed, seconds: float = 60.0) -> float:
    """Seconds until nothing of ours runs on the inner host."""
    begun = time.monotonic()
    while left := workers(bed):
        assert time.monotonic() - begun < seconds, left
        time.sleep(0.1)
    return time.monotonic() - begun


def words(bed: Bed, story: str) -> list[str | Path]:
    return [bed.python, CHECKOUT / "tests" / "bed" / "ssh_stories.py", story]


def tell(bed: Bed, story: str) -> Mapping[str, Any]:
    """What a story of ``ssh_stories`` said, and that it left nothing behind."""
    done = bed.host("edge").run(words(bed, story), timeout=240)
    emptied(bed, 10.0)
    (said,) = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(said)


class TestContract(BackendContract):
    """Told on the site's door; workers stay while it runs."""

    elastic = False

    @pytest.fixture(autouse=True)
    def _on(self, bed: Bed) -> None:
        self.bed = bed
        emptied(bed)

    def make(self, directory: Path) -> Backend:
        raise NotImplementedError("it is made on the site's door")

    def tell(self, story: str, directory: Path) -> Mapping[str, Any]:
        done = self.bed.host("edge").run(
            [self.bed.python, "-W", "error", "-m", "dataflow.testing.backends", story],
            stdin=SECTION,
            check=False,
            timeout=280,
        )
        said = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
        assert "seen" in said, (said, done.stdout, done.stderr)
        print(story, said["seen"], "nothing left after", emptied(self.bed, 10.0))
        return dict(said["seen"])


@pytest.mark.parametrize(
    ("story", "text"),
    [
        ("unknown", "Name or service not known"),
        ("silent", "no answer in time"),
        ("closed", "it does not let us in"),
        ("python", "/nonexistent/python: not found"),
        ("stranger", "its key is not known here, or is another one"),
    ],
)
def test_a_host_that_cannot_be_used_is_told_of_with_its_reason(
    bed: Bed, story: str, text: str
) -> None:
    if story == "closed":
        config = "Host *\n  IdentityFile /tmp/no-such-key\n  IdentitiesOnly yes\n"
        bed.host("edge").run(
            "ssh-keygen -q -t ed25519 -N '' -f /tmp/no-such-key <<< y", check=False
        )
        bed.host("edge").run("cat > /tmp/ssh_config", stdin=config)
    said = tell(bed, story)
    print(story, said["after"])
    assert text in said["said"]
    assert {status for status, _, _ in said["leases"]} == {"failed"}


def test_one_dead_host_does_not_keep_the_others(bed: Bed) -> None:
    said = tell(bed, "one_is_dead")
    assert said["where"] == "edge-w1"
    assert said["trouble"] == ""
    assert [status for status, _, _ in said["leases"]] == ["running", "failed", "failed"]


@pytest.mark.slow
def test_a_login_shell_that_talks_is_no_obstacle(bed: Bed) -> None:
    home = bed.host("edge")
    home.run("echo 'echo welcome to edge; echo mind the step >&2' > .bashrc")
    try:
        assert tell(bed, "one_is_dead")["where"] == "edge-w1"
    finally:
        home.run("rm .bashrc")


@pytest.mark.slow
def test_a_host_that_hangs_is_left_and_taken_up_again(bed: Bed) -> None:
    door, inner = bed.host("edge"), bed.host("edge-w1")
    agent = door.start(words(bed, "dies_and_comes_back"))
    assert agent.stdout is not None

    def next_word() -> dict[str, Any]:
        assert agent.stdout is not None
        return next(json.loads(line) for line in agent.stdout if line.startswith("{"))

    try:
        said = next_word()
        assert said["where"] == "edge-w1"
        # Sessions and workers stand still; no connection is closed.
        begun = time.monotonic()
        inner.pause()
        said = next_word()
        assert "connection was lost" in said["said"] or "no answer" in said["said"]
        print("a hang was noticed after", time.monotonic() - begun)
        begun = time.monotonic()
        inner.resume()
        assert next_word()["up"]
        print("back after", time.monotonic() - begun)
        # The agent is killed: the end of the connection ends the workers.
        begun = time.monotonic()
        pid = next(p.pid for p in door.processes(user=bed.user) if "ssh_stories" in p.command)
        door.end(pid, signal.SIGKILL)
        print("nothing left after a kill", emptied(bed))
    finally:
        inner.resume()
        agent.kill()
        agent.wait(30)
        for pipe in (agent.stdin, agent.stdout):
            if pipe is not None:
                pipe.close()
