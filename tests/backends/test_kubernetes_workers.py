"""What is remembered of workers: counted right, let go in the right order, told with a reason."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from dataflow.backends.kubernetes_workers import MOST_FAILED, Workers
from dataflow.backends.pods import seconds_of

STARTED = "2026-01-01T00:00:00Z"
BEGAN = seconds_of(STARTED) or 0.0


def known(*, processing: int = 0, has_what: int = 0, executing: int = 0) -> Any:
    return SimpleNamespace(
        processing=["x"] * processing,
        has_what=["x"] * has_what,
        executing=["x"] * executing,
        long_running=[],
    )


def job(name: str, *conditions: str) -> dict[str, Any]:
    told = [{"type": kind, "status": "True", "reason": "Because"} for kind in conditions]
    status = {"startTime": STARTED, "conditions": told}
    return {"metadata": {"name": name}, "spec": {"activeDeadlineSeconds": 60}, "status": status}


def pod(name: str) -> dict[str, Any]:
    state = {"running": {"startedAt": STARTED}}
    status = {"phase": "Running", "containerStatuses": [{"name": "worker", "state": state}]}
    return {"metadata": {"name": f"{name}-x"}, "spec": {}, "status": status}


def see(workers: Workers, jobs: list[Any], now: float, *, heard: bool = True, **there: Any) -> Any:
    by_name = {item["metadata"]["name"]: item for item in jobs}
    pods = {name: pod(name) for name in by_name}
    return workers.see(by_name, pods, there, now, heard=heard)


def test_a_worker_that_was_asked_for_counts_at_once() -> None:
    workers = Workers()
    workers.ask("a", 0.0)
    see(workers, [], 1.0)
    assert [one.name for one in workers.live()] == ["a"]
    see(workers, [job("a")], 2.0)
    assert workers.leases()[0].status == "running"
    # Not heard of for a while is not gone.
    see(workers, [], 3.0, heard=False)
    assert workers.live()
    see(workers, [], 4.0)
    assert not workers.live()
    assert workers.leases()[-1].reason == "its Job was removed by somebody else"


def test_who_rests_is_let_go_and_who_has_not_come_goes_first() -> None:
    workers = Workers()
    for name in ("a", "b", "c"):
        workers.ask(name, 0.0)
    jobs = [job("a"), job("b"), job("c")]
    see(workers, jobs, 10.0, a=known(processing=1), b=known())
    see(workers, jobs, 20.0, a=known(), b=known())
    assert [one.name for one in workers.rested(0.0, 20.0, 5.0)] == ["c", "b"]
    assert workers.rested(18.0, 20.0, 5.0) == []
    see(workers, jobs, 30.0, a=known(has_what=1), b=known())
    assert [one.name for one in workers.rested(0.0, 30.0, 0.0)] == ["c", "b"]


def test_a_pod_may_say_later_than_its_job_why_it_failed() -> None:
    workers = Workers()
    workers.ask("a", 0.0)
    given = job("a", "Failed")
    given["status"]["conditions"][0] |= {"reason": "BackoffLimitExceeded", "message": "so often"}
    late: dict[str, Any] = pod("a")
    assert workers.see({"a": given}, {"a": late}, {}, 1.0, heard=True) == []
    assert workers.live(), "it is not known yet why"
    late["status"] = {"phase": "Failed", "reason": "Evicted", "message": "no memory"}
    (lease,) = workers.see({"a": given}, {"a": late}, {}, 2.0, heard=True)
    assert lease.reason == "Evicted: no memory"
    workers.ask("b", 2.0)
    given["metadata"]["name"] = "b"
    assert workers.see({"b": given}, {}, {}, 3.0, heard=True) == []
    (lease,) = workers.see({"b": given}, {}, {}, 5.0, heard=True)
    assert lease.reason == "BackoffLimitExceeded: so often", "its Pod never said"


def test_failures_count_until_one_has_come() -> None:
    workers = Workers()
    for i in range(MOST_FAILED):
        assert workers.trouble(100.0, 1e9) == ""
        workers.ask(f"a{i}", 0.0)
        (lease,) = see(workers, [job(f"a{i}", "Failed")], 1.0)
        assert lease.status == "failed"
    assert "ended before they came up; the last: Because" in workers.trouble(100.0, 1e9)
    workers.ask("b", 0.0)
    assert workers.trouble(100.0, 1e9) == "", "there is one on its way"
    see(workers, [job("b")], 1.0, b=known())
    assert workers.failures == 0
    # One that came and failed later says nothing about those to come.
    see(workers, [job("b", "Failed")], 2.0)
    assert workers.failures == 0
    assert workers.leases()[-1].status == "failed"


def test_patience_ends() -> None:
    workers = Workers()
    workers.ask("a", 0.0)
    assert workers.trouble(9.0, 10.0) == ""
    assert "a has not come up after 11 s: Kubernetes does not say why" in workers.trouble(
        11.0, 10.0
    )
    workers.live()[0].explain("FailedCreate: exceeded quota")
    assert workers.trouble(11.0, 10.0).endswith("FailedCreate: exceeded quota")
    workers.ask("b", 9.0)
    assert workers.trouble(11.0, 10.0) == "", "the other may still come"


def test_near_the_deadline_nothing_more_is_taken_on() -> None:
    workers = Workers()
    workers.ask("a", BEGAN)
    workers.ask("never-came", BEGAN)
    jobs = [job("a"), job("never-came")]
    see(workers, jobs, BEGAN + 1, a=known(processing=2))
    assert workers.older_than(40.0, 60.0, BEGAN + 40) == []
    (old,) = workers.older_than(40.0, 60.0, BEGAN + 41)
    assert old.name == "a"
    old.draining = True
    assert [one.name for one in workers.useful()] == ["never-came"]
    # What stands in its queue is not begun there; what it runs is waited for.
    see(workers, jobs, BEGAN + 42, a=known(processing=2, executing=1))
    assert workers.drained() == []
    see(workers, jobs, BEGAN + 43, a=known(processing=1))
    assert workers.drained() == [old]


def test_jobs_without_pods_are_asked_about_once() -> None:
    workers = Workers()
    workers.ask("a", 0.0)
    workers.see({"a": job("a")}, {}, {}, 1.0, heard=True)
    assert workers.without_pod(1.0, 2.0) == []
    (one,) = workers.without_pod(3.0, 2.0)
    one.explain("")
    assert workers.without_pod(3.0, 2.0) == [one]
    one.explain("quota")
    assert workers.without_pod(3.0, 2.0) == []
    workers.see({"a": job("a")}, {}, {}, 4.0, heard=True)
    assert workers.leases()[0].reason == "quota"
