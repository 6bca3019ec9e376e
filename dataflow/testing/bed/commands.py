"""Run a program of the system and say what it said when it failed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_STARTED = time.monotonic()
#: What programs of the bed see, whatever the caller's own environment holds.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}


class BedError(RuntimeError):
    """The test bed is not as it should be; the message says what to do."""


def say(message: str) -> None:
    """One line of progress on standard error, with the seconds since the start."""
    print(f"{time.monotonic() - _STARTED:6.2f} s  {message}", file=sys.stderr, flush=True)


def run(
    *command: str | Path,
    check: bool = True,
    timeout: float = 60,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run to the end; BedError with the command and its words if it fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            env=ENVIRONMENT | dict(environment or {}),
        )
    except subprocess.TimeoutExpired as error:
        raise BedError(f"{_shown(words)}: no end after {timeout:g} s") from error
    except FileNotFoundError as error:
        raise BedError(f"{words[0]} is not installed; run hpc/testbed/bed-up as root") from error
    if check and done.returncode:
        raise BedError(
            f"{_shown(words)}: exit {done.returncode}\n{(done.stderr or done.stdout).strip()}"
        )
    return done


def start(*command: str | Path, log: Path, environment: Mapping[str, str] | None = None) -> int:
    """Start a program that stays, in a session of its own; its pid. It writes to ``log``."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=ENVIRONMENT | dict(environment or {}),
        )
    process.returncode = 0  # nobody will ask how it ended, so nobody need be warned of that
    return process.pid


def wait(what: str, ready: Callable[[], bool], *, seconds: float, pause: float = 0.05) -> None:
    """Ask again and again until ``ready``; BedError naming ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise BedError(f"{what}: not after {seconds:g} s")
        time.sleep(pause)


def _shown(words: Sequence[str]) -> str:
    line = " ".join(words)
    return line if len(line) < 300 else f"{line[:300]}…"
