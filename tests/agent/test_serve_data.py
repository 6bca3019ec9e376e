"""Data over HTTP: what leaves a site, in which pieces, for whose account; and what never does."""

from __future__ import annotations

import asyncio
import io
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import xxhash
import zarr
from obstore.store import HTTPStore
from zarr.storage import ObjectStore

from dataflow.agent.serve_data import LARGEST_ARCHIVE
from dataflow.datasets import Extent
from dataflow.errors import UnknownDataset
from dataflow.storage.results import write_result
from dataflow.storage.transfer import StoreSource, copy


@pytest.fixture
def text(agent: Any) -> str:
    """URL of a replica of one file of ten bytes, and a neighbour that is nobody's business."""
    (agent.participant.data / "table.csv").write_text("0123456789")
    (agent.participant.data / "secret.csv").write_text("swordfish")
    return f"/v1/data/{agent.participant.serve('table.csv', 'csv')}/table.csv"


@pytest.fixture
def tree(agent: Any) -> str:
    """URL of a replica that is a directory."""
    root = agent.participant.data / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "a b%20ü").write_text("inside")
    (root / "empty").touch()
    return f"/v1/data/{agent.participant.serve('tree', 'files')}"


def test_a_table_of_a_database_has_no_bytes(agent: Any, text: str) -> None:
    replica = text.split("/")[3]
    here = agent.participant.replicas
    here[replica] = replace(here[replica], url="postgresql://127.0.0.1/clinic/visits")
    for path in (f"/v1/data/{replica}", f"/v1/data/{replica}/visits", f"/v1/archives/{replica}"):
        answer = agent.call("GET", path)
        assert answer.status_code == 400, path
        assert "query it where it is" in answer.text


# --- bytes ------------------------------------------------------------------------------------


def test_a_whole_object(agent: Any, text: str) -> None:
    answer = agent.call("GET", text)
    assert (answer.status_code, answer.text) == (200, "0123456789")
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-length"] == "10"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["etag"]
    assert answer.headers["last-modified"].endswith("GMT")


@pytest.mark.parametrize(
    ("asked", "status", "body", "content_range"),
    [
        ("bytes=2-5", 206, "2345", "bytes 2-5/10"),
        ("bytes=7-", 206, "789", "bytes 7-9/10"),
        ("bytes=-3", 206, "789", "bytes 7-9/10"),
        ("bytes=-30", 206, "0123456789", "bytes 0-9/10"),
        ("bytes=5-500", 206, "56789", "bytes 5-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
        ("bytes=5-2", 200, "0123456789", None),
        ("bytes=0-1,3-4", 200, "0123456789", None),
        ("lines=1-2", 200, "0123456789", None),
    ],
)
def test_ranges(
    agent: Any, text: str, asked: str, status: int, body: str | None, content_range: str | None
) -> None:
    for method in ("GET", "HEAD"):
        answer = agent.call(method, text, headers={"range": asked})
        assert answer.status_code == status
        assert answer.headers.get("content-range") == content_range
        if body is not None:
            assert answer.headers["content-length"] == str(len(body))
            assert answer.text == (body if method == "GET" else "")


def test_a_part_of_what_has_changed_is_the_whole(agent: Any, text: str) -> None:
    tag = agent.call("HEAD", text).headers["etag"]
    headers = {"range": "bytes=2-5", "if-range": tag}
    assert agent.call("GET", text, headers=headers).status_code == 206
    (agent.participant.data / "table.csv").write_text("9876543210-")
    answer = agent.call("GET", text, headers=headers)
    assert (answer.status_code, answer.text) == (200, "9876543210-")


def test_names_with_signs(agent: Any, tree: str) -> None:
    assert agent.call("GET", f"{tree}/sub/a%20b%2520%C3%BC").text == "inside"
    assert agent.call("GET", f"{tree}/empty").text == ""
    assert agent.call("GET", f"{tree}/empty", headers={"range": "bytes=0-0"}).status_code == 416

    async def read() -> bytes:
        async with agent.client() as client:
            return await client.read(tree.rpartition("/")[2], "sub/a b%20ü", 1, 4)

    assert agent.run(read()) == b"nsi"


def test_what_is_not_there(agent: Any, tree: str) -> None:
    for path in ("/nothing", "/sub", "/sub/", "/", "/sub/nothing"):
        answer = agent.call("GET", tree + path)
        assert (answer.status_code, answer.json()["kind"]) == (404, "unknown-dataset"), path
    assert agent.call("GET", "/v1/data/unknown/a").status_code == 404
    assert agent.call("GET", "/v1/data/unknown").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "../secret.csv",
        "..%2fsecret.csv",
        "%2e%2e/secret.csv",
        "%2e%2e%2fsecret.csv",
        "sub/../../secret.csv",
        "sub/%2e%2e/%2e%2e/secret.csv",
        "..%5csecret.csv",
        "%252e%252e/secret.csv",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "sub//a",
        "./empty",
        "empty%00.zarr",
        "link-out/secret.csv",
        "link-file",
        "link-absolute",
        "link-chain",
    ],
)
def test_no_way_out(agent: Any, tree: str, path: str) -> None:
    root: Path = agent.participant.data / "tree"
    (agent.participant.data / "secret.csv").write_text("swordfish")
    (root / "link-out").symlink_to("..")
    (root / "link-file").symlink_to("../secret.csv")
    (root / "link-absolute").symlink_to("/etc/passwd")
    (root / "link-chain").symlink_to("link-out/secret.csv")
    answer = raw_get(agent, f"{tree}/{path}")
    assert answer[0] == 404, answer
    assert b"swordfish" not in answer[1]
    assert b"root:" not in answer[1]


def raw_get(agent: Any, target: str) -> tuple[int, bytes]:
    """A request whose path no client has tidied up."""
    from urllib.parse import unquote_to_bytes

    sent: list[dict[str, Any]] = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "path": unquote_to_bytes(target).decode("utf-8", "replace"),
        "raw_path": target.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [(b"authorization", b"Bearer admin-token-0123456789")],
        "server": ("uva.test", 80),
        "client": ("127.0.0.1", 1),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    agent.run(agent.app(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def test_neighbours_of_a_single_file(agent: Any, text: str) -> None:
    parent = text.rpartition("/")[0]
    assert agent.call("GET", f"{parent}/secret.csv").status_code == 404
    assert [file["path"] for file in agent.call("GET", parent).json()] == ["table.csv"]


# --- accounts ---------------------------------------------------------------------------------


def test_bytes_are_metered(agent: Any, text: str) -> None:
    headers = {"x-dataflow-job": "j1", "x-dataflow-site": "vu", "range": "bytes=2-5"}
    agent.call("GET", text, headers=headers)
    agent.call("HEAD", text, headers=headers)
    agent.call("GET", text)
    agent.call("GET", text, headers={"x-dataflow-job": "j2"})
    assert agent.participant.metered == [("j1", "k", 4, "vu"), ("j2", "k", 10, "admin-person")]


# --- listings and copies ------------------------------------------------------------------------


def test_a_listing(agent: Any, tree: str) -> None:
    found = agent.call("GET", tree).json()
    assert [(file["path"], file["size"]) for file in found] == [("empty", 0), ("sub/a b%20ü", 6)]


def test_a_result_is_listed_with_its_checksums(agent: Any, tmp_path: Path) -> None:
    store = agent.participant.data
    manifest = write(store, "a" * 64)
    path = Path(manifest.url.removeprefix("file://")).relative_to(store)
    replica = agent.participant.serve(str(path), "zarr", key="a" * 64)
    listed = agent.call("GET", f"/v1/data/{replica}").json()
    assert {file["path"]: file["checksum"] for file in listed} == {
        file.path: file.checksum for file in manifest.files
    }
    for file in listed:
        body = agent.call("GET", f"/v1/data/{replica}/{file['path']}").content
        assert xxhash.xxh3_128_hexdigest(body) == file["checksum"]


def test_an_archive_of_a_small_replica(agent: Any, tree: str) -> None:
    url = tree.replace("/v1/data/", "/v1/archives/")
    answer = agent.call("GET", url, headers={"x-dataflow-job": "j1", "x-dataflow-site": "vu"})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        assert {name: packed.read(name) for name in packed.namelist()} == {
            "empty": b"",
            "sub/a b%20ü": b"inside",
        }
    assert agent.participant.metered == [("j1", "k", len(answer.content), "vu")]


def test_an_archive_is_small_and_stays_inside(agent: Any, tree: str, tmp_path: Path) -> None:
    url = tree.replace("/v1/data/", "/v1/archives/")
    (tmp_path / "secret").write_text("swordfish")
    (agent.participant.data / "tree" / "link").symlink_to(tmp_path / "secret")
    assert b"swordfish" not in agent.call("GET", url).content
    (agent.participant.data / "tree" / "link").unlink()
    with (agent.participant.data / "tree" / "large").open("wb") as file:
        file.truncate(LARGEST_ARCHIVE + 1)
    assert agent.call("GET", url).status_code == 413
    assert agent.call("GET", "/v1/archives/nothing").status_code == 404


def write(root: Path, key: str) -> Any:
    data = xr.DataArray(np.arange(10_000.0).reshape(100, 100), dims=("x", "y"), name="v")
    return write_result(
        data, root=root.as_uri(), key=key, attempt="one", provenance={}, chunk_nbytes=20_000
    )


def test_a_copy_through_the_client(agent: Any, tmp_path: Path) -> None:
    key = "b" * 64
    manifest = write(agent.participant.data, key)
    path = Path(manifest.url.removeprefix("file://")).relative_to(agent.participant.data)
    replica = agent.participant.serve(str(path), "zarr", key=key)

    async def fetch() -> Any:
        async with agent.client(caller="vu") as client:
            return await copy(
                client.source(replica, job="j1"),
                root=(tmp_path / "vu").as_uri(),
                key=key,
                attempt="one",
                provenance={},
                kind="array",
                format="zarr",
                extent=Extent(nbytes=1),
            )

    copied = agent.run(fetch())
    assert [file.checksum for file in copied.files] == [file.checksum for file in manifest.files]
    sent = sum(
        nbytes for job, _, nbytes, to in agent.participant.metered if (job, to) == ("j1", "vu")
    )
    assert sent == manifest.nbytes
    with xr.open_zarr(copied.url) as found:
        assert float(found["v"].sum()) == float(np.arange(10_000).sum())


def test_the_source_is_as_good_as_the_store(agent: Any, tree: str) -> None:
    replica = tree.rpartition("/")[2]
    direct = StoreSource(replica=agent.participant.served_replica(replica))

    async def both() -> None:
        async with agent.client() as client:
            source = client.source(replica)
            assert await source.listing() == list(await direct.listing())
            for file in await source.listing():
                expected = await direct.read(file.path, 0, file.size)
                assert await source.read(file.path, 0, file.size) == expected
            assert repr(source) == f"uva:{replica}"
            with pytest.raises(UnknownDataset):
                await source.read("nothing", 0, 1)

    agent.run(both())


# --- probes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("nbytes", [0, 1, 2**20, 3 * 2**20 + 7])
def test_a_probe(agent: Any, nbytes: int) -> None:
    answer = agent.call("GET", f"/v1/probe?nbytes={nbytes}")
    assert answer.headers["content-length"] == str(nbytes)
    assert answer.content == bytes(nbytes)


# --- over a real socket ---------------------------------------------------------------------------


def test_a_result_opens_over_http(start: Callable[..., Any], tmp_path: Path) -> None:
    expected = np.arange(10_000.0).reshape(100, 100)
    manifest = write(tmp_path / "vu", "a" * 64)
    written = manifest.url.removeprefix("file://")
    shutil.copytree(written, tmp_path / "uva" / "data" / "a.zarr")
    agent = start()
    client = agent.client()
    url = client.data_url(agent.replicas["a.zarr"])
    store = HTTPStore(
        url, client_options={"allow_http": True, "default_headers": client.headers("j1")}
    )
    array: Any = zarr.open_array(ObjectStore(store, read_only=True), path="v", mode="r")
    assert array.chunks != array.shape
    np.testing.assert_array_equal(array[30:70, 20:90], expected[30:70, 20:90])
    with xr.open_zarr(ObjectStore(store, read_only=True)) as opened:
        np.testing.assert_array_equal(opened["v"].values, expected)
    asyncio.run(client.close())


def test_a_large_object_in_pieces(start: Callable[..., Any], tmp_path: Path) -> None:
    data = tmp_path / "uva" / "data"
    data.mkdir(parents=True)
    body = np.random.default_rng(1).bytes(20 * 2**20 + 3)
    (data / "big.h5").write_bytes(body)
    agent = start()

    async def read() -> None:
        async with agent.client() as client:
            replica = agent.replicas["big.h5"]
            assert await client.read(replica, "big.h5") == body
            assert await client.read(replica, "big.h5", 5, 2**20) == body[5 : 2**20]
            async with client.stream(replica, "big.h5", 3) as pieces:
                digest = xxhash.xxh3_128()
                async for piece in pieces:
                    digest.update(piece)
            assert digest.digest() == xxhash.xxh3_128_digest(body[3:])
            async with client.stream(replica, "big.h5") as pieces:  # given up in the middle
                await anext(pieces)
            assert (await client.hello())["version"]

    asyncio.run(read())
