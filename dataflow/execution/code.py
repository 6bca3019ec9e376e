"""Code of operations on its way to a site: packed where it was written, opened by workers only.

A function that a site cannot be expected to have (of a notebook, of a module beside it) travels by
value, with the modules beside it that it uses. What is installed, there as here, travels by name.
"""

from __future__ import annotations

import io
import os
import re
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from dataflow.errors import GraphError
from dataflow.graph.installed import is_installed
from dataflow.graph.operation import Functions
from dataflow.storage.source import Source

_DIGEST = re.compile(r"[A-Za-z0-9_-]{1,200}")

_registering = threading.Lock()


def pack(functions: Functions) -> bytes:
    """The functions as bytes that :func:`unpack` opens in any process of the same Python.

    Raises
    ------
    GraphError
        If they hold data that were opened with a secret, which would travel, and be kept, with them.
    """
    packed = io.BytesIO()
    with _by_value():
        _Packer(packed).dump(functions)
    return packed.getvalue()


class _Packer(cloudpickle.Pickler):  # type: ignore[misc]
    """Refuses what knows a token or a key: the code of an operation is kept at every site it visits."""

    def reducer_override(self, value: Any) -> Any:
        if _holds_secret(value):
            raise GraphError(
                "a function uses data that were opened with a token or a key, which would travel with "
                "it\nWhat you can do: give the dataset to the operation as an argument, as in "
                "f(session['run1']), or load the values before."
            )
        return super().reducer_override(value)


def _holds_secret(value: Any) -> bool:
    if isinstance(value, Source):
        return bool(value.credentials or value.headers)
    library, _, _ = type(value).__module__.partition(".")
    return library == "obstore" and type(value).__name__ in ("S3Store", "HTTPStore")


def unpack(payload: bytes) -> Functions:
    """The functions in a payload. This runs code of whoever packed it: for workers only."""
    found = cloudpickle.loads(payload)
    if not isinstance(found, Functions):
        raise TypeError(f"the code is a {type(found).__name__}, not functions of an operation")
    return found


@contextmanager
def _by_value() -> Iterator[None]:
    """Have modules pickled by value that are neither installed nor part of Python."""
    with _registering:
        # Those that the user registered already are not ours to take off again.
        before = cloudpickle.list_registry_pickle_by_value()
        # A copy, made in one step: a list of items lets the garbage collector in between, and what
        # it ends may import.
        ours = [
            module
            for name, module in sys.modules.copy().items()
            if isinstance(module, ModuleType)
            and module.__name__ == name
            and name not in before
            and not is_installed(name)
        ]
        for module in ours:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in ours:
                cloudpickle.unregister_pickle_by_value(module)


class CodeStore:
    """Payloads by digest in a directory; the first one of a digest stays.

    Parameters
    ----------
    directory
        Made if it does not exist.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def put(self, digest: str, payload: bytes) -> None:
        """Keep a payload, unless there is one of this digest."""
        file = self._file(digest)
        if file.exists():
            return
        written = self.directory / f".{digest}.{uuid.uuid4().hex}"
        try:
            with written.open("wb") as opened:
                opened.write(payload)
                opened.flush()
                os.fsync(opened.fileno())
            # Somebody may have been faster; theirs stays.
            with suppress(FileExistsError):
                os.link(written, file)
        finally:
            written.unlink(missing_ok=True)

    def get(self, digest: str) -> bytes:
        """The payload of a digest.

        Raises
        ------
        KeyError
            If it was never handed over.
        """
        try:
            return self._file(digest).read_bytes()
        except FileNotFoundError:
            raise KeyError(digest) from None

    def has(self, digests: Sequence[str]) -> list[str]:
        """Those of ``digests`` that are here."""
        return [digest for digest in digests if self._file(digest).exists()]

    def _file(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest!r} is not a digest")
        return self.directory / digest
