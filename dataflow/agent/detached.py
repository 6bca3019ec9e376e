"""An agent that outlives whoever starts it: found if it runs, else started; then where it answers.

This is what a connection by SSH runs on a login host. What it prints is one line that begins with
:data:`MARK`, so that whatever a login prints beside it does no harm.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from dataflow.agent.auth import first_token
from dataflow.errors import SiteUnreachable
from dataflow.versions import versions

#: Where a running agent says how to reach it, in its state directory, and its tokens.
ADDRESS_FILE, TOKEN_FILE = "agent.json", "tokens"

#: What the line with the answer begins with.
MARK = "dataflow-agent: "

#: Seconds for an agent to come up, imports from a cold network file system included.
START_SECONDS = 60.0
#: Seconds that an agent which does not answer any more gets to end.
ENDING_SECONDS = 10.0

#: Descriptors up to this number are not handed on to an agent.
MOST_OPEN = 1024

LOG_FILE, LOCK_FILE, SOCKET_FILE = "agent.log", "agent.lock", "agent.sock"


def ensure_agent(site: str, state: Path, tokens: Path | None) -> str | None:
    """See to it that an agent of a state directory runs; the line to print, where one runs.

    If none does, this process divides: what comes back with ``None`` is a process of its own, in the
    background, and is to serve the site. That saves it the start of another interpreter, and all that
    this one has read and imported already. Must be called by a process of one thread.

    Raises
    ------
    SiteUnreachable
        If it does not come up, with the end of its log.
    """
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(state / LOCK_FILE) as lock:
        found = _running(state)
        started = found is None
        if found is None:
            log = state / LOG_FILE
            before = log.stat().st_size if log.exists() else 0
            sys.stdout.flush()
            sys.stderr.flush()
            agent = os.fork()
            if agent == 0:
                _into_background(state, lock)
                return None
        ours = dict(versions())  # while it starts
        if found is None:
            found = _started(site, state, agent, before)
    document = {
        **found,
        "token": first_token(tokens or state / TOKEN_FILE),
        "started": started,
        "versions": ours,
    }
    return MARK + json.dumps(document)


@contextmanager
def _alone(path: Path) -> Iterator[int]:
    """Two connections at once start one agent."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def _running(state: Path) -> Mapping[str, Any] | None:
    """What the agent of this directory says of itself, if its process is alive."""
    limit = time.monotonic() + ENDING_SECONDS
    while True:
        try:
            found = dict(json.loads((state / ADDRESS_FILE).read_text()))
            host, pid, address = found.get("host", ""), int(found["pid"]), str(found["address"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if host and host != socket.gethostname():
            raise SiteUnreachable(
                str(found.get("site", "")),
                f"its agent runs on {host}, and this is {socket.gethostname()}: say ssh://{host}, or "
                f"remove {state / ADDRESS_FILE} if nothing runs there any more",
            )
        if _answers(address):
            return found
        # It may be about to end; a number alone says nothing, as it may be another's by now.
        if not _exists(pid) or time.monotonic() > limit:
            return None
        time.sleep(0.1)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _answers(address: str) -> bool:
    """Whether somebody listens there."""
    parts = urlsplit(address)
    try:
        if parts.scheme == "unix":
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as attempt:
                attempt.settimeout(2.0)
                attempt.connect(unquote(parts.path))
        else:
            where = (parts.hostname or "127.0.0.1", parts.port or 80)
            socket.create_connection(where, timeout=2.0).close()
    except OSError:
        return False
    return True


def _into_background(state: Path, lock: int) -> None:
    """Leave whoever started us: their session, their streams, their directory."""
    os.setsid()
    os.chdir(state)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(state / LOG_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(nothing, 0)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.closerange(3, lock)  # which our caller closes; it is given back when both of us have
    os.closerange(lock + 1, MOST_OPEN)


def _started(site: str, state: Path, agent: int, before: int) -> Mapping[str, Any]:
    """What a process says of itself once it serves."""
    log = state / LOG_FILE
    limit = time.monotonic() + START_SECONDS
    while time.monotonic() < limit:
        found = _running(state)
        if found is not None and found["pid"] == agent:
            return found
        if os.waitpid(agent, os.WNOHANG)[0]:
            reason = f"its agent ended at once: {_said(log, before)}"
            raise SiteUnreachable(site, reason)
        time.sleep(0.01)
    os.kill(agent, signal.SIGTERM)
    reason = f"its agent did not come up in {START_SECONDS:g} s: {_said(log, before)}"
    raise SiteUnreachable(site, reason)


def _said(log: Path, since: int) -> str:
    """The last line of a log that was written after a position."""
    with log.open("rb") as file:
        file.seek(since)
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
