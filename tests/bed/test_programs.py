"""Shell operations at sites reached by SSH: batch jobs under Grid Engine, processes elsewhere."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import xxhash
import yaml
from bed_network import until
from bed_sites import Sites

import dataflow as flow
from dataflow.errors import (
    JobCancelled,
    JobTimedOut,
    OperationFailed,
    SiteRefused,
    SiteUnreachable,
    WalltimeExceeded,
)
from dataflow.execution.events import Ran, UnitReported
from dataflow.session.jobs import Job
from dataflow.testing.bed import Bed

GRID_ENGINE = {
    "queue": "flow.q",
    "interface": "eth0",
    "scheduler_interface": "lan0",
    "parallel_environment": "smp",
    "memory_resource": "mem_free",
    "idle": "2 s",
    "look": "1 s",
    "orphaned": "15 s",
}

joined = flow.shell(
    "cat {first} {second} > {output:both.txt}; wc -l < {output:both.txt} > {output:lines.txt};"
    " sleep {seconds}; echo said; echo blamed >&2",
    name="joined",
    cores=2,
    memory="400 MB",
    walltime="60 s",
)
slept = flow.shell("sleep {seconds}; cat {x} > {output:copy.txt}", name="slept")


@flow.operation(kind="linear", output="same")
def doubled(x: Any) -> Any:
    return 2 * x


@flow.operation(kind="opaque", lazy=False, output="scalar")
def lines_of(files: Any) -> Any:
    import numpy as np

    return np.asarray(sum(len(path.read_text().splitlines()) for path in files))


@contextlib.contextmanager
def world(bed: Bed, folder: Path, names: list[str]) -> Iterator[tuple[Sites, flow.Session]]:
    """Sites with two text files each, called ``<site>-0`` and ``<site>-1``, in a new session.

    They differ between sites in one line of equal length: equal data would be one dataset.
    """
    bed.host("hpc").run("qdel -u $USER", check=False)
    until(lambda: not queue(bed))
    backend = {"workers": 2, "memory": "500 MB", "sge": GRID_ENGINE}
    more = {"hpc": {"site": {"name": "hpc"}, "backend": backend}}
    sites = Sites(bed, folder, names, more=more)
    try:
        with sites.session() as session:
            for name in names:
                for n in range(2):
                    path = f"/home/{bed.user}/{sites.home}/data/{n}.txt"
                    bed.host(name).run(f"(seq {n + 1}; echo {name:_<4}) > {path}")
                    session.register(path, name=f"{name}-{n}", site=name)
            yield sites, session
    finally:
        sites.end()


def at(site: str, session: flow.Session, graph: Any) -> Any:
    """A plan at one site: where it is quickest elsewhere, as for files this small, it would go there."""
    return session.plan(graph, without=sorted({"hpc", "edge"} - {site}))


def queue(bed: Bed) -> list[str]:
    """Numbers of batch jobs that qstat lists."""
    return [line.split()[0] for line in bed.host("hpc").run("qstat").stdout.splitlines()[2:]]


def states(job: Job, label: str) -> list[str]:
    """The states that a program went through, by the job's journal."""
    told = [
        event.report.program.status
        for event in job.events()
        if isinstance(event, UnitReported)
        and isinstance(event.report, Ran)
        and event.report.program.label == label
    ]
    return list(dict.fromkeys(told))


def runs(job: Job) -> bool:
    """Whether its one program runs now, by its own mark or by the queue."""
    found = job.programs()
    return bool(found) and found[0].status == "running"


def test_programs_at_both_kinds_of_sites(bed: Bed, tmp_path: Path) -> None:
    """Several stories in one world; the login host greets whoever comes, which breaks nothing."""
    host = bed.host("hpc")
    host.run("echo 'echo welcome to hpc; echo mind the step >&2' > .bashrc")
    try:
        with world(bed, tmp_path, ["hpc", "edge"]) as (sites, session):
            stories = (
                lambda: the_same_instruction(bed, session),
                lambda: a_sweep(session),
                lambda: between_functions(sites, session),
                lambda: limits(bed, session),
                lambda: cancel_and_resubmit(bed, session),
                lambda: bad_targets(sites, session, tmp_path),
            )
            for story in stories:
                # On a busy machine a site may seem away for a moment.
                until(lambda: not session.topology().away, seconds=60)
                story()
    finally:
        host.run("rm .bashrc")
    until(lambda: not queue(bed))


def the_same_instruction(bed: Bed, session: flow.Session) -> None:
    """SQ-01, SQ-02 and DA-16."""
    host = bed.host("hpc")
    jobs = {
        site: session.submit(
            at(
                site,
                session,
                joined(first=session[f"{site}-0"], second=session[f"{site}-1"], seconds=3),
            )
        )
        for site in ("hpc", "edge")
    }
    until(lambda: runs(jobs["hpc"]), seconds=60)
    number = jobs["hpc"].programs()[0].batch
    listed = host.run(f"qstat -j {number}").stdout
    assert re.search(r"hard_queue_list:\s+flow.q", listed)
    assert "smp range: 2" in listed
    assert re.search(r"h_rt=(60|0:1:0|00:01:00)", listed)
    assert "mem_free=191M" in listed
    seen = {}
    for site, job in jobs.items():
        both, lines = job.result(120)
        name = f"{site:_<4}"
        assert both.read_text() == f"1\n{name}\n1\n2\n{name}\n"
        assert lines.read_text().strip() == "5"
        assert states(job, "joined") == ["new", "pending", "running", "done"]
        (program,) = job.programs()
        assert (program.stdout, program.stderr) == ("said\n", "blamed\n")
        assert "said" in repr(job.logs())
        assert program.of("output")[0].checksum == xxhash.xxh3_128_hexdigest(both.read_bytes())
        assert (program.site, program.exit_status) == (site, 0)
        seen[site] = [
            (file.relation, file.slot, Path(file.name).name, file.nbytes, file.text)
            for file in program.files
            if file.relation != "script"  # which names the directory of the run
        ]
    assert seen["hpc"] == seen["edge"]
    by_batch, by_process = (jobs[site].programs()[0] for site in ("hpc", "edge"))
    assert by_process.batch == ""
    used = by_batch.accounting
    assert used is not None
    assert (used.queue, used.slots, used.exit_status) == ("flow.q", 2, 0)
    assert used.host == by_batch.host
    record = host.run(f"qacct -j {number}").stdout
    assert re.search(r"granted_pe\s+smp", record)


def a_sweep(session: flow.Session) -> None:
    # A sweep over inputs goes out as one array; as two, where the machine is very busy.
    graphs = [slept(x=session[f"hpc-{n % 2}"], seconds=n / 10) for n in range(6)]
    job = session.submit(at("hpc", session, graphs))
    assert len(job.result(120)) == 6
    numbers = [program.batch.partition(".") for program in job.programs()]
    print("array", numbers)
    assert len({number for number, _, _ in numbers}) <= 2
    assert len({task for _, _, task in numbers} - {""}) >= 3


def between_functions(sites: Sites, session: flow.Session) -> None:
    """What workers make is read by programs, and what programs write by workers."""
    listed = flow.shell("ls {x} > {output:names.txt}", name="listed")
    graph = lines_of(listed(x=doubled(session["hpc"])))
    job = session.submit(at("hpc", session, graph))
    assert int(job.result(120)) >= 1
    (program,) = job.programs()
    assert program.batch
    (given,) = program.of("input")
    assert given.checksum
    assert given.nbytes >= sites.values["hpc"].nbytes


def limits(bed: Bed, session: flow.Session) -> None:
    """SQ-02 and DA-13: the program's own limit at both kinds of sites, and the job's."""
    short = flow.shell(slept.operation.command, name="short", walltime="4 s")
    over = {
        site: session.submit(at(site, session, short(x=session[f"{site}-0"], seconds=600)))
        for site in ("hpc", "edge")
    }
    begun = time.monotonic()
    endless = slept(x=session["hpc-1"], seconds=601)
    limited = session.submit(at("hpc", session, endless), time_limit=12)
    for site, job in over.items():
        with pytest.raises(WalltimeExceeded, match="time limit of 4 s") as caught:
            job.result(120)
        (program,) = job.programs()
        assert (job.status, program.status) == ("failed", "failed")
        assert program.reason
        if site == "hpc":
            assert "Grid Engine says: failed 37: qmaster enforced h_rt" in caught.value.error
            assert program.accounting is not None
            assert program.accounting.failed.startswith("37")
    with pytest.raises(JobTimedOut, match="time limit of 12 s"):
        limited.result(60)
    assert time.monotonic() - begun < 22
    until(lambda: not queue(bed), seconds=10)


def cancel_and_resubmit(bed: Bed, session: flow.Session) -> None:
    """SQ-03."""
    job = session.submit(
        at("hpc", session, slept(x=session["hpc-0"], seconds=4)), tags={"run": "7"}
    )
    until(lambda: runs(job), seconds=60)
    assert len(queue(bed)) == 1
    cancelled = time.monotonic()
    job.cancel()
    until(lambda: not queue(bed), seconds=10)
    print("gone from the queue after", time.monotonic() - cancelled)
    assert job.status == "cancelled"
    with pytest.raises(JobCancelled):
        job.result(10)
    assert [program.status for program in job.programs()] == ["cancelled"]
    again = job.resubmit()
    assert again.id != job.id
    assert again.result(120)[0].read_text() == "1\nhpc_\n"
    (old,), (new,) = job.programs(), again.programs()
    assert (old.batch, old.run) != (new.batch, new.run)
    assert old.directory
    ours = {file.checksum for file in new.of("input")}
    assert ours == {file.checksum for file in old.of("input")}
    told = [
        event.report.program.directory
        for event in again.events()
        if isinstance(event, UnitReported) and isinstance(event.report, Ran)
    ]
    assert old.directory not in told


def bad_targets(sites: Sites, session: flow.Session, tmp_path: Path) -> None:
    """SQ-04, but for the greeting, which is there all the time."""
    bed, said = sites.bed, {}
    nowhere = flow.shell(slept.operation.command, name="nowhere", queue="nosuch.q")
    plan = at("hpc", session, nowhere(x=session["hpc-0"], seconds=0))
    with pytest.raises(SiteRefused, match=r'unknown queue "nosuch.q"') as caught:
        session.submit(plan, retries=0).result(60)
    said["queue"] = str(caught.value)
    home = f"/home/{bed.user}/{sites.home}"
    with bed.host("hpc").disk(f"{home}/state/workers/runs", 100_000) as disk:
        disk.fill()
        plan = at("hpc", session, slept(x=session["hpc-0"], seconds=0.1))
        with pytest.raises(SiteRefused, match="the disk is full") as caught:
            session.submit(plan, retries=0).result(60)
    said["disk"] = str(caught.value)
    assert not queue(bed)
    broken = flow.shell("cat {x} > {output}; echo 'no such frame' >&2; exit 3", name="broken")
    with pytest.raises(OperationFailed, match="no such frame"):
        session.submit(at("hpc", session, broken(x=session["hpc-0"]))).result(60)
    config = re.sub(
        r"(?i)^(\s*identityfile).*$",
        rf"\1 {tmp_path}/key",
        bed.ssh_config.read_text(),
        flags=re.M,
    )
    (tmp_path / "config").write_text(config)
    subprocess_key(tmp_path / "key")
    document = yaml.safe_load(bed.host("hpc").run(f"cat {sites.home}/site.yaml").stdout)
    document["state"] = "./other"
    document["backend"]["sge"]["shared"] = "runs"
    relative = f"{sites.home}/relative.yaml"
    bed.host("hpc").run(f"cat > {relative}", stdin=yaml.safe_dump(document))
    for what, change in (
        ("host", {"address": "ssh://nosuchhost"}),
        ("key", {"config": str(tmp_path / "config")}),
        ("directory", {"site_file": relative}),
    ):
        with pytest.raises((SiteUnreachable, SiteRefused)) as bad:
            one_try(sites, tmp_path / f"bad-{what}", change)
        said[what] = str(bad.value)
    print(said)
    assert len({text.split(":", 1)[-1] for text in said.values()}) == len(said)
    assert "nosuchhost" in said["host"]
    assert re.search(r"[Pp]ermission denied|key", said["key"])
    assert "must begin at /" in said["directory"]


def one_try(sites: Sites, folder: Path, change: dict[str, Any]) -> None:
    """Ask for something at a site whose entry in the notebook's file is not right."""
    folder.mkdir()
    document = yaml.safe_load(sites.file.read_text())
    entry = document["sites"][0]
    document["sites"] = [entry]
    if "address" in change:
        entry["address"] = change["address"]
    entry["ssh"] |= {name: value for name, value in change.items() if name != "address"}
    (folder / "sites.yaml").write_text(yaml.safe_dump(document))
    with flow.connect(folder / "sites.yaml", state=folder / "notebook", user="anna") as session:
        session.register("/etc/hostname", name="x", site="hpc")


def subprocess_key(path: Path) -> None:
    import subprocess

    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)


def test_a_cut_link_and_a_killed_agent(bed: Bed, tmp_path: Path) -> None:
    """SQ-05: unknown while it is away, never failed, and taken up where it is."""
    with world(bed, tmp_path, ["hpc", "edge"]) as (sites, session):
        kept_there = session.submit(at("hpc", session, slept(x=session["hpc-0"], seconds=20)))
        graph = joined(
            first=slept(x=session["hpc-1"], seconds=21), second=session["edge-0"], seconds=0
        )
        kept_here = session.submit(session.plan(graph, pinned={"slept": "hpc", "joined": "edge"}))
        jobs = (kept_there, kept_here)
        until(lambda: all(map(runs, jobs)), seconds=60)
        numbers = [job.programs()[0].batch for job in jobs]
        link = bed.link("hpc")
        link.cut()
        for job in jobs:
            until(lambda job=job: job.status == "unknown", seconds=60)
        seen = set()
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            seen |= {job.status for job in jobs}
            time.sleep(0.5)
        assert seen == {"unknown"}
        # Meanwhile the agent is killed as well: the batch jobs do not care.
        bed.host("hpc").end(sites.agent("hpc"), signal.SIGKILL)
        assert {number.partition(".")[0] for number in numbers} <= set(queue(bed))
        link.heal()
        assert kept_there.result(120)[0].read_text() == "1\nhpc_\n"
        assert kept_here.result(120)[0].read_text() == "1\n2\nhpc_\n1\nedge\n"
        assert [job.programs()[0].batch for job in jobs] == numbers, "nothing ran twice"
        assert all(job.programs()[0].status == "done" for job in jobs)
    until(lambda: not queue(bed))
