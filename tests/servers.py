"""Real S3 servers on loopback, for tests and benchmarks: Ceph radosgw, and rclone as a bad one."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dataflow.testing.ports import free_port

SCRIPT = Path(__file__).parents[1] / "hpc" / "minio" / "radosgw.sh"
PACKAGES = ("radosgw", "ceph-mon", "ceph-osd", "ceph-common", "curl")


@dataclass(frozen=True)
class S3Server:
    """A running server: how to reach it."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)

    @property
    def credentials(self) -> dict[str, str]:
        return {"access_key_id": self.access_key, "secret_access_key": self.secret_key}

    @property
    def options(self) -> tuple[tuple[str, str], ...]:
        return (("endpoint", self.endpoint), ("region", "us-east-1"))

    def bucket(self, name: str) -> str:
        """Make a bucket; its URL."""
        import botocore.session

        session = botocore.session.get_session()
        client = session.create_client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=name)
        client.close()
        return f"s3://{name}"


def why_no_radosgw() -> str:
    """Why radosgw cannot be started here; empty if it can."""
    missing = [
        name
        for name in ("radosgw", "ceph-mon", "ceph-osd", "ceph", "curl")
        if not shutil.which(name)
    ]
    if missing:
        return f"{', '.join(missing)} not installed (apt-get install {' '.join(PACKAGES)})"
    return "" if os.geteuid() == 0 else "radosgw is started as root here"


@contextmanager
def radosgw(nbytes: int = 8 * 2**30) -> Iterator[S3Server]:
    """A one-node Ceph with its data in memory, gone at the end."""
    directory = Path(tempfile.mkdtemp(prefix="rgw-"))
    access, secret = "test", secrets.token_hex(16)
    port, mon = free_port(), free_port()
    environment = os.environ | {"MONPORT": str(mon), "STORE": "memstore", "SIZE": str(nbytes)}
    try:
        subprocess.run(
            [SCRIPT, "start", directory, str(port), access, secret],
            env=environment,
            check=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        yield S3Server(f"http://127.0.0.1:{port}", access, secret)
    finally:
        subprocess.run([SCRIPT, "stop", directory], check=False, timeout=60)
        shutil.rmtree(directory, ignore_errors=True)


def rclone_program() -> str | None:
    """Where rclone is, if it is: beside the interpreter or on the path."""
    beside = Path(sys.executable).with_name("rclone")
    return str(beside) if beside.exists() else shutil.which("rclone")


@contextmanager
def rclone_s3() -> Iterator[S3Server]:
    """rclone's S3 server over a directory: it ignores the conditions of a put."""
    program = rclone_program()
    assert program is not None
    directory = Path(tempfile.mkdtemp(prefix="rclone-"))
    access, secret = "test", secrets.token_hex(16)
    port = free_port()
    server = subprocess.Popen(
        [
            program,
            "serve",
            "s3",
            "--auth-key",
            f"{access},{secret}",
            "--addr",
            f"127.0.0.1:{port}",
            directory,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _answers(port)
        yield S3Server(f"http://127.0.0.1:{port}", access, secret)
    finally:
        server.terminate()
        server.wait(20)
        shutil.rmtree(directory, ignore_errors=True)


def _answers(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"nothing listens on port {port}")
