"""Cable: carries the frames of one link, each handed over some time after it was taken.

A program of its own: ``cable.py PORT PEER SOCKET`` makes two TAP interfaces and copies every frame
from one to the other, so that delay, loss and cuts hold for every protocol, the first packet of a
connection included. Rates are the kernel's affair (a token bucket on each interface). The
interfaces live as long as this process, wherever they are moved.

Over SOCKET it is told what each direction is like; ``to`` is from PORT to PEER.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import select
import struct
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

_TUNSETIFF = 0x400454CA
_TAP_WITHOUT_HEADER = 0x0002 | 0x1000
_FRAME = 2048
_AT_ONCE = 64
#: Bytes that may be under way in one direction; more are lost, as in any network.
_MOST_UNDER_WAY = 256 * 2**20


class Lane:
    """One direction."""

    def __init__(self, source: int, target: int) -> None:
        self.source, self.target = source, target
        self.latency = self.loss = 0.0
        self.open = True
        #: What the caller wants remembered: the rate, which the kernel enforces.
        self.rate = 0.0
        self.carried = self.lost = 0
        self._dice = random.Random(0)
        self._frames: deque[tuple[float, bytes]] = deque()
        self._under_way = 0

    def set(self, *, seed: int | None = None, **values: float | bool) -> None:
        """Change what is named; frames under way keep their time unless the lane is closed."""
        for name, value in values.items():
            if name not in ("latency", "loss", "open", "rate"):
                raise ValueError(f"a lane has no {name!r}")
            setattr(self, name, value)
        if seed is not None:
            self._dice.seed(seed)
        if not self.open:
            self.lost += len(self._frames)
            self._frames.clear()
            self._under_way = 0

    def facts(self) -> dict[str, float | bool]:
        """What it is like, and how many frames it carried and lost."""
        return {
            "latency": self.latency,
            "loss": self.loss,
            "open": self.open,
            "rate": self.rate,
            "carried": self.carried,
            "lost": self.lost,
        }

    def take(self, now: float) -> None:
        """Take what has arrived; what need not wait goes on at once."""
        for _ in range(_AT_ONCE):
            try:
                frame = os.read(self.source, _FRAME)
            except BlockingIOError:
                return
            if (
                not self.open
                or self._under_way > _MOST_UNDER_WAY
                or (self.loss and self._dice.random() < self.loss)
            ):
                self.lost += 1
            elif self.latency or self._frames:
                self._frames.append((now + self.latency, frame))
                self._under_way += len(frame)
            else:
                self._give(frame)

    def deliver(self, now: float) -> float | None:
        """Hand over what is due; seconds until the next, None if nothing is under way."""
        while self._frames:
            due, frame = self._frames[0]
            if due > now:
                return due - now
            self._frames.popleft()
            self._under_way -= len(frame)
            self._give(frame)
        return None

    def _give(self, frame: bytes) -> None:
        try:
            os.write(self.target, frame)
        except OSError:  # nobody at the other end: the interface is down
            self.lost += 1
        else:
            self.carried += 1


def tap(name: str) -> int:
    """A new TAP interface; it goes when the descriptor does."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    request = struct.pack("16sH22x", name.encode(), _TAP_WITHOUT_HEADER)
    fcntl.ioctl(descriptor, _TUNSETIFF, request)
    return descriptor


def main(port: str, peer: str, path: str) -> None:
    """Carry until an interface is gone."""
    from dataflow.testing.bed import control

    near, far = tap(port), tap(peer)
    to, from_ = Lane(near, far), Lane(far, near)
    listener = control.listen(Path(path))

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        for name, lane in (("to", to), ("from", from_)):
            lane.set(**question.get(name, {}))
        return {"to": to.facts(), "from": from_.facts()}

    lanes = {near: to, far: from_}
    watched = [near, far, listener.fileno()]
    waiting: float | None = None
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            # select waits to the microsecond; poll and epoll only to the millisecond.
            readable, _, _ = select.select(watched, [], [], waiting)
            now = time.monotonic()
            for descriptor in readable:
                if descriptor in lanes:
                    lanes[descriptor].take(now)
                else:
                    control.serve_one(listener, answer)
            now = time.monotonic()
            pauses = [pause for lane in (to, from_) if (pause := lane.deliver(now)) is not None]
            waiting = min(pauses) if pauses else None


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    main(*sys.argv[1:])
