"""URLs to stores: the one place where a URL, a credential and options become an open store.

``file://`` (or a plain absolute path) and ``s3://bucket/prefix``; for reading only ``sftp://host/path``
and ``http(s)://``, which is also what another site's agent serves. All but SFTP goes through obstore;
fsspec stays at the door (:func:`filesystem`) for formats that know nothing else.

Measured choices (Ceph radosgw on loopback):

- bodies are not hashed for the signature (``unsigned_payload``): hashing them costs the client ten
  times and the server half again the CPU of the put itself; a checksum codec protects them instead,
  and https protects the way;
- one PUT per object, never multipart, for anything that fits into memory: obstore's default turns
  an 8 MiB chunk into four requests, and a killed writer leaves the parts behind.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

import obstore.store

from dataflow.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

    from dataflow.storage.one_put import OnePut
    from dataflow.storage.sftp import SftpStore
    from dataflow.storage.sftp_zarr import SftpZarr

    # Not all of it is in an SFTP store: what is read is.
    AnyStore = obstore.store.LocalStore | obstore.store.S3Store | obstore.store.HTTPStore

Options = Sequence[tuple[str, str]]

#: What a site file may say about an S3 service.
S3_OPTIONS = frozenset(
    {"endpoint", "region", "path_style", "anonymous", "timeout", "retries", "patience"}
)

#: Seconds for which a request to S3 is tried again. Longer would only hide an outage: what fails is
#: tried once more by the job, which then finds another way or says so.
PATIENCE = 20.0
#: Seconds without a byte after which a web server counts as silent, and seconds for which it is asked
#: again: an agent (which is told who asks), where whoever waits wants to know soon; and any other, which
#: may have to compute what it sends.
AGENTS, OTHERS = (6, 10), (60, 20)
#: Time for a request that carries next to nothing, such as a commit, to be answered.
QUICK = "10s"


def local_path(url: str) -> Path | None:
    """The path that a ``file://`` URL or a plain path means; ``None`` for any other URL."""
    if "://" not in url:
        return Path(url).absolute()
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def split(url: str) -> tuple[str, str]:
    """A URL as parent and last name: what to open, and what to ask it for."""
    parent, _, name = url.rstrip("/").rpartition("/")
    if parent.endswith("/") or not name:
        raise StorageError(f"{url!r} is a whole store, not something in one")
    return parent, unquote(name) if url.startswith(("file://", "sftp://")) else name


def object_store(
    url: str,
    *,
    credentials: Mapping[str, str] | None = None,
    options: Options = (),
    headers: Mapping[str, str] | None = None,
    mkdir: bool = True,
) -> AnyStore:
    """An obstore store rooted at ``url``.

    Equal arguments give the same store within one process, so that tasks share its connections.

    Parameters
    ----------
    credentials
        Fields ``access_key_id``, ``secret_access_key``, ``session_token``; without them an S3
        store takes what obstore finds in the environment. For SFTP ``username``, ``password``,
        ``private_key``, ``passphrase``, beside what the account's SSH configuration has; for
        ``http(s)://`` ``token``, or ``username`` and ``password``.
    options
        Pairs ``endpoint``, ``region`` (default ``us-east-1``), ``path_style`` (default ``true``
        with an endpoint), ``anonymous``, ``timeout`` (of one request, such as ``30s``),
        ``retries`` (default 10) and ``patience`` (seconds within which they are made, default 20).
    headers
        Sent with every request to an ``http(s)://`` URL.
    mkdir
        Make a local directory that does not exist.

    Raises
    ------
    ConfigError
        For an unknown scheme or option.
    StorageError
        If a local directory does not exist and may not, or cannot, be made.
    """
    return _opened(url, _pairs(credentials), tuple(options), _pairs(headers), mkdir)


def quick(options: Options) -> Options:
    """The same store for requests that carry next to nothing: silence is noticed sooner."""
    return options if "timeout" in dict(options) else (*options, ("timeout", QUICK))


def zarr_store(
    url: str,
    *,
    credentials: Mapping[str, str] | None = None,
    options: Options = (),
    headers: Mapping[str, str] | None = None,
    read_only: bool = True,
) -> OnePut | SftpZarr:
    """A Zarr store rooted at ``url``; it pickles, with its secrets, to the site's own workers."""
    from dataflow.storage.one_put import OnePut  # zarr takes half a second to load

    store = object_store(
        url, credentials=credentials, options=options, headers=headers, mkdir=not read_only
    )
    if url.startswith("sftp://"):
        from dataflow.storage.sftp_zarr import SftpZarr

        return SftpZarr(cast("SftpStore", store))
    return OnePut(store, read_only=read_only)


def filesystem(
    url: str, *, credentials: Mapping[str, str] | None = None, options: Options = ()
) -> tuple[AbstractFileSystem, str]:
    """An fsspec file system and the path of ``url`` in it, for formats that need one.

    Open files of it with ``cache_type="blockcache", block_size=2**20``: the default of s3fs moves
    a hundred times the bytes of a small slice.
    """
    import fsspec

    fs, path = fsspec.core.url_to_fs(url, **fsspec_options(url, credentials, options))
    return fs, path


def fsspec_options(
    url: str, credentials: Mapping[str, str] | None, options: Options
) -> dict[str, Any]:
    """The ``storage_options`` that fsspec's own readers want for ``url``."""
    if not url.startswith("s3://"):
        return {}
    given, secret = dict(options), credentials or {}
    found: dict[str, Any] = {
        "key": secret.get("access_key_id"),
        "secret": secret.get("secret_access_key"),
        "token": secret.get("session_token"),
        "endpoint_url": given.get("endpoint"),
        "anon": is_true(given.get("anonymous", "false")) or None,
    }
    found = {name: value for name, value in found.items() if value}
    found["client_kwargs"] = {"region_name": given.get("region", "us-east-1")}
    # Checksums in trailers are refused over https by Ceph 16 and by older MinIO.
    found["config_kwargs"] = {
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
    return found


def _pairs(mapping: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((mapping or {}).items()))


def is_true(word: str) -> bool:
    """Whether an option's word says yes."""
    return word.strip().lower() in {"1", "true", "yes", "on"}


@lru_cache(maxsize=256)
def _opened(
    url: str,
    credentials: tuple[tuple[str, str], ...],
    options: tuple[tuple[str, str], ...],
    headers: tuple[tuple[str, str], ...],
    mkdir: bool,
) -> AnyStore:
    path = local_path(url)
    if path is not None:
        if not mkdir and not path.is_dir():
            raise StorageError(f"there is no directory {path}")
        try:
            return obstore.store.LocalStore(path, mkdir=mkdir, automatic_cleanup=True)
        except OSError as error:
            raise StorageError(f"cannot open the directory {path}: {error}") from error
    parts = urlsplit(url)
    if parts.scheme == "sftp":
        from dataflow.storage.sftp import SftpStore

        return cast("AnyStore", SftpStore(url.rstrip("/"), credentials, options))
    if parts.scheme in {"http", "https"}:
        # However large a piece is and however slow the road: while bytes come, all is well.
        silence, patience = AGENTS if headers else OTHERS
        client: dict[str, Any] = {"allow_http": parts.scheme == "http", "timeout": "1day"}
        client["read_timeout"] = f"{silence}s"
        if headers or credentials:
            client["default_headers"] = {**_authorization(url, dict(credentials)), **dict(headers)}
        return obstore.store.HTTPStore(
            url,
            client_options=client,  # type: ignore[arg-type]
            retry_config={"max_retries": 10, "retry_timeout": timedelta(seconds=patience)},
        )
    if parts.scheme != "s3" or not parts.netloc:
        raise ConfigError(
            f"cannot open {url!r}: need file:///…, s3://bucket/prefix, sftp://… or https://…"
        )
    return _s3(parts.netloc, parts.path.strip("/"), dict(credentials), dict(options))


def _authorization(url: str, secret: Mapping[str, str]) -> dict[str, str]:
    """The header that a credential means; it is not sent in the clear to another machine."""
    if not secret:
        return {}
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise ConfigError(f"{url}: a credential is not sent without encryption; use https://")
    if "token" in secret:
        return {"authorization": f"Bearer {secret['token']}"}
    if "username" not in secret or "password" not in secret:
        raise ConfigError(f"{url}: its credential needs token, or username and password")
    both = f"{secret['username']}:{secret['password']}".encode()
    return {"authorization": f"Basic {base64.b64encode(both).decode()}"}


def _s3(bucket: str, prefix: str, credentials: dict[str, str], options: dict[str, str]) -> AnyStore:
    unknown = sorted(options.keys() - S3_OPTIONS)
    if unknown:
        raise ConfigError(
            f"unknown option {unknown[0]!r} of an S3 store; there are {', '.join(sorted(S3_OPTIONS))}"
        )
    endpoint = options.get("endpoint")
    path_style = is_true(options.get("path_style", "true" if endpoint else "false"))
    config: dict[str, Any] = {
        "region": options.get("region", "us-east-1"),
        "virtual_hosted_style_request": not path_style,
        "unsigned_payload": True,
    }
    if endpoint:
        config["endpoint"] = endpoint
    if is_true(options.get("anonymous", "false")):
        config["skip_signature"] = True
    for name in ("access_key_id", "secret_access_key", "session_token"):
        if name in credentials:
            config[name] = credentials[name]
    client: dict[str, Any] = {"allow_http": bool(endpoint and endpoint.startswith("http://"))}
    if "timeout" in options:
        client["timeout"] = options["timeout"]
    try:
        patience = timedelta(seconds=float(options.get("patience", PATIENCE)))
        retries = int(options.get("retries", 10))
    except ValueError as error:
        raise ConfigError(f"retries and patience of an S3 store are numbers: {error}") from error
    return obstore.store.S3Store(
        bucket,
        retry_config={"max_retries": retries, "retry_timeout": patience},
        prefix=prefix or None,
        config=config,  # type: ignore[arg-type]
        client_options=client,  # type: ignore[arg-type]
    )
