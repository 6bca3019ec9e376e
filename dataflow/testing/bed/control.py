"""Control: one question, one answer, as JSON lines over a socket in the file system.

A path is reached from every network namespace, so that a program inside a host is told what to do
without touching the networks under test.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

Answer = Callable[[dict[str, Any]], dict[str, Any]]


def listen(path: Path) -> socket.socket:
    """A listening socket at ``path``, for root only."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(8)
    return listener


def serve_one(listener: socket.socket, answer: Answer) -> None:
    """Take one connection and answer its one question; a bad question gets its error back."""
    connection, _ = listener.accept()
    with connection, contextlib.suppress(OSError):
        connection.settimeout(2.0)
        question = connection.makefile("rb").readline()
        try:
            said = answer(json.loads(question))
        except (ValueError, KeyError, TypeError) as error:
            said = {"error": f"{type(error).__name__}: {error}"}
        connection.sendall(json.dumps(said).encode() + b"\n")


def ask(path: Path, question: dict[str, Any], *, timeout: float = 10.0) -> dict[str, Any]:
    """Ask the program that listens at ``path``; OSError if none does, ValueError if it objects."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(str(path))
        connection.sendall(json.dumps(question).encode() + b"\n")
        line = connection.makefile("rb").readline()
    if not line:
        raise ConnectionError(f"{path}: no answer")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer
