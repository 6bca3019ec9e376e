"""Programs at both ends of a link: what is sent, and how long it takes."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator

from dataflow.testing.bed import Bed

_ECHO = """
import socket, sys, threading
def serve(end):
    with end:
        while data := end.recv(1 << 18):
            end.sendall(data)
listener = socket.create_server((sys.argv[1], 0))
print(listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
_SINK = """
import socket, sys
listener = socket.create_server((sys.argv[1], 0))
print(listener.getsockname()[1], flush=True)
while True:
    end, _ = listener.accept()
    with end:
        while end.recv(1 << 18):
            pass
        end.sendall(b"all")
"""
_UDP = """
import socket, sys
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.bind((sys.argv[1], 0))
print(end.getsockname()[1], flush=True)
while True:
    end.recv(65536)
"""


@contextlib.contextmanager
def serving(bed: Bed, name: str, program: str) -> Iterator[tuple[str, int]]:
    address = bed.address(name)
    process = bed.host(name).start(["/usr/bin/python3", "-c", program, address])
    try:
        assert process.stdout is not None
        yield address, int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def until(ready: Callable[[], object], *, seconds: float = 30) -> None:
    """Look again and again until it is so."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"not after {seconds} s"
        time.sleep(0.02)


def say(what: str, begun: float) -> None:
    """Seconds for whoever reads the report of a test."""
    print(f"{what}: {time.monotonic() - begun:.2f} s", flush=True)


def within(seconds: float) -> float:
    """What a scenario's deadline is while others keep the machine busy; all sites are on this one."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def echo(bed: Bed, name: str) -> contextlib.AbstractContextManager[tuple[str, int]]:
    return serving(bed, name, _ECHO)


def sink(bed: Bed, name: str) -> contextlib.AbstractContextManager[tuple[str, int]]:
    return serving(bed, name, _SINK)


def datagrams(bed: Bed, name: str) -> contextlib.AbstractContextManager[tuple[str, int]]:
    return serving(bed, name, _UDP)


def seconds_to_send(where: tuple[str, int], nbytes: int) -> float:
    with socket.create_connection(where, 60) as end:
        begun = time.monotonic()
        end.sendall(bytes(nbytes))
        end.shutdown(socket.SHUT_WR)
        assert end.recv(3) == b"all"
        return time.monotonic() - begun


def round_trip(where: tuple[str, int], times: int = 3) -> float:
    """The shortest time in which a connection was made: one round trip."""
    found = []
    for _ in range(times):
        begun = time.monotonic()
        socket.create_connection(where, 30).close()
        found.append(time.monotonic() - begun)
    return min(found)
