"""Where a result lies and how it is cut into chunks. Pure: numbers in, numbers out.

::

    <root>/results/<key[:2]>/<key>/COMMIT.json       there is a result, and this is the list of it
    <root>/results/<key[:2]>/<key>/<attempt>/…       what one attempt wrote
    <root>/copies/…                                  the same, for copies from other sites

A Zarr chunk is never touched by two tasks: every block that a task writes starts on a chunk
boundary and ends on one, or at the end of the array.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Literal

Area = Literal["results", "copies"]

COMMIT = "COMMIT.json"

#: Bytes of a block in memory that is read at a time, as near as whole stored chunks allow.
READ_NBYTES = 64 * 2**20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def key_prefix(area: Area, key: str) -> str:
    """Path below the root under which everything about ``key`` lies."""
    _checked("key", key)
    return f"{area}/{key[:2]}/{key}"


def attempt_prefix(area: Area, key: str, attempt: str) -> str:
    """Path below the root under which one attempt writes, and nobody else."""
    _checked("attempt", attempt)
    if attempt == COMMIT:
        raise ValueError(f"an attempt cannot be called {COMMIT}")
    return f"{key_prefix(area, key)}/{attempt}"


def _checked(what: str, word: str) -> None:
    if not _NAME.fullmatch(word):
        raise ValueError(
            f"{what} {word!r} must be 1-200 letters, digits, '.', '_' or '-', not starting with a sign"
        )


@dataclass(frozen=True, slots=True)
class Cut:
    """How an array is cut.

    Attributes
    ----------
    chunks
        Shape of a Zarr chunk.
    blocks
        Shape of the Dask block that a task gets: in every dimension a whole multiple of ``chunks``,
        or the whole dimension.
    together
        Neighbouring blocks that one task writes, so that enough puts are in flight.
    """

    chunks: tuple[int, ...]
    blocks: tuple[int, ...]
    together: int = 1


def cut(
    shape: Sequence[int],
    itemsize: int,
    *,
    blocks: Sequence[Sequence[int]] | None = None,
    chunk_nbytes: int,
    in_flight: int = 8,
) -> Cut:
    """Chunks near ``chunk_nbytes`` that respect the blocks there are.

    Parameters
    ----------
    blocks
        Lengths of the Dask blocks in each dimension; ``None`` for an array in memory.
    in_flight
        Chunks that a task should have to write at a time, if the array has as many.

    Returns
    -------
    Cut
        If ``cut.blocks`` differs from the lengths given, the caller rechunks first. Blocks of
        equal length stay as they are, unless they are so small that they are merged.
    """
    whole = tuple(max(int(length), 1) for length in shape)
    if blocks is None:
        return Cut(_shrunk(whole, itemsize, chunk_nbytes, whole)[0], whole)
    regular = tuple(
        min(max([1, *(int(n) for n in lengths)]), length)
        for lengths, length in zip(blocks, whole, strict=True)
    )
    grown = _grown(regular, whole, itemsize, chunk_nbytes)
    chunks, grown = _shrunk(grown, itemsize, chunk_nbytes, whole)
    per_block = prod(ceil(b / c) for b, c in zip(grown, chunks, strict=True))
    return Cut(chunks, grown, max(1, in_flight // per_block))


def _grown(
    block: tuple[int, ...], shape: tuple[int, ...], itemsize: int, nbytes: int
) -> tuple[int, ...]:
    """Whole multiples of ``block`` of at least a quarter of ``nbytes``: last dimensions first."""
    grown = list(block)
    for dim in reversed(range(len(block))):
        size = prod(grown) * itemsize
        if size * 4 >= nbytes:
            break
        grown[dim] = min(grown[dim] * max(nbytes // size, 1), shape[dim])
    return tuple(grown)


def _shrunk(
    block: tuple[int, ...], itemsize: int, nbytes: int, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A chunk of at most ``nbytes``, and the block as a whole multiple of it.

    Leading dimensions are cut first: that keeps a chunk one run of memory. A dimension that its
    block covers whole is cut into even parts, the last of which may be short. Another block keeps
    its length if it has a divisor near the length wanted, and grows by a little if it has none.
    """
    chunk, fitted = list(block), list(block)
    for dim in range(len(block)):
        size = prod(chunk) * itemsize
        if size <= nbytes:
            break
        most = max(1, chunk[dim] * nbytes // size)
        even = ceil(chunk[dim] / ceil(chunk[dim] / most))
        if block[dim] >= shape[dim]:
            chunk[dim] = even
            continue
        divisor = next(n for n in range(most, 0, -1) if block[dim] % n == 0)
        if divisor * 4 < most:
            divisor = even
            fitted[dim] = min(even * ceil(block[dim] / even), shape[dim])
        chunk[dim] = divisor
    return tuple(chunk), tuple(fitted)


def stored_multiple(
    shape: Sequence[int], stored: Sequence[int] | None, itemsize: int, nbytes: int
) -> tuple[int, ...]:
    """The block to read at a time: whole stored chunks, near ``nbytes``.

    Grown from one stored chunk along the last dimensions first, which is the order of the bytes; an
    array without chunks is cut along its leading dimensions.
    """
    whole = tuple(max(int(length), 1) for length in shape)
    if stored is None:
        return _shrunk(whole, itemsize, nbytes, whole)[0]
    block = [min(max(int(s), 1), w) for s, w in zip(stored, whole, strict=True)]
    for dim in reversed(range(len(block))):
        room = nbytes // max(prod(block) * itemsize, 1)
        if room < 2:
            break
        block[dim] = min(block[dim] * room, whole[dim])
    return tuple(block)
