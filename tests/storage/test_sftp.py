"""Stores by SFTP, against a real server on loopback."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
import h5py
import numpy as np
import pytest
import xarray as xr

from dataflow.datasets import Extent, Replica
from dataflow.errors import ConfigError, StorageError, UnreadableDataset
from dataflow.storage.fingerprints import current_fingerprint, stored_files
from dataflow.storage.open import object_store, zarr_store
from dataflow.storage.probe import probe
from dataflow.storage.read import open_data
from dataflow.storage.transfer import StoreSource, copy

USER, PASSWORD = "anna", "s3cr3t"


@dataclass
class Server:
    """An SSH server that serves a directory, and counts what it sends of files."""

    root: Path
    known_hosts: Path
    port: int
    sent: int = 0
    loop: Any = None
    there: list[Any] = field(default_factory=list)

    @property
    def options(self) -> tuple[tuple[str, str], ...]:
        return (("known_hosts", str(self.known_hosts)),)

    @property
    def opening(self) -> dict[str, Any]:
        return {
            "credentials": {"username": USER, "password": PASSWORD},
            "options": self.options,
        }

    def url(self, path: str = "") -> str:
        return f"sftp://127.0.0.1:{self.port}/{path}".rstrip("/")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("sftp")
    root = folder / "root"
    root.mkdir()
    key = asyncssh.generate_private_key("ssh-ed25519")
    found = Server(root, folder / "known_hosts", 0)

    class Login(asyncssh.SSHServer):
        def connection_made(self, connection: Any) -> None:
            found.there.append(connection)

        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == (USER, PASSWORD)

    class Files(asyncssh.SFTPServer):
        def __init__(self, chan: Any) -> None:
            super().__init__(chan, chroot=str(root).encode())

        def read(self, file_obj: Any, offset: int, size: int) -> Any:
            body = super().read(file_obj, offset, size)
            found.sent += len(body)  # type: ignore[arg-type]
            return body

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def listen() -> Any:
        return await asyncssh.listen(
            "127.0.0.1", 0, server_factory=Login, server_host_keys=[key], sftp_factory=Files
        )

    found.loop = loop
    listener = asyncio.run_coroutine_threadsafe(listen(), loop).result(30)
    found.port = listener.get_port()
    public = key.export_public_key().decode().strip()
    found.known_hosts.write_text(f"[127.0.0.1]:{found.port} {public}\n")
    yield found

    async def end() -> None:
        listener.close()
        for connection in found.there:
            connection.abort()
            await connection.wait_closed()
        await listener.wait_closed()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    asyncio.run_coroutine_threadsafe(end(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def test_files_and_ranges(server: Server) -> None:
    (server.root / "a dir" / "deep").mkdir(parents=True)
    (server.root / "a dir" / "x y.bin").write_bytes(bytes(range(256)) * 1000)
    (server.root / "a dir" / "deep" / "z").write_bytes(b"z")
    (server.root / "a dir" / "loop").symlink_to(".")
    url = server.url("a%20dir")
    assert stored_files(url, **server.opening) == (("deep/z", 1), ("x y.bin", 256_000))
    store = object_store(url, **server.opening)
    assert bytes(store.get_range("x y.bin", start=254, end=258)) == b"\xfe\xff\x00\x01"
    assert bytes(store.get("x y.bin").bytes()) == bytes(range(256)) * 1000
    assert stored_files(f"{url}/x%20y.bin", **server.opening) == (("", 256_000),)
    with pytest.raises(UnreadableDataset):
        stored_files(server.url("nothing"), **server.opening)
    with pytest.raises(StorageError, match="only read"):
        store.put("new", b"1")


def test_a_slice_of_a_far_file_moves_few_bytes(server: Server) -> None:
    values = np.random.default_rng(0).random((64, 256, 256))  # 32 MiB
    with h5py.File(server.root / "run.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=(1, 256, 256))
    url = server.url("run.h5")
    found = probe(url, **server.opening)
    assert (found.kind, found.format, found.extent.shape) == ("array", "hdf5", values.shape)
    replica = Replica(
        key="k", site="host", store="s", url=url, format="hdf5", nbytes=found.nbytes, variable="x"
    )
    opened = open_data(replica, kind="array", chunk_nbytes=1, **server.opening)
    before = server.sent
    np.testing.assert_array_equal(opened[40].values, values[40])
    assert server.sent - before < values.nbytes / 8, "whole blocks of 1 MiB, and not the file"


def test_a_zarr_group(server: Server) -> None:
    value = xr.Dataset({"v": (("x", "y"), np.arange(100.0).reshape(10, 10))})
    value.to_zarr(server.root / "g.zarr", zarr_format=3, consolidated=False)
    url = server.url("g.zarr")
    found = probe(url, **server.opening)
    assert (found.format, found.extent.shape) == ("zarr", (10, 10))
    replica = Replica(key="k", site="h", store="s", url=url, format="zarr", nbytes=found.nbytes)
    opened = open_data(replica, kind="dataset", **server.opening)
    xr.testing.assert_identical(opened.load(), value)
    again = pickle.loads(pickle.dumps(zarr_store(url, **server.opening)))
    assert again == zarr_store(url, **server.opening)
    assert PASSWORD not in repr(again.store)


def test_a_copy_is_verified_and_published(server: Server, tmp_path: Path) -> None:
    body = np.random.default_rng(1).bytes(20_000_000)
    (server.root / "big.bin").write_bytes(body)
    replica = Replica(
        key="k", site="h", store="s", url=server.url("big.bin"), format="files", nbytes=len(body)
    )
    source = StoreSource(replica=replica, **server.opening)
    came: list[int] = []
    manifest = asyncio.run(
        copy(
            source,
            root=tmp_path.as_uri(),
            key="k",
            attempt="a",
            provenance={},
            kind="files",
            format="files",
            extent=Extent(nbytes=len(body)),
            on_bytes=came.append,
        )
    )
    (path,) = [p for p in tmp_path.rglob("big.bin") if p.is_file()]
    assert path.read_bytes() == body
    assert sum(came) == len(body)
    assert manifest.nbytes == len(body)


def test_a_change_is_noticed(server: Server) -> None:
    file = server.root / "table.csv"
    file.write_text("a,b\n1,2\n")
    before = current_fingerprint(server.url("table.csv"), **server.opening)
    file.write_text("a,b\n1,3\n")
    assert current_fingerprint(server.url("table.csv"), **server.opening) != before


def test_all_threads_share_one_connection(server: Server) -> None:
    (server.root / "many.bin").write_bytes(bytes(1_000_000))
    store = object_store(server.url(), **server.opening)
    store.head("many.bin")
    before = len(server.there)
    threads = [
        threading.Thread(target=lambda: store.get_range("many.bin", start=0, end=1_000_000))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.there) == before


def test_a_connection_that_broke_is_made_again(server: Server) -> None:
    (server.root / "one.bin").write_bytes(b"1")
    store = object_store(server.url(), **server.opening)
    store.head("one.bin")
    before = len(server.there)
    server.loop.call_soon_threadsafe(server.there[-1].abort)
    for _ in range(3):  # the first may still go out before we hear of it
        assert store.get_range("one.bin", start=0, end=1) == b"1"
    assert len(server.there) == before + 1


def test_who_is_not_let_in(server: Server, tmp_path: Path) -> None:
    wrong = {"username": USER, "password": "wr0ng"}
    with pytest.raises(StorageError, match=r"does not let us in.*\n.*credential") as caught:
        object_store(server.url(), credentials=wrong, options=server.options).head("x")
    assert "wr0ng" not in str(caught.value)


def test_a_host_that_is_not_known_is_refused(server: Server, tmp_path: Path) -> None:
    nobody = tmp_path / "known_hosts"
    nobody.write_text("")
    credentials = {"username": USER, "password": PASSWORD}
    options = (("known_hosts", str(nobody)),)
    with pytest.raises(StorageError, match="the key of the host is not known"):
        object_store(server.url(), credentials=credentials, options=options).head("x")


def test_options_and_urls_that_are_wrong() -> None:
    with pytest.raises(ConfigError, match=r"'host_key'.*known_hosts"):
        object_store("sftp://h/x", options=(("host_key", "x"),))
    with pytest.raises(ConfigError, match="names no host"):
        object_store("sftp:///x")
