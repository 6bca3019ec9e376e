"""What Grid Engine says, as records: ``qstat -xml``, ``qstat -j … -xml`` and ``qacct``. Pure.

Its programs write these in their own ways; every field that is read here may be missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal
from xml.etree import ElementTree

Standing = Literal["waiting", "held", "error", "starting", "running", "ending"]

#: Tasks of one entry that are told apart.
MOST_TASKS = 100_000

#: Nothing that Grid Engine writes needs a document type, and entities can fill all memory.
_UNWANTED = re.compile(r"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)
#: A queue instance: ``queue@host``.
_INSTANCE = re.compile(r"[^@]*@(.+)")
_TASKS = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?$")
_SECTION = re.compile(r"^=+$", re.MULTILINE)
_SIZE = re.compile(r"([0-9.]+(?:e[+-]?[0-9]+)?)([KMGTP]?)B?$")
_FACTORS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}
#: What qsub and others write around what matters.
_NOISE = re.compile(r"Unable to run job: |^Exiting\.$|^Exit code.*$|^error: (?=\S)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A batch job as ``qstat`` lists it.

    Attributes
    ----------
    id, name
        Its number, as text, and the name it was given.
    state
        Grid Engine's letters, such as ``qw``, ``hqw``, ``Eqw``, ``t``, ``r``, ``dr``.
    host
        Where it runs; empty while it waits.
    since
        Seconds since the epoch: when it was started, or submitted while it waits; by the clock
        of the host that was asked.
    """

    id: str
    name: str
    state: str
    host: str = ""
    since: float | None = None

    @property
    def standing(self) -> Standing:
        """What the letters amount to."""
        letters = self.state
        if "d" in letters:
            return "ending"
        if "E" in letters:
            return "error"
        if "r" in letters or "s" in letters or "S" in letters or "T" in letters:
            # Suspended ones keep their place and go on; "Rr" runs for the second time.
            return "running"
        if "h" in letters:
            return "held"
        return "starting" if "t" in letters else "waiting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounted:
    """A batch job that has ended, by the accounting of Grid Engine.

    Attributes
    ----------
    id, host
        Its number, as text, and where it ran.
    exit_status
        Of its script; 128 + the signal that ended it.
    failed
        Grid Engine's own word for what went wrong, such as ``37 : qmaster enforced h_rt, …``;
        empty if nothing did.
    seconds
        From start to end.
    memory
        The most memory that it had, in bytes.
    started, ended
        Seconds since the epoch.
    task
        Of an array, from 1; empty otherwise.
    queue, slots
        Where it ran, and how many it had.
    cpu
        Seconds of processor time.
    """

    id: str
    host: str = ""
    exit_status: int = 0
    failed: str = ""
    seconds: float = 0.0
    memory: int = 0
    started: float | None = None
    ended: float | None = None
    task: str = ""
    queue: str = ""
    slots: int = 0
    cpu: float = 0.0

    @property
    def reason(self) -> str:
        """Why it did not end well; empty if it did."""
        if self.failed:
            return f"Grid Engine says: failed {self.failed}"
        return f"it ended with exit status {self.exit_status}" if self.exit_status else ""


def read_qstat(text: str) -> list[Listed]:
    """Jobs of ``qstat -xml``, in its order; tasks of a job array count as one.

    Raises
    ------
    ValueError
        If it is not such a document.
    """
    root = _parsed(text)
    if root.tag != "job_info":
        raise ValueError(f"qstat did not list jobs but {root.tag!r}")
    found: dict[str, Listed] = {}
    for entry in root.iter("job_list"):
        number = _text(entry, "JB_job_number")
        if not number:
            continue
        started = _text(entry, "JAT_start_time") or _text(entry, "JB_submission_time")
        instance = _INSTANCE.match(_text(entry, "queue_name"))
        found.setdefault(
            number,
            Listed(
                id=number,
                name=_text(entry, "JB_name"),
                state=_text(entry, "state"),
                host=instance[1] if instance else "",
                since=_moment(started),
            ),
        )
    return list(found.values())


def read_reasons(text: str) -> Mapping[str, str]:
    """Job → why it is in error state, of ``qstat -j … -xml``; jobs without a reason are left out.

    Raises
    ------
    ValueError
        If it is not XML.
    """
    reasons: dict[str, str] = {}
    for element in _parsed(text).iter("element"):
        number = _text(element, "JB_job_number")
        said = [_spoken(one.text or "") for one in element.iter("QIM_message")]
        if number and any(said):
            reasons[number] = "; ".join(dict.fromkeys(filter(None, said)))
    return reasons


def read_tasks(text: str) -> Mapping[str, Listed]:
    """Job → its place in ``qstat -xml``; of an array each task by itself, as ``17.3``.

    Raises
    ------
    ValueError
        If it is not such a document.
    """
    found: dict[str, Listed] = {}
    for entry in _parsed(text).iter("job_list"):
        number, tasks = _text(entry, "JB_job_number"), _text(entry, "tasks")
        if not number:
            continue
        instance = _INSTANCE.match(_text(entry, "queue_name"))
        listed = Listed(
            id=number,
            name=_text(entry, "JB_name"),
            state=_text(entry, "state"),
            host=instance[1] if instance else "",
            since=_moment(_text(entry, "JAT_start_time") or _text(entry, "JB_submission_time")),
        )
        for task in _expanded(tasks):
            id = f"{number}.{task}" if task else number
            found[id] = replace(listed, id=id)
    return found


def _expanded(tasks: str) -> list[str]:
    """Single tasks of ``3``, ``1-3:1`` or ``2,5-9:2``; one without a name if there are none."""
    if not tasks:
        return [""]
    found: list[str] = []
    for part in tasks.split(","):
        match = _TASKS.match(part.strip())
        if match is None:
            continue
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        last = min(last, first + MOST_TASKS * max(step, 1))
        found += [str(task) for task in range(first, last + 1, max(step, 1))]
    return found


def read_qacct(text: str) -> Mapping[str, Accounted]:
    """Job → its record, of ``qacct -j``; of a job that ran several times the last.

    Tasks of an array are here under their own names as well, as ``17.3``.
    """
    found: dict[str, Accounted] = {}
    for section in _SECTION.split(text):
        fields = {
            words[0]: words[1].strip()
            for words in (line.split(None, 1) for line in section.splitlines())
            if len(words) == 2
        }
        if "jobnumber" not in fields:
            continue
        failed, _, word = fields.get("failed", "0").partition(":")
        code = failed.strip()
        number, task = fields["jobnumber"], fields.get("taskid", "undefined")
        record = Accounted(
            id=number,
            host=fields.get("hostname", ""),
            exit_status=int(_number(fields.get("exit_status", "0").split()[0])),
            failed="" if code in ("0", "") else f"{code}: {word.strip()}".rstrip(": "),
            seconds=_number(fields.get("ru_wallclock", "0").rstrip("s")),
            memory=_nbytes(fields.get("maxvmem", "0")),
            started=_moment(fields.get("start_time", "")),
            ended=_moment(fields.get("end_time", "")),
            task=task if task.isdigit() else "",
            queue=fields.get("qname", ""),
            slots=int(_number(fields.get("slots", "0"))),
            cpu=_number(fields.get("cpu", "0").rstrip("s")),
        )
        found[number] = record
        if record.task:
            found[f"{number}.{record.task}"] = record
    return found


def read_verification(text: str) -> str:
    """Why a job can never run, of ``qalter -w v``; empty if it can."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not any("no suitable queues" in line for line in lines):
        return ""
    why = [line for line in lines if "cannot run" in line]
    return "; ".join(why[:3]) or "no suitable queues"


def spoken(text: str) -> str:
    """The words of ``qsub`` or ``qstat`` when it refuses, in one line without what goes around them."""
    return _spoken(_NOISE.sub("", text))


def _spoken(text: str) -> str:
    # "11/21/2026 09:38:13 [1001:186]: error: can't …": the time and the process help nobody.
    return re.sub(r"^[0-9/]+ [0-9:]+ \[[0-9:]+\]: (?:error: )?", "", " ".join(text.split()))


def _parsed(text: str) -> ElementTree.Element:
    if _UNWANTED.search(text):
        raise ValueError("this is not what Grid Engine writes: it declares a document type")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"this is not XML: {error}: {text[:80]!r}") from None


def _text(entry: ElementTree.Element, name: str) -> str:
    return (entry.findtext(name) or "").strip()


def _moment(text: str) -> float | None:
    for style in ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f", "%a %b %d %H:%M:%S %Y"):
        try:
            return datetime.strptime(text, style).timestamp()
        except ValueError:
            continue
    return None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _nbytes(text: str) -> int:
    match = _SIZE.match(text)
    return round(_number(match[1]) * _FACTORS[match[2]]) if match else 0
