"""Needs: what a program asks of the place where it runs. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dataflow._quantities import parse_bytes, parse_seconds
from dataflow.errors import ConfigError, GraphError

#: Names of queues are handed to programs as arguments: one word that is no option.
_QUEUE = re.compile(r"[\w.][\w.@:/+-]*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What one run of a program asks for; where nothing is said, the site decides.

    Attributes
    ----------
    cores
        Slots at a batch system; elsewhere nothing but a word for the reader.
    memory
        Bytes in all, not for each core; 0 for what the site gives.
    walltime
        Seconds after which it is ended; 0 for the site's own limit.
    queue
        Of the batch system; empty for the site's own choice.
    """

    cores: int = 1
    memory: int = 0
    walltime: float = 0.0
    queue: str = ""


def needs_of(
    operation: str,
    *,
    cores: int = 1,
    memory: str | int = 0,
    walltime: str | float = 0,
    queue: str = "",
) -> Needs:
    """Needs as people write them: ``memory="2 GB"``, ``walltime="10 min"``; numbers are bytes and seconds.

    Raises
    ------
    GraphError
        If one of them makes no sense.
    """
    try:
        nbytes = parse_bytes(memory, "memory") if isinstance(memory, str) else int(memory)
        seconds = (
            parse_seconds(walltime, "walltime") if isinstance(walltime, str) else float(walltime)
        )
    except ConfigError as error:
        raise GraphError(f"{operation}: {error.message}") from None
    if isinstance(cores, bool) or not isinstance(cores, int) or cores < 1:
        raise GraphError(f"{operation}: cores={cores!r} must be a whole number from 1")
    if nbytes < 0 or not 0 <= seconds < float("inf"):
        raise GraphError(f"{operation}: memory and walltime must not be less than nothing")
    if queue and not _QUEUE.match(queue):
        raise GraphError(f"{operation}: {queue!r} is no name of a queue")
    return Needs(cores=cores, memory=nbytes, walltime=seconds, queue=queue)


def is_queue(name: str) -> bool:
    """Whether this may stand as a queue's name on a command line."""
    return bool(_QUEUE.match(name))
