"""What Grid Engine 8.1.9 really wrote, and how it is read."""

from __future__ import annotations

import contextlib
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.backends.gridengine import (
    Accounted,
    Listed,
    read_qacct,
    read_qstat,
    read_reasons,
    read_tasks,
    read_verification,
    spoken,
)

QSTAT = """<?xml version='1.0'?>
<job_info  xmlns:xsd="http://arc.liv.ac.uk/repos/darcs/sge/source/dist/util/resources/schemas/qstat/qstat.xsd">
  <queue_info>
    <job_list state="running">
      <JB_job_number>16</JB_job_number>
      <JAT_prio>0.50000</JAT_prio>
      <JB_name>running</JB_name>
      <JB_owner>flowlab</JB_owner>
      <state>r</state>
      <JAT_start_time>2026-11-21T09:38:13</JAT_start_time>
      <queue_name>flow.q@hpc-n1</queue_name>
      <slots>1</slots>
    </job_list>
  </queue_info>
  <job_info>
    <job_list state="pending">
      <JB_job_number>17</JB_job_number>
      <JAT_prio>0.50000</JAT_prio>
      <JB_name>bad</JB_name>
      <JB_owner>flowlab</JB_owner>
      <state>Eqw</state>
      <JB_submission_time>2026-11-21T09:38:13</JB_submission_time>
      <queue_name></queue_name>
      <slots>1</slots>
    </job_list>
    <job_list state="pending">
      <JB_job_number>15</JB_job_number>
      <JAT_prio>0.00000</JAT_prio>
      <JB_name>held</JB_name>
      <JB_owner>flowlab</JB_owner>
      <state>hqw</state>
      <JB_submission_time>2026-11-21T09:38:13</JB_submission_time>
      <queue_name></queue_name>
      <slots>1</slots>
    </job_list>
  </job_info>
</job_info>
"""

NOTHING = """<?xml version='1.0'?>
<job_info  xmlns:xsd="http://arc.liv.ac.uk/repos/darcs/sge/source/dist/util/resources/schemas/qstat/qstat.xsd">
  <queue_info>
  </queue_info>
  <job_info>
  </job_info>
</job_info>
"""

#: ``qstat -j 17,18 -xml``, without the fields that nobody reads.
REASONS = """<?xml version='1.0'?>
<detailed_job_info  xmlns:xsd="http://arc.liv.ac.uk/repos/darcs/sge/source/dist/util/resources/schemas/qstat/detailed_job_info.xsd">
  <djob_info>
    <element>
      <JB_job_number>17</JB_job_number>
      <JB_ja_tasks>
        <ulong_sublist>
          <JAT_status>0</JAT_status>
          <JAT_task_number>1</JAT_task_number>
          <JAT_message_list>
            <ulong_sublist>
              <QIM_type>1</QIM_type>
              <QIM_message>11/21/2026 09:38:13 [1001:186]: error: can&apos;t open output file &quot;/nonexistent/x&quot;: No such file or directory</QIM_message>
            </ulong_sublist>
          </JAT_message_list>
        </ulong_sublist>
      </JB_ja_tasks>
    </element>
    <element>
      <JB_job_number>18</JB_job_number>
      <JB_mail_list><element><MR_user>flowlab</MR_user></element></JB_mail_list>
    </element>
  </djob_info>
</detailed_job_info>
"""

QACCT = """\
==============================================================
qname        flow.q
hostname     hpc-n2
jobname      wall
jobnumber    19
taskid       undefined
qsub_time    Sat Nov 21 09:38:52 2026
start_time   Sat Nov 21 09:38:53 2026
end_time     Sat Nov 21 09:38:57 2026
granted_pe   NONE
slots        1
failed       37  : qmaster enforced h_rt, h_cpu, or h_vmem limit
exit_status  137                  (Killed)
ru_wallclock 4s
cpu          0.010s
mem          0.000Bs
maxvmem      1.793MB
category     -l h_rt=3
==============================================================
qname        flow.q
hostname     hpc-n1
jobnumber    25
start_time   Sat Nov 21 09:56:27 2026
end_time     Sat Nov 21 09:56:38 2026
failed       0
exit_status  0
ru_wallclock 11s
maxvmem      336.393MB
"""

VERIFICATION = """\
Job 14 (-l mem_total=900G) cannot run at host "hpc-n1" because it offers only hl:mem_total=23.541G
Job 14 (-l mem_total=900G) cannot run at host "hpc-n2" because it offers only hl:mem_total=23.541G
verification: no suitable queues
"""


def epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_jobs_of_qstat() -> None:
    at = epoch("2026-11-21T09:38:13")
    running, bad, held = read_qstat(QSTAT)
    assert running == Listed(id="16", name="running", state="r", host="hpc-n1", since=at)
    assert bad == Listed(id="17", name="bad", state="Eqw", since=at)
    assert (held.state, held.host) == ("hqw", "")
    assert [one.standing for one in (running, bad, held)] == ["running", "error", "held"]
    assert read_qstat(NOTHING) == []


@pytest.mark.parametrize(
    ("letters", "standing"),
    [
        ("qw", "waiting"),
        ("Rq", "waiting"),
        ("hqw", "held"),
        ("hRwq", "held"),
        ("Eqw", "error"),
        ("Ehqw", "error"),
        ("t", "starting"),
        ("r", "running"),
        ("Rr", "running"),
        ("hr", "running"),
        ("s", "running"),
        ("S", "running"),
        ("T", "running"),
        ("dr", "ending"),
        ("dEqw", "ending"),
    ],
)
def test_letters(letters: str, standing: str) -> None:
    assert Listed(id="1", name="x", state=letters).standing == standing


def test_what_is_not_from_qstat_is_refused() -> None:
    with pytest.raises(ValueError, match="'unknown_jobs'"):
        read_qstat("<unknown_jobs><ST_name>9</ST_name></unknown_jobs>")
    with pytest.raises(ValueError, match="not XML"):
        read_qstat("error: commlib error: got select error (Connection refused)")
    with pytest.raises(ValueError, match="document type"):
        read_qstat('<!DOCTYPE x [<!ENTITY a "aaaa">]><job_info>&a;</job_info>')


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (read_qstat, read_reasons):
        with contextlib.suppress(ValueError):
            read(text)
    read_qacct(text)
    read_verification(text)
    spoken(text)


def test_reasons_of_errors() -> None:
    said = 'can\'t open output file "/nonexistent/x": No such file or directory'
    assert read_reasons(REASONS) == {"17": said}


def test_accounting() -> None:
    found = read_qacct(QACCT)
    assert found["25"] == Accounted(
        id="25",
        host="hpc-n1",
        seconds=11.0,
        memory=round(336.393 * 2**20),
        started=epoch("2026-11-21T09:56:27"),
        ended=epoch("2026-11-21T09:56:38"),
        queue=found["25"].queue,
        cpu=found["25"].cpu,
        slots=found["25"].slots,
    )
    assert found["25"].queue == "flow.q"
    assert found["25"].reason == ""
    wall = found["19"]
    assert (wall.exit_status, wall.seconds) == (137, 4.0)
    assert (
        wall.reason == "Grid Engine says: failed 37: qmaster enforced h_rt, h_cpu, or h_vmem limit"
    )
    assert read_qacct("error: job id 15 not found\n") == {}


def test_a_job_that_can_never_run() -> None:
    said = read_verification(VERIFICATION)
    assert said.count("cannot run") == 2
    assert "offers only hl:mem_total=23.541G" in said
    assert read_verification("verification: found possible assignment with 1 slots\n") == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'Unable to run job: Job was rejected because job requests unknown queue "x.q"\nExiting.\n',
            'Job was rejected because job requests unknown queue "x.q"',
        ),
        ("Unable to run job: error: no suitable queues\nExiting.\n", "error: no suitable queues"),
        (
            "error: commlib error: got select error (Connection refused)\n",
            "commlib error: got select error (Connection refused)",
        ),
    ],
)
def test_what_qsub_says(text: str, words: str) -> None:
    assert spoken(text) == words


ARRAY = """<?xml version='1.0'?>
<job_info><queue_info>
    <job_list state="running">
      <JB_job_number>20</JB_job_number><JB_name>run-1-count</JB_name><state>r</state>
      <JAT_start_time>2026-11-21T09:38:13</JAT_start_time>
      <queue_name>flow.q@hpc-n1</queue_name><slots>1</slots><tasks>1</tasks>
    </job_list></queue_info><job_info>
    <job_list state="pending">
      <JB_job_number>20</JB_job_number><JB_name>run-1-count</JB_name><state>qw</state>
      <queue_name></queue_name><slots>1</slots><tasks>2-6:2,9</tasks>
    </job_list></job_info></job_info>
"""


def test_tasks_of_an_array_by_themselves() -> None:
    found = read_tasks(ARRAY)
    assert list(found) == ["20.1", "20.2", "20.4", "20.6", "20.9"]
    assert (found["20.1"].standing, found["20.1"].host) == ("running", "hpc-n1")
    assert {found[id].standing for id in list(found)[1:]} == {"waiting"}
    assert list(read_tasks(QSTAT)) == ["16", "17", "15"]
    assert [one.id for one in read_qstat(ARRAY)] == ["20"]


def test_accounts_of_tasks() -> None:
    line = "=" * 62
    text = "".join(
        f"{line}\nqname        flow.q\nhostname     hpc-n{task}\njobnumber    20\n"
        f"taskid       {task}\nslots        2\nfailed       0\nexit_status  {task}\ncpu  0.5s\n"
        for task in (1, 2)
    )
    found = read_qacct(text)
    assert (found["20.1"].exit_status, found["20.2"].exit_status) == (1, 2)
    assert (found["20.2"].host, found["20.2"].queue, found["20.2"].slots) == ("hpc-n2", "flow.q", 2)
    assert found["20.1"].cpu == 0.5
    assert found["20"] == found["20.2"]
