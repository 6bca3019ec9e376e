"""The workers of one host that was reached by SSH; run there as ``python -m dataflow.backends.remote``.

The first line of standard input is a JSON mapping that says what to start; the certificate stands in
it, so that it appears on no command line and in no file. After that a line must come every now and
then. When none has come for too long, or the input ends, the workers are ended: whatever becomes of
the connection, or of the process at its other end, nothing is left behind here.

What the other end must know is written to standard output, in lines that begin with :data:`MARK`;
everything else there is from the user's shell, and is passed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

#: How a line begins that is for the other end.
MARK = "dataflow-workers: "

#: Seconds for the workers to end by themselves; then they are killed.
_PATIENCE = 3.0


def tell(**facts: Any) -> None:
    """Write one line for the other end; it may be gone."""
    with contextlib.suppress(OSError):
        print(MARK + json.dumps(facts), flush=True)


def address_towards(host: str, port: int) -> str:
    """The address of this host that packets to another one come from; OSError if none go there."""
    family, kind, *_, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as end:
        end.connect(target)  # of a datagram socket: nothing is sent
        return str(end.getsockname()[0])


def listen(heard: Callable[[], None], ended: Callable[[], None]) -> None:
    """Read what is left of standard input in a thread of its own."""

    def read() -> None:
        with contextlib.suppress(OSError, ValueError):
            while sys.stdin.readline():
                heard()
        ended()

    threading.Thread(target=read, daemon=True).start()


async def serve(order: Mapping[str, Any]) -> None:
    """Have workers until nobody wants them any more.

    Parameters
    ----------
    order
        ``scheduler``, ``names``, ``threads``, ``memory``, ``scratch``, ``imports``, ``environment``,
        ``silence`` (seconds), and ``tls``: the keywords of :class:`distributed.Security`.
    """
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    last = loop.time()

    def heard() -> None:
        nonlocal last
        last = loop.time()

    listen(lambda: _in_loop(loop, heard), lambda: _in_loop(loop, over.set))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, over.set)

    from distributed import Nanny
    from distributed.security import Security

    scheduler = urlsplit(order["scheduler"])
    here = address_towards(scheduler.hostname or "", scheduler.port or 0)
    nannies: dict[str, Any] = {}

    async def keep(name: str) -> None:
        """One worker after the other, if it ends for good without being told to."""
        while True:
            nannies[name] = Nanny(
                order["scheduler"],
                name=name,
                nthreads=order["threads"],
                memory_limit=order["memory"],
                local_directory=order["scratch"],
                host=here,
                protocol="tls",
                security=Security(**order["tls"]),  # type: ignore[no-untyped-call]
                preload=list(order["imports"]),
                env=dict(order["environment"]),
                death_timeout=order["silence"],
                dashboard=False,
            )
            await nannies[name]
            if len(nannies) == len(order["names"]):
                tell(started=here)
            await nannies[name].finished()

    async def watch() -> None:
        while not over.is_set() and loop.time() - last < order["silence"]:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await over.wait()

    tasks = [
        asyncio.ensure_future(watch()),
        *(asyncio.ensure_future(keep(n)) for n in order["names"]),
    ]
    try:
        (first, *_), _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        first.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await _end(list(nannies.values()))


async def _end(nannies: list[Any]) -> None:
    import psutil

    family = psutil.Process().children(recursive=True)
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_PATIENCE):
            await asyncio.gather(*(nanny.close(timeout=1) for nanny in nannies))
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _in_loop(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # it has ended meanwhile
        loop.call_soon_threadsafe(what)


def main() -> int:
    """Read the order, serve it, and say why if that fails."""
    try:
        order = json.loads(sys.stdin.readline())
    except ValueError:
        tell(failed="no order was given")
        return 2
    from dataflow.versions import versions

    tell(versions=dict(versions()))
    try:
        asyncio.run(serve(order))
    except Exception as error:
        tell(failed=f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
