"""Multipart: a large file sent to S3 in parts, in any order, that a later try continues.

The service itself keeps the parts, and puts them together without anybody reading them again. Until
then nothing is visible; what is never completed ends with the attempt (:func:`abort_below`), or
by the bucket's own rule for uploads that were given up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dataflow.errors import StorageError
from dataflow.storage.open import Options, is_true

if TYPE_CHECKING:
    from dataflow.storage.publish import Attempt

#: What S3 asks of a part that is not the last (bytes), and the most parts of one file.
SMALLEST_PART, MOST_PARTS = 5 * 2**20, 10_000

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Upload:
    """One file on its way to S3, known to the service by ``id``.

    Attributes
    ----------
    there
        Numbers of the parts (from 1) that an earlier try sent → size and ETag.
    """

    client: Any = field(repr=False)
    bucket: str
    key: str
    id: str
    there: dict[int, tuple[int, str]]

    @property
    def url(self) -> str:
        """Where the file will be."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def continued(self) -> bool:
        """Whether parts came before this object was made."""
        return bool(self.there)

    def put(self, number: int, body: bytes) -> str:
        """Send part ``number``; its ETag."""
        with _plain_errors(self.url):
            sent = self.client.upload_part(
                Bucket=self.bucket, Key=self.key, UploadId=self.id, PartNumber=number, Body=body
            )
        return str(sent["ETag"])

    def complete(self, tags: Mapping[int, str]) -> str:
        """Make the file of its parts, number → ETag; the ETag of the file."""
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in sorted(tags.items())]
        with _plain_errors(self.url):
            done = self.client.complete_multipart_upload(
                Bucket=self.bucket,
                Key=self.key,
                UploadId=self.id,
                MultipartUpload={"Parts": parts},
            )
        return str(done["ETag"])

    def abort(self) -> None:
        """Forget all parts."""
        with _plain_errors(self.url):
            self.client.abort_multipart_upload(Bucket=self.bucket, Key=self.key, UploadId=self.id)


def step_of(root: str, nbytes: int, part_nbytes: int) -> int:
    """Bytes of a part of a file that goes to the store at ``root`` in parts; 0 if it cannot.

    It is ``part_nbytes``, or more where that would make too many parts.
    """
    if not root.startswith("s3://") or part_nbytes < SMALLEST_PART or find_spec("botocore") is None:
        return 0
    return max(part_nbytes, -(-nbytes // MOST_PARTS))


def upload_to(attempt: Attempt, path: str) -> Upload:
    """Begin to send one file of an attempt, or go on where an earlier try stopped."""
    bucket, prefix = _place(attempt.root)
    client = _client(attempt.credentials, tuple(attempt.options))
    key = f"{prefix}{attempt.prefix}/{path}"
    with _plain_errors(f"s3://{bucket}/{key}"):
        begun = [id for found, id in _uploads(client, bucket, key) if found == key]
        if not begun:
            made = client.create_multipart_upload(Bucket=bucket, Key=key)
            return Upload(client, bucket, key, str(made["UploadId"]), {})
        there = {
            int(part["PartNumber"]): (int(part["Size"]), str(part["ETag"]))
            for page in client.get_paginator("list_parts").paginate(
                Bucket=bucket, Key=key, UploadId=begun[-1]
            )
            for part in page.get("Parts", ())
        }
    return Upload(client, bucket, key, begun[-1], there)


def abort_below(
    root: str,
    prefix: str,
    credentials: Pairs,
    options: Options,
    *,
    silent_since: float | None = None,
) -> tuple[str, ...]:
    """Give up uploads below a prefix of the store at ``root``; nothing where it is not S3.

    Parameters
    ----------
    silent_since
        Seconds since the epoch: only those of which no part came later. Default all.

    Returns
    -------
    tuple of str
        Paths below the root of the files that there would have been.
    """
    if not root.startswith("s3://") or find_spec("botocore") is None:
        return ()
    bucket, before = _place(root)
    client = _client(credentials, tuple(options))
    given_up = []
    with _plain_errors(f"{root}/{prefix}"):
        for key, id in _uploads(client, bucket, f"{before}{prefix}"):
            if silent_since is not None and _last_sign(client, bucket, key, id) > silent_since:
                continue
            client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=id)
            given_up.append(key.removeprefix(before))
    return tuple(given_up)


def _last_sign(client: Any, bucket: str, key: str, id: str) -> float:
    """When the last part came (s since the epoch); 0 if none did."""
    pages = client.get_paginator("list_parts").paginate(Bucket=bucket, Key=key, UploadId=id)
    found = [part["LastModified"].timestamp() for page in pages for part in page.get("Parts", ())]
    return float(max(found, default=0.0))


def _uploads(client: Any, bucket: str, prefix: str) -> list[tuple[str, str]]:
    """Key and id of all uploads below a prefix, in the order in which they began."""
    pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
    found = [upload for page in pages for upload in page.get("Uploads", ())]
    found.sort(key=lambda upload: upload["Initiated"])
    return [(str(upload["Key"]), str(upload["UploadId"])) for upload in found]


def _place(root: str) -> tuple[str, str]:
    """Bucket, and what comes before every key; empty or with a slash at its end."""
    parts = urlsplit(root)
    prefix = parts.path.strip("/")
    return parts.netloc, f"{prefix}/" if prefix else ""


@lru_cache(maxsize=16)
def _client(credentials: Pairs, options: Pairs) -> Any:
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config

    given, secret = dict(options), dict(credentials)
    endpoint = given.get("endpoint")
    path_style = is_true(given.get("path_style", "true" if endpoint else "false"))
    config: dict[str, Any] = {
        # As :mod:`dataflow.storage.open` does it: bodies are not hashed for the signature.
        "s3": {
            "payload_signing_enabled": False,
            "addressing_style": "path" if path_style else "virtual",
        },
        # Checksums in trailers are refused over https by Ceph 16 and by older MinIO.
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        "retries": {"max_attempts": int(given.get("retries", "10")), "mode": "standard"},
        "max_pool_connections": 32,
    }
    if is_true(given.get("anonymous", "false")):
        config["signature_version"] = UNSIGNED
    return botocore.session.get_session().create_client(
        "s3",
        region_name=given.get("region", "us-east-1"),
        endpoint_url=endpoint,
        aws_access_key_id=secret.get("access_key_id"),
        aws_secret_access_key=secret.get("secret_access_key"),
        aws_session_token=secret.get("session_token"),
        config=Config(**config),
    )


@contextmanager
def _plain_errors(where: str) -> Iterator[None]:
    """The client's own errors as :class:`StorageError` with the first line of their text."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        text = str(error).strip().partition("\n")[0]
        raise StorageError(f"{where}: {text}") from error
