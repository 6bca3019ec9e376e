"""Routes of data: a replica of this site as a read-only tree of objects over HTTP.

``/v1/data/{replica}/`` is a root that obstore's HTTPStore, fsspec and ``xr.open_zarr`` read as it
is. Bytes go from the store to the socket in pieces; nothing is opened, parsed or unpickled here.
"""

from __future__ import annotations

import asyncio
import io
import time
import zipfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import format_datetime
from pathlib import Path as LocalPath
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response, StreamingResponse

from dataflow.agent.answers import record, refusal, refusals
from dataflow.agent.door import SUSPICIOUS, identity_of
from dataflow.agent.ranges import Unsatisfiable, wanted
from dataflow.agent.served import Own, Served
from dataflow.agreements import Request as Asked
from dataflow.datasets import Replica
from dataflow.documents import from_json
from dataflow.errors import ConfigError, UnknownDataset
from dataflow.execution.events import Errand
from dataflow.storage.credentials import resolve
from dataflow.storage.fingerprints import no_files
from dataflow.storage.layout import Area, key_prefix
from dataflow.storage.manifest import ONE_FILE, PARQUET, FileEntry
from dataflow.storage.open import Options, local_path, object_store, split
from dataflow.storage.publish import find_result
from dataflow.storage.transfer import listing_of
from dataflow.stores import in_database

if TYPE_CHECKING:
    from dataflow.storage.open import AnyStore

router = APIRouter(tags=["data"])

Id = Annotated[str, Path(min_length=1, max_length=200)]

#: Bytes handed to the server at a time, of all objects of an archive, and what a probe may ask for.
PIECE = 2**20
LARGEST_ARCHIVE = 2**22
LARGEST_PROBE = 2**26

#: Seconds after which somebody who is still reading is asked again whether he may.
ASKED_AGAIN_SECONDS = 1.0

#: The job whose ledger the bytes belong to, and the site that they go to.
JOB_HEADER, SITE_HEADER = "x-dataflow-job", "x-dataflow-site"
#: For whom an agent reads, where it goes, and the request of the job.
USER_HEADER, TO_HEADER = "x-dataflow-user", "x-dataflow-to"
REQUEST_HEADER = "x-dataflow-request"
_ERRAND = (JOB_HEADER, USER_HEADER, TO_HEADER)

_LONGEST_WORD = 200
_BINARY, _ZIP = "application/octet-stream", "application/zip"
_BYTES: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {_BINARY: {}}}
    for status, text in ((200, "The whole object"), (206, "The bytes asked for"))
}


@router.get(
    "/v1/data/{replica}",
    summary="The objects of a replica: path, size, and checksum where it is known",
    response_model=list[FileEntry],
    responses=refusals(404, 503),
)
async def listing(request: Request, own: Own, replica: Id) -> Response:
    copy = _admitted(request, own, replica)
    files = await asyncio.to_thread(_listing, own, copy)
    return record(list(files), list[FileEntry])


@router.get(
    "/v1/archives/{replica}",
    summary="All objects of a small replica at once, as a ZIP archive",
    response_class=Response,
    responses={
        200: {"description": "The archive", "content": {_ZIP: {}}},
        **refusals(404, 413, 503),
    },
)
async def archive(request: Request, own: Own, replica: Id) -> Response:
    """One round trip for what would take one for each object. Metered as the objects are."""
    copy = _admitted(request, own, replica)
    try:
        body = await asyncio.to_thread(_archive, own, copy)
    except FileNotFoundError as error:
        return refusal(404, UnknownDataset.kind, f"{replica}/{error}")
    if body is None:
        return refusal(413, "config", f"{replica} has more than {LARGEST_ARCHIVE} bytes")
    _meter(request, own, copy, len(body))
    return Response(body, media_type=_ZIP)


@router.head("/v1/data/{replica}/{path:path}", include_in_schema=False)
@router.get(
    "/v1/data/{replica}/{path:path}",
    summary="Bytes of one object of a replica; understands Range",
    response_class=StreamingResponse,
    responses={**_BYTES, **refusals(404, 416, 503)},
)
async def data(request: Request, own: Own, replica: Id, path: str) -> Response:
    """Bytes are metered for the job that header ``X-Dataflow-Job`` names."""
    copy = _admitted(request, own, replica)
    try:
        store, name = await asyncio.to_thread(_object, own, copy, path)
        facts = await store.head_async(name)
    except FileNotFoundError as error:
        if isinstance(error, Leaves):
            request.scope[SUSPICIOUS] = True
        return refusal(404, UnknownDataset.kind, f"{replica}/{path}")
    size, tag = int(facts["size"]), facts["e_tag"] or ""
    headers = {
        "accept-ranges": "bytes",
        "last-modified": format_datetime(facts["last_modified"], usegmt=True),
        "x-content-type-options": "nosniff",
        **({"etag": tag} if tag else {}),
    }
    condition = request.headers.get("if-range")
    try:
        asked = None if condition not in (None, tag) else request.headers.get("range")
        part = wanted(asked, size)
    except Unsatisfiable:
        answer = refusal(416, "config", f"{replica}/{path} has {size} bytes")
        answer.headers["content-range"] = f"bytes */{size}"
        return answer
    start, end = part or (0, size)
    headers["content-length"] = str(end - start)
    if part is not None:
        headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
    status = 200 if part is None else 206
    if request.method == "HEAD" or start == end:
        return Response(None, status, headers, _BINARY)
    found = await store.get_async(name, options={"range": (start, end)})
    pieces = _metered(request, own, copy, found.stream(min_chunk_size=PIECE))
    return StreamingResponse(pieces, status, headers, _BINARY)


@router.get(
    "/v1/probe",
    summary="So many bytes of nothing, to measure a link",
    response_class=StreamingResponse,
    responses={**{200: _BYTES[200]}, **refusals()},
)
async def probe(
    nbytes: Annotated[int, Query(ge=0, le=LARGEST_PROBE)] = 2**20,
) -> StreamingResponse:
    async def zeros() -> AsyncIterator[bytes]:
        piece = bytes(min(PIECE, nbytes))
        for start in range(0, nbytes, PIECE):
            yield piece[: nbytes - start]

    headers = {"content-length": str(nbytes), "cache-control": "no-store"}
    return StreamingResponse(zeros(), 200, headers, _BINARY)


class Leaves(FileNotFoundError):
    """A path that leaves its replica: there is nothing for whoever asks, and it is written down."""


def _admitted(request: Request, own: Served, replica: str) -> Replica:
    """The copy, if it has files, and its owner lets whoever asks have their bytes.

    Agents say for whom, and by which request, they read; users read for themselves.
    """
    try:
        copy = own.served_replica(replica)
    except UnknownDataset:
        request.scope[SUSPICIOUS] = True
        raise
    _let(request, own, copy)
    if in_database(copy.url):
        raise no_files(copy.url)
    return copy


def _let(request: Request, own: Served, copy: Replica, *, again: bool = False) -> None:
    asker = identity_of(request)
    if asker.role == "admin":
        return
    words = {name: request.headers.get(name, "")[:_LONGEST_WORD] for name in _ERRAND}
    errand = Errand(
        job=words[JOB_HEADER],
        user=asker.speaks_for(unquote(words[USER_HEADER])),
        request=_request(request.headers.get(REQUEST_HEADER, "")),
        to=words[TO_HEADER] if asker.role == "site" else "",
    )
    own.may_read(copy, errand, (asker.user,) if asker.role == "site" else (), again=again)


def _request(header: str) -> Asked:
    if not header:
        return Asked()
    try:
        return from_json(Asked, unquote(header))
    except ValueError:
        raise ConfigError(f"the header {REQUEST_HEADER} is not understood") from None


@dataclass(frozen=True, slots=True)
class _Access:
    """What it takes to open the store of a replica, here where it lies."""

    root: str
    credentials: Mapping[str, str]
    options: Options


def _access(own: Served, replica: Replica) -> _Access:
    store = own.store_of(replica)
    if store is None:
        return _Access("", {}, ())
    return _Access(store.url, resolve(store.credentials), store.options)


def _listing(own: Served, replica: Replica) -> Sequence[FileEntry]:
    """With checksums if it is a committed result or copy: then the commit is the list."""
    access = _access(own, replica)
    known: dict[str, Any] = {"credentials": access.credentials, "options": access.options}
    areas: tuple[Area, ...] = ("results", "copies")
    for area in areas:
        if access.root and replica.url.startswith(
            f"{access.root.rstrip('/')}/{key_prefix(area, replica.key)}/"
        ):
            manifest = find_result(access.root, replica.key, area=area, **known)
            if manifest is not None and manifest.url == replica.url:
                return manifest.files
    return listing_of(replica, **known)


def _archive(own: Served, replica: Replica) -> bytes | None:
    """All objects, as they lie in the store; ``None`` if that is too much for one answer."""
    files = _listing(own, replica)
    if sum(file.size for file in files) > LARGEST_ARCHIVE:
        return None
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            store, name = _object(own, replica, file.path)
            archive.writestr(file.path, bytes(store.get(name).bytes()))
    return packed.getvalue()


def _object(own: Served, replica: Replica, path: str) -> tuple[AnyStore, str]:
    """The open store of a replica, and the name in it that ``path`` means.

    Raises
    ------
    FileNotFoundError
        If the path leaves the replica, by its text or through a symbolic link, or names nothing.
    """
    if any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in path.split("/")):
        raise Leaves(path)
    local, root = local_path(replica.url), replica.url
    if _is_one_file(replica, local):
        root, name = split(replica.url)
        if path != name:
            raise FileNotFoundError(path)
    elif local is not None and not (local / path).resolve().is_relative_to(local.resolve()):
        raise Leaves(path)
    access = _access(own, replica)
    store = object_store(root, credentials=access.credentials, options=access.options, mkdir=False)
    return store, path


def _is_one_file(replica: Replica, local: LocalPath | None) -> bool:
    if local is not None:
        return local.is_file()
    return replica.format in ONE_FILE or (
        replica.format == "parquet" and replica.url.endswith(PARQUET)
    )


async def _metered(
    request: Request, own: Served, replica: Replica, pieces: Any
) -> AsyncIterator[bytes]:
    """The pieces; what was really handed out is metered, however it ends.

    Whoever loses his right meanwhile gets no more of them: the connection is cut.
    """
    sent, asked = 0, time.monotonic()
    try:
        async for piece in pieces:
            if time.monotonic() - asked > ASKED_AGAIN_SECONDS:
                _let(request, own, replica, again=True)
                asked = time.monotonic()
            yield bytes(piece)
            sent += len(piece)
    finally:
        _meter(request, own, replica, sent)


def _meter(request: Request, own: Served, replica: Replica, sent: int) -> None:
    job = request.headers.get(JOB_HEADER, "")[:_LONGEST_WORD]
    to = request.headers.get(SITE_HEADER, "")[:_LONGEST_WORD] or identity_of(request).user
    if job and sent:
        own.meter(job, replica.key, sent, to)
