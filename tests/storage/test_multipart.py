"""Large files into S3: one upload that a later try continues, and nothing of one that was given up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import xxhash

from dataflow.datasets import Extent
from dataflow.errors import StorageError, TransferFailed
from dataflow.storage.manifest import FileEntry
from dataflow.storage.multipart import MOST_PARTS, SMALLEST_PART, step_of, upload_to
from dataflow.storage.publish import attempt_at, checksum_of, discard, find_result, verify_result
from dataflow.storage.transfer import copy
from dataflow.storage.upkeep import collect_garbage

BODY = np.random.default_rng(4).bytes(3 * SMALLEST_PART + 1_000_003)


class Body:
    """One large file; fails from the read ``breaks`` on, and notes what was read."""

    def __init__(self, checksum: str | None = None, breaks: int = 1_000_000) -> None:
        self.checksum, self.breaks = checksum, breaks
        self.reads: list[int] = []

    async def listing(self) -> Sequence[FileEntry]:
        return [FileEntry("sub/large", len(BODY), None, self.checksum)]

    async def read(self, path: str, start: int, end: int) -> bytes:
        if len(self.reads) >= self.breaks:
            raise ConnectionError("cut off")
        self.reads.append(start)
        # The first part comes last: the file is hashed in order all the same.
        await asyncio.sleep(0.2 if start == 0 else 0.0)
        return BODY[start:end]


def bring(source: Any, place: Any, concurrency: int = 3) -> Any:
    return asyncio.run(
        copy(
            source,
            root=place.root,
            key="k",
            attempt="a",
            provenance={},
            kind="files",
            format="files",
            extent=Extent(nbytes=0),
            part_nbytes=SMALLEST_PART,
            concurrency=concurrency,
            **place.opening,
        )
    )


def tried(place: Any) -> Any:
    return attempt_at(place.root, "k", "a", area="copies", **place.opening)


def under_way(place: Any) -> dict[int, tuple[int, str]]:
    """Parts of the upload that is found there, or begun by looking."""
    return upload_to(tried(place), "sub/large").there


def test_parts_of_the_right_size() -> None:
    assert step_of("file:///tmp", 10**9, 8 * 2**20) == 0
    assert step_of("s3://b/x", 10**9, 1_000) == 0, "S3 refuses parts as small as that"
    assert step_of("s3://b/x", 10**9, 8 * 2**20) == 8 * 2**20
    assert -(-(10**12) // step_of("s3://b/x", 10**12, 8 * 2**20)) <= MOST_PARTS


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_large_file_arrives(rgw_place: Any, concurrency: int) -> None:
    source = Body(xxhash.xxh3_128_hexdigest(BODY))
    manifest = bring(source, rgw_place, concurrency)
    assert sorted(source.reads) == [n * SMALLEST_PART for n in range(4)]
    assert manifest.files[0].checksum == xxhash.xxh3_128_hexdigest(BODY)
    verify_result(manifest, deep=True, **rgw_place.opening)
    assert bytes(rgw_place.store(manifest.url).get("sub/large").bytes()) == BODY


def test_a_later_try_asks_only_for_the_rest(rgw_place: Any) -> None:
    with pytest.raises(TransferFailed, match="cut off"):
        bring(Body(breaks=2), rgw_place, concurrency=1)
    assert find_result(rgw_place.root, "k", area="copies", **rgw_place.opening) is None
    source = Body(xxhash.xxh3_128_hexdigest(BODY))
    manifest = bring(source, rgw_place)
    assert sorted(source.reads) == [2 * SMALLEST_PART, 3 * SMALLEST_PART]
    verify_result(manifest, deep=True, **rgw_place.opening)


@pytest.mark.parametrize("breaks", [2, 1_000_000], ids=["in two tries", "at once"])
def test_bytes_that_are_not_those_promised(rgw_place: Any, breaks: int) -> None:
    wrong = xxhash.xxh3_128_hexdigest(b"something else")
    if breaks == 2:
        with pytest.raises(TransferFailed, match="cut off"):
            bring(Body(breaks=2), rgw_place, concurrency=1)
    with pytest.raises(TransferFailed, match="not those of the listing"):
        bring(Body(wrong), rgw_place)
    assert tried(rgw_place).listing() == {}
    assert under_way(rgw_place) == {}


def test_what_is_given_up_is_gone(rgw_place: Any) -> None:
    for end in ("discarded", "collected"):
        with pytest.raises(TransferFailed, match="cut off"):
            bring(Body(breaks=2), rgw_place, concurrency=1)
        assert set(under_way(rgw_place)) == {1, 2}
        if end == "discarded":
            discard(tried(rgw_place))
        else:
            now = time.time()
            assert (
                collect_garbage(rgw_place.root, older_than=60, now=now, **rgw_place.opening) == ()
            )
            assert set(under_way(rgw_place)) == {1, 2}, "it may yet go on"
            (gone,) = collect_garbage(
                rgw_place.root, older_than=60, now=now + 90, **rgw_place.opening
            )
            assert gone.endswith("/k/a/sub/large")
        assert under_way(rgw_place) == {}
        discard(tried(rgw_place))


def test_an_upload_that_ended_says_so(rgw_place: Any) -> None:
    upload = upload_to(tried(rgw_place), "sub/large")
    tag = upload.put(1, b"x")
    upload.complete({1: tag})
    assert checksum_of(tried(rgw_place).store, f"{tried(rgw_place).prefix}/sub/large")
    with pytest.raises(StorageError, match="NoSuchUpload") as raised:
        upload.put(2, b"y")
    assert len(str(raised.value).splitlines()) == 1
