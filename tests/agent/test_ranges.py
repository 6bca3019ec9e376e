from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.agent.ranges import Unsatisfiable, wanted


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, None),
        ("", None),
        ("bytes=2-5", (2, 6)),
        ("bytes=2-", (2, 10)),
        ("bytes=0-0", (0, 1)),
        ("bytes=9-9", (9, 10)),
        ("bytes=2-99999999999999999999999", (2, 10)),
        ("bytes=-4", (6, 10)),
        ("bytes=-40", (0, 10)),
        ("bytes=-99999999999999999999999", (0, 10)),
        ("bytes = 2-5", (2, 6)),
        ("bytes=5-2", None),
        ("bytes=-", None),
        ("bytes=1-2,4-5", None),
        ("bytes=a-b", None),
        ("bytes=²-5", None),
        ("items=1-2", None),
    ],
)
def test_what_is_wanted(header: str | None, found: tuple[int, int] | None) -> None:
    assert wanted(header, 10) == found


@pytest.mark.parametrize(
    "header", ["bytes=10-", "bytes=10-12", "bytes=-0", "bytes=99999999999999999999-"]
)
def test_what_does_not_exist(header: str) -> None:
    with pytest.raises(Unsatisfiable):
        wanted(header, 10)


def test_an_empty_object_has_no_range() -> None:
    with pytest.raises(Unsatisfiable):
        wanted("bytes=0-", 0)
    with pytest.raises(Unsatisfiable):
        wanted("bytes=-1", 0)


@given(st.text(max_size=40), st.integers(0, 2**63))
def test_no_text_breaks_it(text: str, size: int) -> None:
    for header in (text, "bytes=" + text):
        try:
            found = wanted(header, size)
        except Unsatisfiable:
            continue
        assert found is None or 0 <= found[0] < found[1] <= size


@given(st.binary(min_size=1, max_size=50), st.integers(0, 60), st.integers(0, 60))
def test_as_slices_do_it(data: bytes, first: int, last: int) -> None:
    try:
        found = wanted(f"bytes={first}-{last}", len(data))
    except Unsatisfiable:
        assert data[first:] == b""
        return
    if found is None:
        assert last < first
    else:
        assert data[found[0] : found[1]] == data[first : last + 1]
