"""What Kubernetes does about Jobs and Pods once they are there, on a cluster of one machine."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataflow.testing.kubernetes.admission import check_restricted
from dataflow.testing.kubernetes.objects import Object, Objects, Refused, now
from dataflow.testing.kubernetes.processes import POD_IP, PodProcess

#: Seconds between two looks of the controllers, if nothing happens.
_LOOK = 0.2
#: Seconds that it takes until an image that cannot be pulled is said to be waited for.
_BACK_OFF = 0.5
MACHINE = "this-machine"


@dataclass(slots=True, kw_only=True)
class World:
    """What the cluster is like; change it to see what happens.

    Attributes
    ----------
    images
        Those that can be pulled.
    cores
        Of the one machine; what does not fit waits unscheduled.
    pods, jobs
        Quota of a namespace; ``None`` for no limit.
    restricted
        Whether Pods must keep the Pod Security Standard of this name.
    claims
        Directories behind PersistentVolumeClaims.
    """

    images: set[str] = field(default_factory=set)
    cores: float = 64.0
    pods: int | None = None
    jobs: int | None = None
    restricted: bool = True
    claims: dict[str, Path] = field(default_factory=dict)


class Controllers:
    """Job controller, scheduler, kubelet and garbage collector in one loop."""

    def __init__(self, objects: Objects, world: World, folder: Path) -> None:
        self.objects, self.world, self._folder = objects, world, folder
        self.processes: dict[str, PodProcess] = {}
        self._since: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: set[str] = set()

    async def run(self) -> None:
        """Do what is to be done, until cancelled; then nothing runs any more."""
        try:
            while True:
                self._look()
                await self.objects.news(_LOOK)
        finally:
            # Waited for, so that nothing of it is left to be collected; one that is just being
            # started is met in the next round.
            while self._tasks:
                for process in self.processes.values():
                    process.kill()
                await asyncio.wait(self._tasks, timeout=0.1)

    def admit(self, kind: str, namespace: str, item: Object) -> None:
        """Refuse an object that a quota or a standard does not let in.

        Raises
        ------
        Refused
            In the words of Kubernetes.
        """
        most = {"pods": self.world.pods, "jobs": self.world.jobs}.get(kind)
        there = len(self.objects.listed(kind, namespace))
        if most is not None and there >= most:
            meta, what = item["metadata"], "pods" if kind == "pods" else "count/jobs.batch"
            name = meta.get("name") or meta.get("generateName")
            word = "pods" if kind == "pods" else "jobs.batch"
            text = f'{word} "{name}" is forbidden: exceeded quota: small, requested: {what}=1, '
            text += f"used: {what}={there}, limited: {what}={most}"
            raise Refused(403, "Forbidden", text)
        if kind == "pods" and self.world.restricted:
            check_restricted(item)

    def delete(self, kind: str, namespace: str, name: str, grace: float | None) -> Object:
        """Delete an object; a Pod's processes end first, within its time.

        Raises
        ------
        Refused
            If it is not there.
        """
        item = self.objects.get(kind, namespace, name)
        if kind == "pods":
            self._end_pod(item, grace)
        else:
            self.objects.remove(kind, namespace, name)
        return item

    # --- looking --------------------------------------------------------------------------------

    def _look(self) -> None:
        for namespace in self._namespaces("jobs"):
            for job in self.objects.listed("jobs", namespace):
                self._look_at_job(job)
        for namespace in self._namespaces("pods"):
            for pod in self.objects.listed("pods", namespace):
                self._look_at_pod(pod)
        for kind, item in self.objects.orphans():
            meta = item["metadata"]
            self.delete(kind, meta["namespace"], meta["name"], None)

    def _namespaces(self, kind: str) -> set[str]:
        return {home for one, home, _ in self.objects.everything() if one == kind}

    def _look_at_job(self, job: Object) -> None:
        meta, spec = job["metadata"], job["spec"]
        status = job.setdefault("status", {})
        if any(condition["type"] in ("Complete", "Failed") for condition in _conditions(status)):
            ttl = spec.get("ttlSecondsAfterFinished")
            if ttl is not None and self._for(meta["uid"], "finished") >= ttl:
                self.objects.remove("jobs", meta["namespace"], meta["name"])
            return
        if "startTime" not in status:
            status["startTime"] = now()
            self._for(meta["uid"], "started")
            self.objects.put("jobs", job)
        limit = spec.get("activeDeadlineSeconds")
        pods = [
            pod
            for pod in self.objects.listed("pods", meta["namespace"])
            if any(
                one["uid"] == meta["uid"] for one in pod["metadata"].get("ownerReferences") or ()
            )
        ]
        if limit is not None and self._for(meta["uid"], "started") >= limit:
            for pod in pods:
                self._end_pod(pod, None)
            text = "Job was active longer than specified deadline"
            self._finish(job, "Failed", "DeadlineExceeded", text)
        elif not pods:
            if self._for(meta["uid"], "pod-made", start=False) >= 0:  # somebody has deleted it
                self._fail(job)
            else:
                self._make_pod(job)
        elif pods[0].get("status", {}).get("phase") == "Succeeded":
            self._finish(job, "Complete", "CompletionsReached", "Reached expected number of pods")
        elif pods[0].get("status", {}).get("phase") == "Failed":
            self._fail(job)
        elif status.get("active") != len(pods):
            status["active"] = len(pods)
            self.objects.put("jobs", job)

    def _fail(self, job: Object) -> None:
        text = "Job has reached the specified backoff limit"
        self._finish(job, "Failed", "BackoffLimitExceeded", text)

    def _finish(self, job: Object, kind: str, reason: str, message: str) -> None:
        status = job["status"]
        status.pop("active", None)
        status["succeeded" if kind == "Complete" else "failed"] = 1
        if kind == "Complete":
            status["completionTime"] = now()
        condition = {"type": kind, "status": "True", "reason": reason, "message": message}
        status["conditions"] = [{**condition, "lastTransitionTime": now()}]
        self._for(job["metadata"]["uid"], "finished")
        self.objects.put("jobs", job)

    def _make_pod(self, job: Object) -> None:
        meta, template = job["metadata"], job["spec"]["template"]
        labels = {"batch.kubernetes.io/job-name": meta["name"], "job-name": meta["name"]}
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"]}
        pod = {
            "metadata": {
                "generateName": f"{meta['name']}-",
                "labels": {**(template["metadata"].get("labels") or {}), **labels},
                "annotations": dict(template["metadata"].get("annotations") or {}),
                "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
            },
            "spec": template["spec"],
            "status": {"phase": "Pending"},
        }
        try:
            self.admit("pods", meta["namespace"], pod)
        except Refused as refusal:
            if self._for(meta["uid"], "refused", start=False) < 0:
                self._for(meta["uid"], "refused")
                self._say(meta, "FailedCreate", f"Error creating: {refusal.message}")
            return
        self._for(meta["uid"], "pod-made")
        self.objects.create("pods", meta["namespace"], pod)

    def _say(self, meta: Object, reason: str, message: str) -> None:
        event = {
            "metadata": {"name": f"{meta['name']}.{secrets.token_hex(8)}"},
            "involvedObject": {"kind": "Job", "name": meta["name"], "uid": meta["uid"]},
            "reason": reason,
            "message": message,
            "type": "Warning",
        }
        self.objects.create("events", meta["namespace"], event)

    def _look_at_pod(self, pod: Object) -> None:
        meta, status = pod["metadata"], pod.setdefault("status", {"phase": "Pending"})
        if meta.get("deletionTimestamp") or status["phase"] != "Pending":
            return
        if "nodeName" not in pod["spec"]:
            if self._used_cores() + _cores(pod) > self.world.cores:
                text = "0/1 nodes are available: 1 Insufficient cpu."
                self._condition(pod, "PodScheduled", "False", "Unschedulable", text)
                return
            pod["spec"]["nodeName"] = MACHINE
            self._condition(pod, "PodScheduled", "True", "", "")
        image = pod["spec"]["containers"][0]["image"]
        if image not in self.world.images:
            waited = self._for(meta["uid"], "pulling")
            reason = "ErrImagePull" if waited < _BACK_OFF else "ImagePullBackOff"
            words = {
                "ErrImagePull": f"{image}: not found",
                "ImagePullBackOff": f'Back-off pulling image "{image}"',
            }
            self._waits(pod, reason, words[reason])
            return
        self._waits(pod, "ContainerCreating", "")
        if meta["uid"] not in self.processes and self._volumes_are_there(pod):
            process = PodProcess(pod, self._folder / meta["name"])
            process.folder.mkdir(parents=True)
            self.processes[meta["uid"]] = process
            self._do(self._run(pod, process))

    def _volumes_are_there(self, pod: Object) -> bool:
        wanted = [one["secret"]["secretName"] for one in _volumes(pod) if "secret" in one]
        return set(wanted) <= set(self._secrets(pod["metadata"]["namespace"]))

    def _secrets(self, namespace: str) -> dict[str, Object]:
        return {
            item["metadata"]["name"]: item for item in self.objects.listed("secrets", namespace)
        }

    # --- processes ------------------------------------------------------------------------------

    async def _run(self, pod: Object, process: PodProcess) -> None:
        meta = pod["metadata"]
        try:
            await process.start(self._secrets(meta["namespace"]), self.world.claims)
        except OSError as error:
            pod["status"]["phase"] = "Failed"
            told = {"exitCode": 128, "reason": "StartError", "message": str(error)}
            self._state(pod, {"terminated": told})
            return
        try:
            pod = self.objects.get("pods", meta["namespace"], meta["name"])
        except Refused:  # deleted meanwhile
            process.kill()
            await process.ended()
            return
        pod["status"] |= {"phase": "Running", "podIP": POD_IP, "startTime": now()}
        self._state(pod, {"running": {"startedAt": now()}})
        code = await process.ended()
        reason = "OOMKilled" if process.too_big else "Completed" if code == 0 else "Error"
        ended: Object = {"exitCode": code, "reason": reason, "finishedAt": now()}
        if code and process.last_words():
            ended["message"] = process.last_words()
        try:
            pod = self.objects.get("pods", meta["namespace"], meta["name"])
        except Refused:
            return
        pod["status"]["phase"] = "Failed" if code else "Succeeded"
        self._state(pod, {"terminated": ended})

    def _end_pod(self, pod: Object, grace: float | None) -> None:
        meta = pod["metadata"]
        process = self.processes.get(meta["uid"])
        if grace is None:
            grace = float(pod["spec"].get("terminationGracePeriodSeconds", 30))
        if grace == 0 or process is None:
            if process is not None:
                process.kill()
            self.objects.remove("pods", meta["namespace"], meta["name"])
        elif meta["uid"] not in self._ending:
            self._ending.add(meta["uid"])
            meta["deletionTimestamp"] = now()
            self.objects.put("pods", pod)
            self._do(self._end_slowly(pod, process, grace))

    async def _end_slowly(self, pod: Object, process: PodProcess, grace: float) -> None:
        await process.stop(grace)
        self.objects.remove("pods", pod["metadata"]["namespace"], pod["metadata"]["name"])
        shutil.rmtree(process.folder / "volumes", ignore_errors=True)

    def _do(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- status ---------------------------------------------------------------------------------

    def _waits(self, pod: Object, reason: str, message: str) -> None:
        told = {"reason": reason, **({"message": message} if message else {})}
        self._state(pod, {"waiting": told})

    def _state(self, pod: Object, state: Object) -> None:
        container = pod["spec"]["containers"][0]
        told = {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "state": state,
        }
        pod["status"]["containerStatuses"] = [
            {**told, "ready": "running" in state, "restartCount": 0}
        ]
        self.objects.put("pods", pod)

    def _condition(self, pod: Object, kind: str, value: str, reason: str, message: str) -> None:
        told = {"type": kind, "status": value, "reason": reason, "message": message}
        pod["status"]["conditions"] = [{key: word for key, word in told.items() if word}]
        self.objects.put("pods", pod)

    def _used_cores(self) -> float:
        return sum(
            _cores(pod)
            for namespace in self._namespaces("pods")
            for pod in self.objects.listed("pods", namespace)
            if "nodeName" in pod["spec"]
            and pod.get("status", {}).get("phase") in ("Pending", "Running")
        )

    def _for(self, uid: str, what: str, *, start: bool = True) -> float:
        """Seconds since this was first asked of an object; -1 if it never was and does not start."""
        key = f"{uid}/{what}"
        if not start and key not in self._since:
            return -1.0
        return time.monotonic() - self._since.setdefault(key, time.monotonic())


def _volumes(pod: Object) -> list[Object]:
    return list(pod["spec"].get("volumes") or ())


def _conditions(status: Object) -> list[Object]:
    return list(status.get("conditions") or ())


def _cores(pod: Object) -> float:
    total = 0.0
    for container in pod["spec"]["containers"]:
        asked = str(container.get("resources", {}).get("requests", {}).get("cpu", "0"))
        total += float(asked.removesuffix("m")) / (1000 if asked.endswith("m") else 1)
    return total
