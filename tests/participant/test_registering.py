"""From an address to the records of a dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataflow.catalog.records import Records
from dataflow.datasets import Dataset, Replica
from dataflow.errors import CatalogError, UnreadableDataset
from dataflow.participant.registering import look_at, records_of
from dataflow.stores import Store


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    with Records(tmp_path / "catalog.db", "uva") as records:
        yield records


def register(records: Records, path: Path, **asked: Any) -> tuple[Dataset, Replica]:
    store = Store(name="data", site="uva", url=path.parent.as_uri())
    found, lies_in = look_at(path.as_uri(), [store], asked.pop("variable", None))
    assert lies_in == store
    known: dict[str, Any] = {"name": None, "owner": "anna", "tags": {}, "replica_of": None}
    made = records_of(
        found, store, path.as_uri(), site="uva", records=records, now=1.0, **{**known, **asked}
    )
    records.add(*made)
    return made


def save(path: Path, values: Any) -> Path:
    np.save(path, np.asarray(values))
    return path


def test_what_is_told(records: Records, tmp_path: Path) -> None:
    dataset, replica = register(
        records, save(tmp_path / "run1.npy", np.arange(6.0)), tags={"system": "adk"}
    )
    assert (dataset.name, dataset.kind, dataset.owner) == ("run1", "array", "anna")
    assert dataset.extent.shape == (6,)
    assert dataset.tags == {"system": "adk"}
    assert replica.key == dataset.key
    assert (replica.store, replica.format) == ("data", "npy")


def test_the_same_again_is_the_same(records: Records, tmp_path: Path) -> None:
    path = save(tmp_path / "run1.npy", [1, 2])
    first, _ = register(records, path, tags={"a": "1"})
    second, _ = register(records, path, tags={"b": "2"}, owner="")
    assert second.id == first.id
    assert second.key == first.key
    assert second.tags == {"a": "1", "b": "2"}
    assert second.owner == "anna"
    assert len(records.datasets()) == 1


def test_it_stays_with_its_owner(records: Records, tmp_path: Path) -> None:
    path = save(tmp_path / "run1.npy", [1, 2])
    register(records, path, tags={"a": "1"})
    second, _ = register(records, path, tags={"a": "mine", "b": "2"}, owner="eve")
    assert (second.owner, second.tags) == ("anna", {"a": "1"})
    third, _ = register(records, path, tags={"a": "3"}, owner="anna")
    assert (third.owner, third.tags) == ("anna", {"a": "3"})


def test_what_nobody_owns_gets_an_owner(records: Records, tmp_path: Path) -> None:
    path = save(tmp_path / "run1.npy", [1, 2])
    register(records, path, owner="", tags={"a": "1"})
    second, _ = register(records, path, owner="ben", tags={"b": "2"})
    assert (second.owner, second.tags) == ("ben", {"a": "1", "b": "2"})


def test_equal_bytes_have_equal_keys_and_other_bytes_others(
    records: Records, tmp_path: Path
) -> None:
    one, _ = register(records, save(tmp_path / "one.npy", [1, 2]))
    two, _ = register(records, save(tmp_path / "two.npy", [1, 2]))
    three, _ = register(records, save(tmp_path / "three.npy", [1, 3]))
    assert one.key == two.key
    assert one.id != two.id
    assert three.key != one.key


def test_changed_data_keeps_its_name_and_gets_a_new_key(records: Records, tmp_path: Path) -> None:
    path = tmp_path / "run1.npy"
    before, _ = register(records, save(path, [1, 2]))
    after, replica = register(records, save(path, [1, 2, 3]))
    assert after.id == before.id
    assert after.key != before.key
    assert [copy.key for copy in records.replicas()] == [replica.key], "the old copy is gone"


def test_a_name_is_taken(records: Records, tmp_path: Path) -> None:
    register(records, save(tmp_path / "one.npy", [1]), name="run")
    with pytest.raises(CatalogError, match=r"'run' is taken.*\n.*another name"):
        register(records, save(tmp_path / "two.npy", [2]), name="run")


def test_variables_of_one_file_are_different_data(records: Records, tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "both.h5", "w") as file:
        file["a"] = np.zeros(3)
        file["b"] = np.zeros(3)
    one, _ = register(records, tmp_path / "both.h5", variable="a")
    two, replica = register(records, tmp_path / "both.h5", variable="b")
    assert (one.name, two.name) == ("both.a", "both.b")
    assert one.key != two.key
    assert replica.variable == "b"


def test_another_copy(records: Records, tmp_path: Path) -> None:
    original, _ = register(records, save(tmp_path / "one.npy", np.arange(4.0)))
    import h5py

    with h5py.File(tmp_path / "copy.h5", "w") as file:
        file["x"] = np.arange(4.0)
    copy, replica = register(records, tmp_path / "copy.h5", replica_of="one", name="copy")
    assert copy.key == replica.key == original.key
    with pytest.raises(CatalogError, match="no copy of 'one'"):
        register(records, save(tmp_path / "other.npy", np.arange(5.0)), replica_of="one", name="o")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UnreadableDataset):
        look_at((tmp_path / "nothing.npy").as_uri(), [], None)
