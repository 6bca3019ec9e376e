"""Files of a login host by SFTP, to be read: what :mod:`dataflow.storage.open` gives for ``sftp://``.

The face is the part of an obstore store that readers use, blocking and not. Behind it is one
connection per host and account in this process, in an event loop of its own: requests of all threads
go over it side by side, and a large read is many requests in flight. The user's SSH configuration, agent
and known hosts count as for ``ssh``; a host whose key is not known is refused.
"""

from __future__ import annotations

import asyncio
import stat
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from dataflow.errors import ConfigError, StorageError

T = TypeVar("T")
_Names = list[str]
_Files = list[dict[str, Any]]

#: What a site file may say about such a store: files of this machine.
SFTP_OPTIONS = frozenset({"config", "known_hosts"})

#: Seconds until a connection that is not made is given up, until one that is dead is noticed, and
#: until a request is given up.
CONNECT_SECONDS, ALIVE_SECONDS, MOST_SILENT, REQUEST_SECONDS = 15.0, 5.0, 3, 300.0
#: Files of a listing that come at a time.
_BATCH = 50


@lru_cache(maxsize=1)
def _loop() -> asyncio.AbstractEventLoop:
    """The loop of all connections of this process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="dataflow-sftp", daemon=True).start()
    return loop


class _Connection:
    """One connection to one account; made when it is needed, and again after it broke."""

    def __init__(self, netloc: str, secret: Mapping[str, str], options: Mapping[str, str]) -> None:
        parts = urlsplit(f"sftp://{netloc}")
        try:
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"sftp://{netloc}: {error}") from error
        self.host, self._port = parts.hostname or "", port
        self._user = secret.get("username") or (unquote(parts.username) if parts.username else None)
        self._secret, self._options = dict(secret), dict(options)
        self._lock: asyncio.Lock | None = None
        self._client: Any = None

    def run(self, work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        """Do something with a client of the server; once more if the connection breaks meanwhile."""
        done = asyncio.run_coroutine_threadsafe(self._again(work), _loop())
        try:
            return done.result(REQUEST_SECONDS)
        except Late as error:
            done.cancel()
            raise StorageError(
                f"sftp://{self.host}: no answer within {REQUEST_SECONDS:g} s"
            ) from error

    async def _again(self, work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        import asyncssh

        broken = (
            asyncssh.SFTPConnectionLost,
            asyncssh.SFTPNoConnection,
            asyncssh.DisconnectError,
            ConnectionError,
        )
        for last in (False, True):
            client = None
            try:
                client = await self._connected()
                return await work(client)
            except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath) as error:
                raise FileNotFoundError(error.reason) from error
            except broken as error:
                if self._client is client:  # nobody else has made it anew
                    self._client = None
                if last:
                    raise self._failed(error) from error
            except (asyncssh.Error, OSError) as error:
                if isinstance(error, StorageError | FileNotFoundError):
                    raise
                raise self._failed(error) from error
        raise AssertionError("one of the two tries has ended it")

    async def _connected(self) -> Any:
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            if self._client is None:
                self._client = await self._connect()
            return self._client

    async def _connect(self) -> Any:
        import asyncssh

        given: dict[str, Any] = {}
        if self._port:
            given["port"] = self._port
        if self._user:
            given["username"] = self._user
        if "password" in self._secret:
            given["password"] = self._secret["password"]
        try:
            if "private_key" in self._secret:
                given["client_keys"] = [
                    asyncssh.import_private_key(
                        self._secret["private_key"], self._secret.get("passphrase")
                    )
                ]
            if "config" in self._options:
                given["config"] = [self._options["config"]]
            if "known_hosts" in self._options:
                given["known_hosts"] = self._options["known_hosts"]
            connection = await asyncssh.connect(
                self.host,
                connect_timeout=CONNECT_SECONDS,
                login_timeout=CONNECT_SECONDS,
                keepalive_interval=ALIVE_SECONDS,
                keepalive_count_max=MOST_SILENT,
                client_version="dataflow",
                **given,
            )
            return await connection.start_sftp_client()
        except asyncssh.HostKeyNotVerifiable as error:
            raise StorageError(
                f"sftp://{self.host}: the key of the host is not known here, or not the one that is "
                f"({error.reason})\nWhat you can do: connect once with ssh {self.host} and look at "
                "the key."
            ) from error
        except asyncssh.PermissionDenied as error:
            raise StorageError(
                f"sftp://{self.host} does not let us in ({error.reason})\n"
                f"What you can do: try ssh {self.host}, or name a credential with username and "
                "password or private_key."
            ) from error
        except (asyncssh.KeyImportError, asyncssh.ConfigParseError) as error:
            raise ConfigError(f"sftp://{self.host}: {error}") from error
        except TimeoutError as error:
            raise StorageError(
                f"sftp://{self.host}: no connection within {CONNECT_SECONDS:g} s"
            ) from error

    def _failed(self, error: Exception) -> StorageError:
        reason = getattr(error, "reason", "") or str(error) or type(error).__name__
        return StorageError(f"sftp://{self.host}: {reason}")


@lru_cache(maxsize=64)
def _connection(
    netloc: str, secret: tuple[tuple[str, str], ...], options: tuple[tuple[str, str], ...]
) -> _Connection:
    try:
        import asyncssh  # noqa: F401
    except ImportError:
        raise ConfigError(
            "stores by SFTP need asyncssh: pip install 'jupyter-dataflow[ssh]'"
        ) from None
    return _Connection(netloc, dict(secret), dict(options))


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to a get."""

    body: bytes

    def bytes(self) -> bytes:
        """All of it."""
        return self.body

    def stream(self, min_chunk_size: int = 2**20) -> _Pieces:
        """All of it in pieces."""
        return _Pieces(self.body, min_chunk_size)


@dataclass(frozen=True, slots=True)
class _Pieces:
    body: bytes
    size: int

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self.body), self.size):
            yield self.body[start : start + self.size]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


@dataclass(frozen=True, slots=True)
class SftpStore:
    """A directory of a host; pickles with its secrets, and does not show them."""

    url: str
    secret: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    options: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        unknown = sorted(dict(self.options).keys() - SFTP_OPTIONS)
        if unknown:
            raise ConfigError(
                f"unknown option {unknown[0]!r} of an SFTP store; there are "
                + ", ".join(sorted(SFTP_OPTIONS))
            )
        if not urlsplit(self.url).hostname:
            raise ConfigError(f"{self.url!r} names no host: write sftp://host/path")

    def head(self, path: str) -> dict[str, Any]:
        """Size and time of a file; a directory is no file."""
        at = self._at(path)

        async def look(client: Any) -> dict[str, Any]:
            return _entry(path, await client.stat(at))

        return self._run(look)

    def get(self, path: str, *, options: Mapping[str, Any] | None = None) -> Found:
        """A whole file, or the ``range`` of it that the options say."""
        asked = (options or {}).get("range")
        if asked is None:
            asked = (0, int(self.head(path)["size"]))
        return Found(self.get_range(path, start=asked[0], end=asked[1]))

    def get_range(self, path: str, *, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end`` (exclusive)."""
        return self.get_ranges(path, starts=[start], ends=[end])[0]

    def get_ranges(self, path: str, *, starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
        """Several ranges of one file, side by side."""
        at = self._at(path)

        async def read(client: Any) -> list[bytes]:
            async with client.open(at, "rb") as file:
                parts = zip(starts, ends, strict=True)
                found = await asyncio.gather(*(file.read(b - a, a) for a, b in parts))
                return [bytes(piece) for piece in found]

        return self._run(read)

    def list(self, prefix: str | None = None, *, chunk_size: int = _BATCH) -> Iterator[_Files]:
        """All files below, in batches; links to files are files, links to directories are not gone into."""
        waiting: _Names = [prefix or ""]
        found: _Files = []
        while waiting:
            try:
                files, folders = self._run(partial(_scan, self, folder=waiting.pop()))
            except FileNotFoundError:
                continue  # it was never there, or is not any more
            found += files
            waiting += folders
            while len(found) >= chunk_size:
                yield found[:chunk_size]
                found = found[chunk_size:]
        if found:
            yield found

    def names(self, folder: str) -> Sequence[str]:
        """Names in one directory; none if it is not there."""
        at = self._at(folder)

        async def look(client: Any) -> Sequence[str]:
            return [name for name in map(str, await client.listdir(at)) if name not in (".", "..")]

        try:
            return self._run(look)
        except FileNotFoundError:
            return []

    async def head_async(self, path: str) -> dict[str, Any]:
        """As :meth:`head`."""
        return await asyncio.to_thread(self.head, path)

    async def get_async(self, path: str, *, options: Mapping[str, Any] | None = None) -> Found:
        """As :meth:`get`."""
        return await asyncio.to_thread(self.get, path, options=options)

    async def get_range_async(self, path: str, *, start: int, end: int) -> bytes:
        """As :meth:`get_range`."""
        return await asyncio.to_thread(self.get_range, path, start=start, end=end)

    def put(self, path: str, *_: Any, **__: Any) -> None:
        """Refused: results need a store with conditional writes."""
        raise StorageError(f"{self.url}/{path}: stores by SFTP are only read")

    delete = put

    def _run(self, work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        return _connection(urlsplit(self.url).netloc, self.secret, self.options).run(work)

    def _at(self, path: str) -> str:
        root = unquote(urlsplit(self.url).path).rstrip("/")
        return f"{root}/{path}" if path else root or "/"


async def _scan(store: SftpStore, client: Any, folder: str) -> tuple[_Files, list[str]]:
    """Files and directories in one directory."""
    files: _Files = []
    folders: list[str] = []
    async for entry in client.scandir(store._at(folder)):
        name = str(entry.filename)
        if name in (".", ".."):
            continue
        path = f"{folder}/{name}" if folder else name
        attributes = entry.attrs
        mode = int(attributes.permissions or 0)
        if stat.S_ISLNK(mode):
            with suppress(Exception):  # it leads nowhere
                attributes = await client.stat(store._at(path))
                mode = int(attributes.permissions or 0)
            if stat.S_ISDIR(mode):
                continue
        if stat.S_ISDIR(mode):
            folders.append(path)
        elif stat.S_ISREG(mode):
            files.append(_entry(path, attributes))
    return files, folders


def _entry(path: str, attributes: Any) -> dict[str, Any]:
    if stat.S_ISDIR(int(attributes.permissions or 0)):
        raise FileNotFoundError(f"{path} is a directory")
    size, changed = int(attributes.size or 0), int(attributes.mtime or 0)
    return {
        "path": path,
        "size": size,
        "last_modified": datetime.fromtimestamp(changed, UTC),
        "e_tag": f'"{changed:x}-{int(getattr(attributes, "mtime_ns", 0) or 0):x}-{size:x}"',
    }
