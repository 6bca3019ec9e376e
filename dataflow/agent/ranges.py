"""The Range header of HTTP: which bytes of an object are wanted. Pure."""

from __future__ import annotations

import re

_RANGE = re.compile(r"bytes=(\d*)-(\d*)\Z")

#: More digits than any size; such numbers are not worth turning into integers.
_LONGEST = 18


class Unsatisfiable(ValueError):
    """None of the bytes asked for exists."""


def wanted(header: str | None, size: int) -> tuple[int, int] | None:
    """Start and end (exclusive) of the bytes asked for; ``None`` for the whole object.

    As RFC 9110 has it: ``bytes=2-5``, ``bytes=2-``, ``bytes=-4`` (the last four). An end past the
    object is cut to its size. What is malformed, in another unit, or asks for several ranges
    is ignored: the whole object is the answer.

    Raises
    ------
    Unsatisfiable
        If the range starts past the end, or asks for the last zero bytes.
    """
    match = _RANGE.match((header or "").replace(" ", "").replace("\t", ""))
    if match is None or not (match[1] or match[2]):
        return None
    first, last = (int(text) if text and len(text) <= _LONGEST else None for text in match.groups())
    if len(match[1]) > _LONGEST or (not match[1] and last == 0):
        raise Unsatisfiable(header)
    if first is None:
        start, end = max(size - (size if last is None else last), 0), size
    else:
        if last is not None and last < first:
            return None
        start, end = first, size if last is None else min(last + 1, size)
    if start >= size:
        raise Unsatisfiable(header)
    return start, end
