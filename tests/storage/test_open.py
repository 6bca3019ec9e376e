"""URLs to stores."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from dataflow.datasets import Replica
from dataflow.errors import ConfigError, StorageError
from dataflow.storage.open import (
    filesystem,
    fsspec_options,
    local_path,
    object_store,
    split,
    zarr_store,
)
from dataflow.storage.read import open_data
from dataflow.storage.results import write_result


def test_local_paths(tmp_path: Path) -> None:
    assert local_path("file:///a%20b/c") == Path("/a b/c")
    assert local_path("/a b/c") == Path("/a b/c")
    assert local_path("s3://b/c") is None
    assert split("s3://b/c/d.h5") == ("s3://b/c", "d.h5")
    assert split("file:///c/d%20e.h5") == ("file:///c", "d e.h5")
    with pytest.raises(StorageError):
        split("s3://bucket")
    spaced = tmp_path / "with space"
    object_store(spaced.as_uri()).put("x", b"1")
    assert (spaced / "x").read_bytes() == b"1"


def test_one_store_for_equal_arguments(tmp_path: Path) -> None:
    url = tmp_path.as_uri()
    assert object_store(url) is object_store(url, credentials={}, options=[])
    assert object_store(url) is not object_store(f"{url}/a")


def test_missing_directory_is_made_only_for_writing(tmp_path: Path) -> None:
    url = (tmp_path / "a" / "b").as_uri()
    with pytest.raises(StorageError, match="no directory"):
        object_store(url, mkdir=False)
    object_store(url)
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("url", ["ftp://x/y", "s3:///x", "gs://b"])
def test_unknown_schemes(url: str) -> None:
    with pytest.raises(ConfigError, match="cannot open"):
        object_store(url)


def test_unknown_option() -> None:
    with pytest.raises(ConfigError, match=r"unknown option 'endpont'.*endpoint"):
        object_store("s3://b", options=(("endpont", "http://x"),))


def test_secrets_are_not_shown() -> None:
    store = zarr_store(
        "s3://b/p", credentials={"access_key_id": "a", "secret_access_key": "s3cr3t"}
    )
    assert "s3cr3t" not in repr(store)
    assert pickle.loads(pickle.dumps(store)).read_only


def test_fsspec_at_the_door(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    fs, path = filesystem((tmp_path / "a.txt").as_uri())
    assert fs.cat_file(path) == b"hello"
    options = fsspec_options(
        "s3://b/x", {"access_key_id": "a", "secret_access_key": "b"}, (("endpoint", "http://e"),)
    )
    assert (options["key"], options["secret"], options["endpoint_url"]) == ("a", "b", "http://e")


class _Bearer(SimpleHTTPRequestHandler):
    """A directory for those who show the token; ranges as an agent serves them."""

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(False)

    def do_GET(self) -> None:
        self.answer(True)

    def answer(self, body: bool) -> None:
        if self.headers.get("Authorization") != "Bearer t0ken":
            self.send_error(401)
            return
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content, wanted = path.read_bytes(), self.headers.get("Range")
        size = len(content)
        if wanted:
            start, end = wanted.removeprefix("bytes=").split("-")
            first, last = int(start), min(int(end or size - 1), size - 1)
            content = content[first : last + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Last-Modified", "Sat, 21 Nov 2026 00:00:00 GMT")
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Bearer, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_result_read_from_another_site(agent: str, tmp_path: Path) -> None:
    value = xr.DataArray(np.arange(100.0).reshape(10, 10), dims=("x", "y"), name="v")
    manifest = write_result(
        value, root=tmp_path.as_uri(), key="k", attempt="a", provenance={}, chunk_nbytes=200
    )
    away = Replica(
        key="k",
        site="far",
        store="s",
        url=manifest.url.replace(tmp_path.as_uri(), agent),
        format="zarr",
        nbytes=0,
    )
    headers = {"Authorization": "Bearer t0ken"}
    lazy = open_data(away, kind="array", headers=headers)
    xr.testing.assert_identical(pickle.loads(pickle.dumps(lazy)).compute(), value)
    np.save(tmp_path / "a.npy", np.arange(1000))
    npy = Replica(key="k", site="far", store="s", url=f"{agent}/a.npy", format="npy", nbytes=0)
    found = open_data(npy, kind="array", headers=headers, chunk_nbytes=800)
    assert found.sum().compute() == 499500
    with pytest.raises(Exception, match=r"401|Unauth"):
        open_data(npy, kind="array", headers={"Authorization": "Bearer wrong"})
