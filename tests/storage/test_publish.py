"""Publishing: which stores are fit for it, and whose manifest counts."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
from obstore.exceptions import BaseError

from dataflow.errors import CorruptResult, StorageError, UnsafeStore
from dataflow.storage.manifest import FileEntry
from dataflow.storage.publish import attempt_at, first_line, prove
from dataflow.storage.results import check_store, find_result, verify_result, write_result


def test_server_that_ignores_conditions_is_refused(rclone: Any) -> None:
    """rclone lets every racer win; nothing may be published there."""
    root = rclone.bucket("results-here")
    opening = {"credentials": rclone.credentials, "options": rclone.options}
    with pytest.raises(UnsafeStore, match="ignores the condition") as caught:
        check_store(root, name="lab/rclone", **opening)
    assert caught.value.store == "lab/rclone"
    from dataflow.storage.open import object_store

    assert [meta for batch in object_store(root, **opening).list() for meta in batch] == []


def test_unreachable_server_is_not_called_unsafe() -> None:
    with pytest.raises(StorageError) as caught:
        check_store(
            "s3://bucket/x",
            credentials={"access_key_id": "a", "secret_access_key": "b"},
            options=(("endpoint", "http://127.0.0.1:9"), ("timeout", "1s"), ("retries", "0")),
        )
    assert not isinstance(caught.value, UnsafeStore)


@pytest.mark.parametrize(
    ("retries", "said"),
    [
        (0, r"GET failed after [\d.e-]+ s: error sending request"),
        (2, r"GET failed 3 times in [\d.]+ s: error sending request"),
    ],
)
def test_what_a_store_says_at_last_is_said_in_plain_words(retries: int, said: str) -> None:
    store = obstore.store.HTTPStore(
        "http://127.0.0.1:9",
        client_options={"allow_http": True},
        retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=20)},
    )
    with pytest.raises(BaseError) as caught:
        obstore.get(store, "zarr.json")
    assert re.fullmatch(said, first_line(caught.value)), first_line(caught.value)


def test_other_words_of_a_store_stay() -> None:
    assert (
        first_line(ValueError("Range is not supported\n\nDebug source:"))
        == "Range is not supported"
    )


def test_proof_names_what_is_missing_and_clears_what_nobody_claims(tmp_path: Path) -> None:
    place = attempt_at(tmp_path.as_uri(), "k", "a")
    good = place.put("x", [b"123"])
    place.put("left-over", [b"1"])
    prove(place, [good])
    assert set(place.listing()) == {"x"}
    with pytest.raises(CorruptResult, match=r"y is missing; x has 3 bytes, not 4"):
        prove(place, [FileEntry("y", 1), FileEntry("x", 4)])
    with pytest.raises(CorruptResult, match="and 2 more"):
        prove(place, [FileEntry(f"m{n}", 1) for n in range(5)])


def test_parts_are_one_file(tmp_path: Path) -> None:
    place = attempt_at(tmp_path.as_uri(), "k", "a")
    entry = place.put("x", [b"ab", np.frombuffer(b"cd", "u1"), memoryview(b"e")])
    assert entry.size == 5
    assert (tmp_path / "results" / "k" / "k" / "a" / "x").read_bytes() == b"abcde"
    assert entry.checksum == place.put("y", [b"abcde"]).checksum


def test_lost_answer_to_our_own_commit_is_no_defeat(tmp_path: Path) -> None:
    """The client sends a put again when the answer is lost; then our own commit is in the way."""
    import obstore.store

    original = obstore.store.LocalStore.put

    def twice(self: Any, path: str, *args: Any, **more: Any) -> Any:
        if path.endswith("COMMIT.json"):
            original(self, path, *args, **more)
        return original(self, path, *args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(obstore.store.LocalStore, "put", twice)
        manifest = write_result(
            np.ones(3), root=tmp_path.as_uri(), key="k", attempt="a", provenance={}
        )
    assert find_result(tmp_path.as_uri(), "k") == manifest
    verify_result(manifest, deep=True)


def test_secrets_are_not_in_texts(tmp_path: Path) -> None:
    place = attempt_at(tmp_path.as_uri(), "k", "a", credentials={"secret_access_key": "s3cr3t"})
    assert "s3cr3t" not in repr(place)


def test_store_that_does_not_exist_holds_nothing(tmp_path: Path) -> None:
    assert find_result((tmp_path / "no").as_uri(), "k") is None
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("bad", ["../x", "a/b", ""])
def test_names_that_would_leave_the_store(tmp_path: Path, bad: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        write_result(1, root=tmp_path.as_uri(), key="k", attempt=bad, provenance={})
    with pytest.raises(ValueError, match="must be"):
        find_result(tmp_path.as_uri(), bad)
