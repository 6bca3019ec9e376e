"""The directory of a run: what goes in, and what comes out."""

from __future__ import annotations

from pathlib import Path

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from dataflow.datasets import Dataset, Extent, Replica
from dataflow.errors import OperationFailed
from dataflow.execution.inputs import Lying
from dataflow.execution.staging import (
    checked,
    end_of,
    filled,
    must_be_written,
    stage,
    streams,
    written,
)
from dataflow.graph.graph import of_dataset
from dataflow.graph.operation import shell

X = of_dataset(
    Dataset(id="x", name="x", key="k", kind="files", extent=Extent(nbytes=4), site="ams")
)


def lying(path: Path, fingerprint: str = "") -> Lying:
    replica = Replica(
        key="k",
        site="ams",
        store="data",
        url=f"file://{path}",
        format="files",
        nbytes=77,
        fingerprint=fingerprint,
    )
    return Lying(replica=replica, kind="files")


def test_what_is_staged(tmp_path: Path) -> None:
    (step,) = shell("cut -f {n} {x} > {output:col.txt}")(n=2, x=X).steps.values()
    data, directory = tmp_path / "in file", tmp_path / "run"
    data.write_text("a\tb\n")
    staged = stage(step, [(lying(data), data)], directory)
    command = (directory / ".flow" / "command").read_text()
    assert command == f"cut -f 2 '{data}' > {directory}/col.txt\n"
    assert staged.outputs == (directory / "col.txt",)
    script, given = staged.files
    assert (script.relation, script.nbytes) == ("script", len(command))
    assert script.checksum == xxhash.xxh3_128_hexdigest(command.encode())
    assert (given.relation, given.slot, given.name) == ("input", "x", str(data))
    assert given.checksum == xxhash.xxh3_128_hexdigest(b"a\tb\n")


def test_a_committed_directory_is_not_read_for_its_checksum(tmp_path: Path) -> None:
    (step,) = shell("ls {x} > {output}")(x=X).steps.values()
    (tmp_path / "in").mkdir()
    inputs = [(lying(tmp_path / "in", "manifest:abc"), tmp_path / "in")]
    _, given = stage(step, inputs, tmp_path / "run").files
    assert (given.nbytes, given.checksum) == (77, "abc")


def test_outputs_and_streams(tmp_path: Path) -> None:
    (tmp_path / ".flow").mkdir()
    (tmp_path / ".flow" / "stdout").write_bytes(b"good \xff day\n")
    (tmp_path / "a").write_text("1")
    (out,) = streams(tmp_path)
    assert (out.relation, out.text, out.nbytes) == ("stdout", "good \ufffd day\n", 11)
    assert [file.name for file in written([tmp_path / "a", tmp_path / "b"])] == ["a"]
    (step,) = shell("ls {x} > {output}")(x=X).steps.values()
    must_be_written(step, [tmp_path / "a"], "ams")
    with pytest.raises(OperationFailed, match=r"wrote no \{output:b\}"):
        must_be_written(step, [tmp_path / "b"], "ams")


@given(names=st.dictionaries(st.text("abc", min_size=1), st.binary(max_size=9), max_size=5))
def test_the_checksum_of_a_directory_is_that_of_what_lies_in_it(
    tmp_path_factory: pytest.TempPathFactory, names: dict[str, bytes]
) -> None:
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    for name, body in names.items():
        (one / name).write_bytes(body)
    for name, body in reversed(names.items()):
        (two / name).write_bytes(body)
    assert checked(one) == checked(two)
    assert checked(one)[0] == sum(map(len, names.values()))
    (two / "one more").touch()
    assert checked(one)[1] != checked(two)[1]


def test_output_stays_in_the_directory(tmp_path: Path) -> None:
    _, outputs = filled("{output:../../evil}", {}, tmp_path)
    assert outputs == [tmp_path / "evil"]


def test_end_of_what_is_not_there(tmp_path: Path) -> None:
    assert end_of(tmp_path / "nothing", 10) == ""
