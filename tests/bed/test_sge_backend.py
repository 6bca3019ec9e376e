"""Workers as jobs of a real Grid Engine: what every backend promises, and its own words."""

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

SECTION = """\
backend:
  workers: 2
  memory: 500 MB
  sge: {queue: flow.q, interface: eth0, scheduler_interface: lan0, walltime: 10 min,
        idle: 2 s, look: 1 s, worth: 10 s, orphaned: 15 s}
"""


def queue(bed: Bed) -> list[str]:
    """Lines of qstat about jobs."""
    return bed.host("hpc").run("qstat").stdout.splitlines()[2:]


def emptied(bed: Bed, seconds: float = 60.0) -> float:
    """Seconds until no job and no process of the user is left on the site's inner hosts."""
    begun = time.monotonic()
    while queue(bed) or any(
        bed.host(name).processes(user=bed.user) for name in ("hpc-n1", "hpc-n2")
    ):
        assert time.monotonic() - begun < seconds, queue(bed)
        time.sleep(0.2)
    return time.monotonic() - begun


@pytest.fixture
def login(bed: Bed) -> Any:
    """The login host, its queue and its user's directory empty."""
    host = bed.host("hpc")
    host.run("qdel -u $USER; rm -rf flow-workers", check=False)
    emptied(bed)
    return host


def tell(bed: Bed, story: str) -> list[Mapping[str, Any]]:
    """What a story of ``sge_stories`` said, and that it left nothing behind."""
    script = CHECKOUT / "tests" / "bed" / "sge_stories.py"
    done = bed.host("hpc").run([bed.python, script, story], timeout=240)
    emptied(bed)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


class TestContract(BackendContract):
    """Told on the login host, as a user who may submit."""

    @pytest.fixture(autouse=True)
    def _on(self, bed: Bed, login: Any) -> None:
        self.bed = bed

    def make(self, directory: Path) -> Backend:
        raise NotImplementedError("it is made on the login host")

    def tell(self, story: str, directory: Path) -> Mapping[str, Any]:
        done = self.bed.host("hpc").run(
            [self.bed.python, "-W", "error", "-m", "dataflow.testing.backends", story],
            stdin=SECTION,
            check=False,
            timeout=280,
        )
        said = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
        assert "seen" in said, (said, done.stdout, done.stderr)
        print(story, said["seen"])
        emptied(self.bed)
        return dict(said["seen"])


@pytest.mark.parametrize(
    ("story", "words"),
    [
        ("unknown_queue", 'job requests unknown queue "nosuch.q"'),
        ("unknown_project", 'the requested project "nosuch" does not exist'),
        ("unknown_resource", 'unknown resource "nosuch"'),
    ],
)
def test_what_grid_engine_does_not_take_is_refused_in_its_words(
    bed: Bed, login: Any, story: str, words: str
) -> None:
    (said,) = tell(bed, story)
    assert words in said["said"]
    assert "Exiting" not in said["said"]
    assert said["site"] == "hpc"


@pytest.mark.parametrize(
    ("story", "words", "status"),
    [
        ("held", "it is held in the queue (state hqw)", "queued"),
        ("error", "can't open output file \"/tmp/only-on-this-host", "queued"),
        ("never", 'cannot run at host "hpc-n1" because it offers only', "queued"),
        ("early", "'nosuch0' is not a valid network interface", "failed"),
        ("absent", "and its worker has not come in 2 s", "failed"),
    ],
)
def test_why_no_worker_comes_is_said_in_seconds(
    bed: Bed, login: Any, story: str, words: str, status: str
) -> None:
    (said,) = tell(bed, story)
    print(story, said["after"])
    assert words in said["said"]
    assert said["leases"][0][0] == status
    assert words in said["leases"][0][1]
    # One that cannot run is not followed by more of its kind.
    assert said["queue"] <= 3


@pytest.mark.slow
def test_jobs_on_hosts_that_are_cut_off_are_given_up(bed: Bed, login: Any) -> None:
    """Grid Engine goes on sending jobs there for minutes, and says that they are on their way."""
    script = CHECKOUT / "tests" / "bed" / "sge_stories.py"
    ports = [f"p-{name}" for name in ("hpc-n1", "hpc-n2")]
    for port in ports:
        login.run(["ip", "link", "set", port, "nomaster"], user="root")
    try:
        done = login.run([bed.python, script, "unheard"], timeout=240)
    finally:
        for port in ports:
            login.run(["ip", "link", "set", port, "master", "lan0"], user="root")
        login.run("qdel -u $USER", check=False)
    said = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert "its worker has not come in 2 s" in said["said"]
    assert "it runs at hpc-n" in said["said"]
    assert {(status, host[:-1]) for status, host, _ in said["leases"]} == {("failed", "hpc-n")}
    emptied(bed)


def test_a_job_that_waits_is_no_trouble_and_one_that_was_deleted_is(bed: Bed, login: Any) -> None:
    waits, deleted, again = tell(bed, "waits_and_is_deleted")
    assert waits == {"waits": "queued", "trouble": ""}
    assert "it was deleted from the queue" in deleted["said"]
    assert again == {"again": 3, "trouble": ""}


def test_a_step_of_a_session_runs_in_a_batch_job(bed: Bed, login: Any) -> None:
    script = CHECKOUT / "tests" / "bed" / "sge_session.py"
    said = json.loads(
        login.run([bed.python, script, bed.queue], timeout=240).stdout.splitlines()[-1]
    )
    assert said["same"]
    emptied(bed)
    # The accounting is written a moment after the queue is empty.
    deadline = time.monotonic() + 30
    while (record := login.run(f"qacct -j {said['job']}", check=False)).returncode:
        assert time.monotonic() < deadline, record.stderr
        time.sleep(0.2)
    assert f"qname        {bed.queue}" in record.stdout
    said = json.loads(login.run([bed.python, script, "nosuch.q"]).stdout.splitlines()[-1])
    assert said["error"] == "SiteRefused"
    assert "site 'hpc' refuses" in said["said"]
    assert 'unknown queue "nosuch.q"' in said["said"]


@pytest.mark.slow
def test_a_grid_engine_that_does_not_answer_is_told_of_and_leaves_nothing(
    bed: Bed, login: Any
) -> None:
    script = CHECKOUT / "tests" / "bed" / "sge_stories.py"
    agent = login.start([bed.python, script, "mute"])
    assert agent.stdout is not None
    assert agent.stdin is not None

    def next_word() -> dict[str, Any]:
        assert agent.stdout is not None
        return next(json.loads(line) for line in agent.stdout if line.startswith("{"))

    def go_on() -> None:
        assert agent.stdin is not None
        agent.stdin.write("\n")
        agent.stdin.flush()

    try:
        assert next_word()["up"]
        login.daemon("qmaster").hang()
        go_on()
        said = next_word()
        assert "did not answer within 3 s" in said["said"]
        login.daemon("qmaster").resume()
        go_on()
        assert next_word()["again"] == 3
        agent.wait(60)
    finally:
        login.daemon("qmaster").resume()
        agent.kill()
        agent.wait(30)
        for pipe in (agent.stdin, agent.stdout):
            pipe.close()
    emptied(bed)


@pytest.mark.slow
def test_workers_are_empty_before_their_wall(bed: Bed, login: Any) -> None:
    (said,) = tell(bed, "before_the_wall")
    print(said)
    # Several leases, and each ended by itself.
    assert len(set(said["jobs"])) > 1
    assert said["exits"] == [0] * len(said["exits"])
    assert max(said["seconds"]) < 40
    assert said["failed"] == []


def test_what_was_asked_for_and_used_is_in_the_accounting(bed: Bed, login: Any) -> None:
    (said,) = tell(bed, "accounted")
    for words in ("mem_free=477M", "h_rt=120", "smp range: 1", "flow.q"):
        assert words in said["asked"]
    assert said["exit"] == 137
    assert said["failed"].startswith("100")
    assert said["memory"] > 50_000_000
    assert said["lease"][0] == "failed"
    assert "Grid Engine says: failed 100" in said["lease"][1]


@pytest.mark.slow
def test_a_killed_agent_leaves_nothing_that_runs(bed: Bed, login: Any) -> None:
    script = CHECKOUT / "tests" / "bed" / "sge_stories.py"
    agent = login.start([bed.python, script, "stays"])
    assert agent.stdout is not None
    said = next(json.loads(line) for line in agent.stdout if line.startswith("{"))
    assert len(queue(bed)) == 6
    login.end(said["pid"], signal.SIGKILL)
    agent.wait(30)
    begun = time.monotonic()
    while any(line.split()[4] == "r" for line in queue(bed)) and len(queue(bed)) == 6:
        assert time.monotonic() - begun < 60
        time.sleep(0.2)
    # Those that waited find nobody when their turn comes, or are cancelled by the next agent.
    (again,) = tell(bed, "starts_again")
    print("after the kill", time.monotonic() - begun)
    assert again == {"empty": True, "directory": ["logs", "workers.crt", "workers.key"]}
    for pipe in (agent.stdin, agent.stdout):
        if pipe is not None:
            pipe.close()
