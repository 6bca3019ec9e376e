"""Trial: one cell, from a whole federation to a whole federation, and what was seen between."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field
from typing import Any

from dataflow.errors import DataflowError
from dataflow.testing.bed import Rule
from dataflow.testing.faults import judge
from dataflow.testing.faults.cells import DUE, Cell
from dataflow.testing.faults.injure import Undo, injure
from dataflow.testing.faults.scene import Scene, until

#: Seconds for a phase to come about, and for a job to end, whatever happens to it.
_PHASE_SECONDS, _END_SECONDS = 90.0, 80.0
#: Bytes of a copy that have left their site when it counts as being under way.
_UNDER_WAY = 500_000
#: Bytes per second of the link in the phase ``staging``, so that there is time for a fault.
_STAGING_RATE = 2e6
#: Seconds for which a commit is held back on its way in the phase ``committing``.
_COMMIT_SECONDS = 4.0


@dataclass
class Seen:
    """What came of one cell.

    Attributes
    ----------
    end
        ``right``, or the kind of the error that ended the job.
    seconds
        From the fault to the end.
    text
        Of the error.
    wrong
        What should not be; nothing if all is as it should be.
    looks
        How often the reader looked meanwhile.
    took
        Seconds of the whole cell, from one whole federation to the next.
    tried_at
        When it ended, in seconds since 1970.
    """

    cell: Cell
    end: str = ""
    seconds: float = 0.0
    text: str = ""
    wrong: list[str] = field(default_factory=list)
    looks: int = 0
    took: float = 0.0
    tried_at: float = field(default_factory=time.time)

    @property
    def holds(self) -> bool:
        """Whether the cell is as it should be."""
        return not self.wrong


def _busy() -> float:
    """How many times as long things may take that say nothing of a fault, as the machine is now."""
    return min(max(os.getloadavg()[0] / (os.cpu_count() or 1), 1.0), 4.0)


def trial(scene: Scene, cell: Cell) -> Seen:
    """Try one cell; once more if the job was quicker than the fault."""
    begun = time.monotonic()
    for _ in range(2):
        seen = _Trial(scene, cell).run()
        seen.took = time.monotonic() - begun
        if seen.seconds >= 0 or seen.wrong:
            return seen
    seen.wrong.append("the job had ended before the fault")
    return seen


class _Trial:
    def __init__(self, scene: Scene, cell: Cell) -> None:
        self.scene, self.cell, self.seen = scene, cell, Seen(cell)
        self.number = scene.next_number()
        self.marker = f"{scene.home}/begun-{self.number}"
        self.job, self.key = "", ""
        self.s3 = scene.s3()
        self.before = set(judge.jobs(scene.journal()))
        self.ended: dict[str, Any] | None = None

    def run(self) -> Seen:
        scene, seen = self.scene, self.seen
        try:
            scene.relay()
            scene.kernel.ask(do="ready", number=self.number, direct=bool(scene.kept_by))
            self._hear("ready", 60)
            reader = judge.Reader(scene, self.number)
        except Exception as error:
            seen.wrong.append(f"no whole federation to begin with: {error}")
            return seen
        reader.start()
        undo: Undo | None = None
        try:
            if self.cell.phase == "staging":
                scene.bed.link("edge").shape(rate=_STAGING_RATE)
            if self.cell.phase != "planning":
                self._submit()
            self._phase()
            fault = time.time()
            undo = injure(scene, self.cell, self._where())
            if self.cell.phase == "planning" and self.cell.part != "kernel":
                self._ask()
            undo = self._end(undo, fault)
            self._judge_end(fault)
        except Exception as error:
            seen.wrong.append(f"{type(error).__name__}: {error}"[:400])
        finally:
            self._mend(undo)
            reader.stop()
        seen.looks = reader.looks
        seen.wrong += reader.faults
        if self.job:
            right = seen.end == "right"
            seen.wrong += judge.kept(scene, reader, self.job, self.key, ended_right=right)
        seen.wrong += judge.left(scene, warm=scene.warm)
        return seen

    # --- the job --------------------------------------------------------------------------------

    def _ask(self) -> None:
        phase = self.cell.phase
        self.scene.kernel.ask(
            do="begin",
            number=self.number,
            marker=self.marker,
            seconds=4.0 if phase == "running" else 0.0,
            pause=1.0 if phase == "writing" else 0.0,
            coordinator=self.scene.kept_by,
        )

    def _hear(self, word: str, seconds: float) -> dict[str, Any]:
        return self.scene.kernel.hear(word, self.number, seconds)

    def _submit(self) -> None:
        self._ask()
        planned = self._hear("planned", 30)
        if planned["said"] == "ended":
            raise RuntimeError(f"the job was not planned: {planned['text']}")
        (self.key,) = planned["keys"]
        if self.cell.phase == "committing":
            path = f"results/.*{self.key}/COMMIT"
            held = Rule("delay", method="PUT", path=path, seconds=_COMMIT_SECONDS, times=1)
            self.scene.bed.s3.fault(held)
        submitted = self._hear("submitted", 30)
        if submitted["said"] == "ended":
            raise RuntimeError(f"the job was not submitted: {submitted['text']}")
        self.job = submitted["job"]

    def _phase(self) -> None:
        """Wait until the phase has come."""
        scene = self.scene
        match self.cell.phase:
            case "planning":
                if self.cell.part == "kernel":
                    self._ask()
                    self._hear("planning", 30)
            case "staging":
                until(self._copy_ordered, "the copy is ordered", _PHASE_SECONDS * _busy())
                link = scene.bed.link("edge")
                begun = link.bytes
                until(
                    lambda: (link.bytes - begun).from_ > _UNDER_WAY,
                    "the copy is under way",
                    _PHASE_SECONDS * _busy(),
                )
            case "running":
                until(self._where, "the step runs", _PHASE_SECONDS * _busy())
            case "writing":
                until(self._something_written, "something is written", _PHASE_SECONDS * _busy())
            case _:
                until(self._commit_held, "the commit is on its way", _PHASE_SECONDS * _busy())

    def _copy_ordered(self) -> bool:
        known = judge.events(self.scene.journal(), self.job)
        if not known:
            return False
        transfers = {transfer["id"] for transfer in known[0]["plan"]["transfers"]}
        return any(e["type"] == "unit-started" and e["unit"] in transfers for e in known)

    def _where(self) -> tuple[str, int] | None:
        """Host and number of the worker that runs the step."""
        marker = self.scene.disk("hpc").parent / self.marker
        if not marker.exists():
            return None
        name, pid = marker.read_text().split()
        return name, int(pid)

    def _something_written(self) -> bool:
        found = self.s3.list_objects_v2(
            Bucket=self.scene.bucket, Prefix=f"flow/results/{self.key[:2]}/{self.key}/"
        )
        return bool(found.get("KeyCount", 0))

    def _commit_held(self) -> bool:
        return any(rule.met for rule in self.scene.bed.s3.rules)

    # --- the end --------------------------------------------------------------------------------

    def _end(self, undo: Undo, fault: float) -> Undo | None:
        """Wait for the job's end, and lift the fault in time."""
        hold, lifted = self.cell.hold, False
        deadline = fault + _END_SECONDS * _busy()
        while self.ended is None:
            if time.time() > deadline:
                raise TimeoutError(f"the job did not end within {deadline - fault:.0f} s")
            if hold is not None and not lifted and time.time() - fault > hold:
                undo()
                lifted = True
                if not self.scene.kernel_lives:
                    self._again()
            if not self.scene.kernel_lives:
                time.sleep(0.1)
                continue
            try:
                said = self._hear("submitted", 0.2)
            except TimeoutError:
                continue
            if said["said"] == "submitted":
                self.job = said["job"]
            else:
                self.ended = said
        return None if lifted else undo

    def _again(self) -> None:
        """A new notebook takes up what the dead one began, if it had begun it."""
        kernel = self.scene.kernel
        fresh = [job for job in judge.jobs(self.scene.journal()) if job not in self.before]
        if len(fresh) > 1:
            self.seen.wrong.append(f"doubled: one submission made {len(fresh)} jobs")
        if fresh:
            self.job = fresh[0]
            kernel.ask(do="attach", job=self.job, number=self.number)
        else:
            self._ask()

    def _judge_end(self, fault: float) -> None:
        ended, seen, cell = self.ended, self.seen, self.cell
        assert ended is not None
        seen.seconds = ended["at"] - fault
        seen.text = ended.get("text", "")
        if ended["status"] == "done":
            seen.end = "right"
            if not ended["right"]:
                seen.wrong.append("the result is not what NumPy says")
            return
        seen.end = ended["error"] or ended["text"].partition(":")[0]
        if seen.end not in {cls.kind for cls in _all_errors()}:
            seen.wrong.append(f"no typed error: {seen.text}"[:300])
        elif cell.kind == "slow":
            seen.wrong.append(f"slowness is no fault: {seen.text}"[:300])
        elif seen.seconds > cell.knowable + DUE:
            late = seen.seconds - cell.knowable
            seen.wrong.append(f"{late:.0f} s after it was knowable: {seen.text}"[:300])

    def _mend(self, undo: Undo | None) -> None:
        """Everything as it was before."""
        bed = self.scene.bed
        if undo is not None:
            undo()
        if self.job and not self.key:
            created = judge.events(self.scene.journal(), self.job)
            self.key = created[0]["plan"]["outputs"][0] if created else ""
        bed.restore()
        if not bed.healthy:
            bed.repair()
        if self.ended is None and self.job:
            self.scene.kernel.ask(do="cancel", job=self.job)
            with contextlib.suppress(TimeoutError):
                self._hear("ended", 60)


def _all_errors() -> set[type[DataflowError]]:
    found, stack = set(), list(DataflowError.__subclasses__())
    while stack:
        cls = stack.pop()
        found.add(cls)
        stack += cls.__subclasses__()
    return found
