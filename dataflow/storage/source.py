"""Source: an address with what it takes to open it, small enough to send to a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from dataflow.storage.blockreader import BlockReader, open_file
from dataflow.storage.open import Options, local_path, object_store, zarr_store
from dataflow.storage.publish import plain_errors

if TYPE_CHECKING:
    from dataflow.storage.one_put import OnePut
    from dataflow.storage.sftp_zarr import SftpZarr


@dataclass(frozen=True, slots=True)
class Source:
    """A URL to read from. Pickles with its secrets, to the site's own workers; does not show them."""

    url: str
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    options: Options = ()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def path(self) -> Path | None:
        """The local path, if it is one."""
        return local_path(self.url)

    def file(self) -> BinaryIO:
        """The object as a seekable file, opened anew."""
        return open_file(
            self.url, credentials=self.credentials, options=self.options, headers=self.headers
        )

    def file_or_path(self) -> Any:
        """What libraries that open files take: the path if it is local, else a file that pickles."""
        return self.path or BlockReader(
            self.url, credentials=self.credentials, options=self.options, headers=self.headers
        )

    def read(self, path: str) -> bytes | None:
        """All of one file below the URL; ``None`` if there is none."""
        with plain_errors(self.url):
            store = object_store(
                self.url,
                credentials=self.credentials,
                options=self.options,
                headers=self.headers,
                mkdir=False,
            )
            try:
                return bytes(store.get(path).bytes())
            except FileNotFoundError:
                return None

    def zarr(self) -> OnePut | SftpZarr:
        """The URL as a read-only Zarr store."""
        return zarr_store(
            self.url, credentials=self.credentials, options=self.options, headers=self.headers
        )

    def below(self, path: str) -> Source:
        """A file below this URL."""
        url = f"{self.url.rstrip('/')}/{path}"
        return Source(url, self.credentials, self.options, self.headers)
