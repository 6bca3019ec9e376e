"""Files of plain web servers: ranges, hierarchies that cannot be listed, passwords."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import obstore
import pytest
import xarray as xr
import zarr
from obstore.exceptions import GenericError

from dataflow.datasets import Extent, Replica
from dataflow.errors import ConfigError, StorageError, UnreadableDataset
from dataflow.storage.fingerprints import stored_files
from dataflow.storage.open import object_store
from dataflow.storage.probe import probe
from dataflow.storage.read import open_data
from dataflow.storage.transfer import StoreSource, copy


class _Plain(SimpleHTTPRequestHandler):
    """A server as there are many: pages for directories, and parts of files if it is asked."""

    protocol_version = "HTTP/1.1"
    sent: ClassVar[list[int]] = []
    password = ""

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(super().do_GET, body=True)

    def do_HEAD(self) -> None:
        self._answer(super().do_HEAD, body=False)

    def _answer(self, whole: Any, *, body: bool) -> None:
        wanted = f"Basic {base64.b64encode(self.password.encode()).decode()}"
        if self.password and self.headers.get("Authorization") != wanted:
            self.send_error(401)
            return
        path, asked = Path(self.translate_path(self.path)), self.headers.get("Range")
        if not asked or not path.is_file():
            if body and path.is_file():
                self.sent.append(path.stat().st_size)
            with suppress(ConnectionError):  # who asked has gone
                whole()
            return
        size = path.stat().st_size
        first, last = asked.removeprefix("bytes=").split("-")
        start, end = int(first), min(int(last or size - 1), size - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self.send_header("Content-Length", str(end - start + 1))
        self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
        self.end_headers()
        if body:
            with path.open("rb") as file, suppress(ConnectionError):
                file.seek(start)
                self.wfile.write(file.read(end - start + 1))
            self.sent.append(end - start + 1)


class _Guarded(_Plain):
    password = "anna:s3cr3t"


class _NoParts(_Plain):
    def _answer(self, whole: Any, *, body: bool) -> None:
        del self.headers["Range"]
        super()._answer(whole, body=body)


@pytest.fixture(params=[_Plain])
def web(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    root = tmp_path / "web"
    root.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(request.param, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def brought(url: str, to: Path, **what: Any) -> Any:
    replica = Replica(key="k", site="web", store="s", url=url, nbytes=0, **what)
    return asyncio.run(
        copy(
            StoreSource(replica=replica),
            root=to.as_uri(),
            key="k",
            attempt="a",
            provenance={},
            kind="dataset",
            format=replica.format,
            extent=Extent(nbytes=0),
            part_nbytes=2**20,
        )
    )


def test_a_slice_of_a_far_hdf5_file_moves_few_bytes(web: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((64, 256, 256))  # 32 MiB
    with h5py.File(tmp_path / "web" / "run 1.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=(1, 256, 256))
    url = f"{web}/run 1.h5"
    found = probe(url)
    assert (found.kind, found.format, found.extent.shape) == ("array", "hdf5", values.shape)
    replica = Replica(
        key="k", site="w", store="s", url=url, format="hdf5", nbytes=found.nbytes, variable="x"
    )
    opened = open_data(replica, kind="array", chunk_nbytes=1)
    _Plain.sent.clear()
    np.testing.assert_array_equal(opened[40].values, values[40])
    assert sum(_Plain.sent) < values.nbytes / 8
    _Plain.sent.clear()
    np.testing.assert_array_equal(opened[41].values, values[41])
    block = 2**19
    assert sum(_Plain.sent) <= values[0].nbytes + 2 * block, (
        "the head of the file is not read again"
    )
    manifest = brought(url, tmp_path / "to", format="hdf5")
    assert manifest.nbytes == (tmp_path / "web" / "run 1.h5").stat().st_size


def test_a_file_that_was_replaced_is_read_anew(web: str, tmp_path: Path) -> None:
    file, url = tmp_path / "web" / "x.npy", f"{web}/x.npy"
    for number in range(2):
        np.save(file, np.full(1000 + number, float(number)))
        found = probe(url)
        replica = Replica(key="k", site="w", store="s", url=url, format="npy", nbytes=found.nbytes)
        read = open_data(replica, kind="array", lazy=False)
        np.testing.assert_array_equal(read.values, np.full(1000 + number, float(number)))


@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_hierarchy_is_listed_by_its_metadata(web: str, tmp_path: Path, zarr_format: Any) -> None:
    value = xr.Dataset(
        {"v": (("x", "y"), np.arange(100.0).reshape(10, 10)), "n": ((), np.int64(7))},
        coords={"x": np.arange(10.0)},
    ).chunk({"x": 3})
    folder = tmp_path / "web" / "g.zarr"
    value.to_zarr(folder, zarr_format=zarr_format, consolidated=True)
    url = f"{web}/g.zarr"
    there = {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    listed = dict(stored_files(url))
    assert listed.items() <= there.items()
    # In version 2 an array's documents stand in .zmetadata, too; that they are there is not needed.
    assert {n for n in there.keys() - listed.keys() if "/." not in n and n != ".zgroup"} == set()
    found = probe(url)
    assert found.format == "zarr"
    manifest = brought(url, tmp_path / "to", format="zarr")
    copied = Replica(key="k", site="h", store="s", url=manifest.url, format="zarr", nbytes=0)
    xr.testing.assert_identical(open_data(copied, kind="dataset").load(), value.load())


def test_chunks_that_are_all_fill_value_are_not_there(web: str, tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "web" / "a", shape=(100,), chunks=(10,), dtype="f8", zarr_format=3
    )
    array[25:35] = 1.0
    assert [name for name, _ in stored_files(f"{web}/a")] == ["c/2", "c/3", "zarr.json"]


def test_what_cannot_be_listed_or_is_not_there(web: str, tmp_path: Path) -> None:
    xr.Dataset({"v": ("x", [1.0])}).to_zarr(tmp_path / "web" / "g", consolidated=False)
    with pytest.raises(UnreadableDataset, match="consolidated"):
        probe(f"{web}/g")
    for name in ("nothing.h5", "nothing"):
        with pytest.raises(UnreadableDataset, match="nothing is there"):
            probe(f"{web}/{name}")


@pytest.mark.parametrize("web", [_Guarded], indirect=True)
def test_a_password(web: str, tmp_path: Path) -> None:
    np.save(tmp_path / "web" / "x.npy", np.arange(10.0))
    both = {"username": "anna", "password": "s3cr3t"}
    assert probe(f"{web}/x.npy", credentials=both).extent.shape == (10,)
    with pytest.raises(UnreadableDataset, match="401") as caught:
        probe(f"{web}/x.npy", credentials={**both, "password": "wr0ng"})
    assert "wr0ng" not in str(caught.value)
    with pytest.raises(ConfigError, match="without encryption"):
        object_store("http://data.example.org", credentials=both)
    with pytest.raises(ConfigError, match="username and password"):
        object_store("https://data.example.org", credentials={"access_key_id": "x"})


@pytest.mark.parametrize("web", [_NoParts], indirect=True)
def test_a_server_that_gives_no_parts(web: str, tmp_path: Path) -> None:
    np.save(tmp_path / "web" / "x.npy", np.zeros(1_000_000))
    with pytest.raises((UnreadableDataset, StorageError), match=r"(?i)range|parts"):
        probe(f"{web}/x.npy")


class _Slow(SimpleHTTPRequestHandler):
    """Sends what it is asked for byte by byte, or nothing at all."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[str]] = []

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.asked.append(self.path)
        body = b"0123456789"
        with suppress(ConnectionError):
            if "silent" in self.path:
                time.sleep(5)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes 0-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Last-Modified", self.date_time_string(0))
            self.end_headers()
            for place in range(len(body)):
                time.sleep(0.3)
                self.wfile.write(body[place : place + 1])


@pytest.fixture
def slow() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Slow) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        _Slow.asked = []
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_slow_road_is_no_silence(slow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataflow.storage.open.AGENTS", (1, 1))
    store = object_store(slow, headers={"x-request": "drops"}, mkdir=False)
    assert bytes(obstore.get_range(store, "drops", start=0, length=10)) == b"0123456789"
    assert _Slow.asked == ["/drops"]


def test_an_agent_that_says_nothing_is_not_waited_for(
    slow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataflow.storage.open.AGENTS", (1, 1))
    monkeypatch.setattr("dataflow.storage.open.OTHERS", (2000, 2000))
    store = object_store(slow, headers={"x-request": "silence"}, mkdir=False)
    with pytest.raises(GenericError):
        obstore.get_range(store, "silent", start=0, length=10)
