"""A Pod as a process of this machine: its command, its variables, its volumes, its end."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

import dataflow
from dataflow.testing.kubernetes.objects import Object

#: Address of every Pod here: there is but one machine.
POD_IP = "127.0.0.1"
_LAST_WORDS = 2048


class PodProcess:
    """The one container of a Pod, run without a container.

    What is true here too: the command, the variables (none of this process's own), files of Secrets
    and their modes, scratch directories, limits of memory, signals and exit codes. What is not: the
    image, the user, the read-only root, capabilities, limits of CPU, the network.
    """

    def __init__(self, pod: Object, folder: Path) -> None:
        self.pod, self.folder = pod, folder
        self.name = str(pod["metadata"]["name"])
        self._container: Mapping[str, Any] = pod["spec"]["containers"][0]
        self._process: asyncio.subprocess.Process | None = None
        self.too_big = False
        #: All of it has ended: its number may be that of somebody else's process by now.
        self._over = False

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return None if self._process is None else self._process.pid

    async def start(self, secrets: Mapping[str, Object], claims: Mapping[str, Path]) -> None:
        """Lay out the volumes and start the command."""
        mounted = self._mount(secrets, claims)
        environment = self._environment(mounted)
        command = [
            _elsewhere(_expanded(word, environment), mounted)
            for word in (*self._container.get("command", ()), *self._container.get("args", ()))
        ]
        output = self.folder / "log"
        with output.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                env=environment,
                cwd=self.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def ended(self) -> int:
        """Wait for the end; the exit code as containers have it: 128 and the signal."""
        assert self._process is not None
        limit = _bytes(self._container.get("resources", {}).get("limits", {}).get("memory", "0"))
        waiting = asyncio.ensure_future(self._process.wait())
        while not (await asyncio.wait({waiting}, timeout=0.2))[0]:
            if limit and self._memory() > limit:
                self.too_big = True
                self.kill()
        code = waiting.result()
        self.kill()  # children that were left behind
        self._over = True
        return code if code >= 0 else 128 - code

    async def stop(self, grace: float) -> None:
        """Ask for the end, and bring it about after ``grace`` seconds."""
        if self._process is None or self._process.returncode is not None:
            return
        if grace > 0:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._process.wait()
        self.kill()

    def kill(self) -> None:
        """End all processes of the Pod at once."""
        self._signal(signal.SIGKILL)

    def last_words(self) -> str:
        """End of what it wrote."""
        with contextlib.suppress(OSError):
            return (self.folder / "log").read_text(errors="replace")[-_LAST_WORDS:]
        return ""

    def _signal(self, number: int) -> None:
        if self._process is not None and not self._over:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _memory(self) -> int:
        total = 0
        with contextlib.suppress(psutil.NoSuchProcess):
            assert self._process is not None
            one = psutil.Process(self._process.pid)
            for process in (one, *one.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    total += process.memory_info().rss
        return total

    def _mount(self, secrets: Mapping[str, Object], claims: Mapping[str, Path]) -> dict[str, Path]:
        """Directories of this machine by the path at which the container sees them."""
        places: dict[str, Path] = {}
        for volume in self.pod["spec"].get("volumes") or ():
            place = self.folder / "volumes" / volume["name"]
            if "persistentVolumeClaim" in volume:
                place = claims[volume["persistentVolumeClaim"]["claimName"]]
            place.mkdir(parents=True, exist_ok=True)
            if "secret" in volume:
                secret = secrets[volume["secret"]["secretName"]]
                for name, text in (secret.get("data") or {}).items():
                    (place / name).write_bytes(base64.b64decode(text))
                    (place / name).chmod(volume["secret"].get("defaultMode", 0o644))
            places[volume["name"]] = place
        mounts = self._container.get("volumeMounts") or ()
        return {mount["mountPath"]: places[mount["name"]] for mount in mounts}

    def _environment(self, mounted: Mapping[str, Path]) -> dict[str, str]:
        # The "image": this interpreter first, and this package.
        environment = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
            "PYTHONPATH": str(Path(dataflow.__file__).parents[1]),
        }
        for variable in self._container.get("env") or ():
            source = (variable.get("valueFrom") or {}).get("fieldRef", {}).get("fieldPath")
            told = {"status.podIP": POD_IP, "metadata.name": self.name}
            value = told[source] if source else _expanded(variable.get("value", ""), environment)
            environment[variable["name"]] = _elsewhere(value, mounted)
        return environment


def _expanded(text: str, environment: Mapping[str, str]) -> str:
    return re.sub(r"\$\((\w+)\)", lambda found: environment.get(found[1], found[0]), text)


def _elsewhere(text: str, mounted: Mapping[str, Path]) -> str:
    for path, place in mounted.items():
        if text == path or text.startswith(path + "/"):
            return str(place) + text[len(path) :]
    return text


def _bytes(quantity: str) -> int:
    found = re.fullmatch(r"([0-9.]+)([KMG]i?)?", quantity)
    assert found is not None, quantity
    unit = (found[2] or "").rstrip("i")
    base = 1024 if (found[2] or "").endswith("i") else 1000
    return int(float(found[1]) * base ** (" KMG".index(unit) if unit else 0))
