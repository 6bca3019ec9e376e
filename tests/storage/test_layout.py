"""Cutting arrays: properties that hold for every shape."""

from __future__ import annotations

from itertools import product
from math import ceil, prod

import pytest
from dask.array.core import normalize_chunks
from hypothesis import given
from hypothesis import strategies as st

from dataflow.storage.layout import attempt_prefix, cut, key_prefix, stored_multiple

shapes = st.lists(st.integers(0, 5000), min_size=0, max_size=4).map(tuple)
sizes = st.sampled_from([1, 2, 4, 8, 16])
budgets = st.integers(1, 2**24)


@st.composite
def blocked(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """A shape with the lengths of its blocks, even or uneven."""
    lengths = draw(
        st.lists(
            st.one_of(
                st.lists(st.integers(1, 300), min_size=1, max_size=6),
                st.tuples(st.integers(1, 300), st.integers(1, 6)).map(lambda p: [p[0]] * p[1]),
            ),
            min_size=1,
            max_size=3,
        )
    )
    return tuple(map(sum, lengths)), tuple(map(tuple, lengths))


@given(blocked(), sizes, budgets)
def test_no_chunk_belongs_to_two_blocks(case, itemsize, nbytes) -> None:
    shape, lengths = case
    found = cut(shape, itemsize, blocks=lengths, chunk_nbytes=nbytes)
    for length, chunk, block in zip(shape, found.chunks, found.blocks, strict=True):
        assert 1 <= chunk <= block <= length
        assert block % chunk == 0 or block == length
        # Every start of a block, as Dask will cut it, is the start of a chunk.
        assert all(start % chunk == 0 for start in range(0, length, block))


@given(blocked(), sizes, budgets)
def test_chunks_are_near_the_size_wanted(case, itemsize, nbytes) -> None:
    shape, lengths = case
    found = cut(shape, itemsize, blocks=lengths, chunk_nbytes=nbytes)
    size = prod(found.chunks) * itemsize
    assert size <= max(nbytes, itemsize)
    assert size * 16 >= min(nbytes, prod(shape) * itemsize)


@given(blocked(), sizes)
def test_even_blocks_of_good_size_are_kept(case, itemsize) -> None:
    shape, lengths = case
    even = normalize_chunks(tuple(dim[0] for dim in lengths), shape=shape)
    nbytes = prod(dim[0] for dim in even) * itemsize
    found = cut(shape, itemsize, blocks=even, chunk_nbytes=nbytes)
    assert found.blocks == tuple(dim[0] for dim in even)


@given(shapes, sizes, budgets)
def test_array_in_memory(shape, itemsize, nbytes) -> None:
    found = cut(shape, itemsize, chunk_nbytes=nbytes)
    assert len(found.chunks) == len(shape)
    assert all(1 <= c <= max(n, 1) for c, n in zip(found.chunks, shape, strict=True))
    assert prod(found.chunks) * itemsize <= max(nbytes, itemsize)


def test_one_thread_has_eight_puts_on_their_way() -> None:
    for block in [(64, 2**17), (8, 2**17), (1, 2**17), (256, 2**14)]:
        blocks = normalize_chunks(block, shape=(1024, 2**17))
        found = cut((1024, 2**17), 8, blocks=blocks, chunk_nbytes=2**23)
        chunks = prod(ceil(b / c) for b, c in zip(found.blocks, found.chunks, strict=True))
        assert chunks * found.together >= 8


def test_prime_blocks_do_not_make_chunks_of_one_row() -> None:
    blocks = ((10007, 10007, 4999), (1000,))
    found = cut((25013, 1000), 8, blocks=blocks, chunk_nbytes=2**23)
    assert prod(found.chunks) * 8 > 2**21


@given(shapes, st.data(), sizes, budgets)
def test_reading_takes_whole_stored_chunks(shape, data, itemsize, nbytes) -> None:
    stored = tuple(data.draw(st.integers(1, max(n, 1) + 5)) for n in shape)
    block = stored_multiple(shape, stored, itemsize, nbytes)
    for b, s, n in zip(block, stored, shape, strict=True):
        assert b % s == 0 or b == max(n, 1)
    one_chunk = prod(min(s, max(n, 1)) for s, n in zip(stored, shape, strict=True)) * itemsize
    assert prod(block) * itemsize <= max(nbytes, one_chunk)


def test_prefixes() -> None:
    assert attempt_prefix("results", "abcdef", "a1") == "results/ab/abcdef/a1"
    for bad in ["", "..", "a/b", "a b", ".hidden", "x" * 201, "a\n"]:
        for call in (
            lambda b: key_prefix("results", b),
            lambda b: attempt_prefix("copies", "k", b),
        ):
            with pytest.raises(ValueError, match="must be"):
                call(bad)
    with pytest.raises(ValueError, match="cannot be called"):
        attempt_prefix("results", "k", "COMMIT.json")


def test_chunk_windows_cover_a_block_once() -> None:
    from dataflow.storage.arrays import _chunks

    seen = [
        tuple(range(*window[0].indices(5))) + tuple(range(*window[1].indices(7)))
        for _, window in _chunks((5, 7), (10, 0), (2, 3))
    ]
    assert len(seen) == 9
    indices = [index for index, _ in _chunks((5, 7), (10, 0), (2, 3))]
    assert indices == list(product(range(5, 8), range(3)))
