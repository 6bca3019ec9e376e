"""Failures: whose fault an error is, and what of its traceback helps who wrote the function."""

from __future__ import annotations

import concurrent.futures
import errno
import site
import sysconfig
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from dataflow.errors import (
    CorruptResult,
    DataflowError,
    OperationFailed,
    StorageError,
    UnreadableDataset,
    WorkerLost,
    to_document,
)
from dataflow.execution.events import ErrorDocument, Fault

#: Longest text of an error that is kept: some quote the whole array that they did not like.
LONGEST_TEXT = 4_000
FRAMES = 20

_PACKAGE = str(Path(__file__).parents[1])
_STORAGE = str(Path(_PACKAGE) / "storage")
#: Modules that complain about the value itself, not about the store it is written to.
_ABOUT_VALUES = ("arrays.py", "results.py", "tables.py")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a step or an order failed, ready to be reported."""

    error: ErrorDocument
    fault: Fault


class Broken(Exception):
    """Ends an order with a failure."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.error, failure.fault)


def broken(error: DataflowError, fault: Fault) -> Broken:
    """What to raise to end an order with this error."""
    return Broken(Failure(to_document(error), fault))


def failure_of(
    error: BaseException, *, label: str, site: str, inputs: Iterable[str] = ()
) -> Failure:
    """The failure that an error in a worker is.

    Parameters
    ----------
    inputs
        URLs that the step reads.
    """
    found: tuple[DataflowError, Fault]
    if is_loss(error):
        found = (
            WorkerLost(label, site, f"{type(error).__name__} while it waited for blocks"),
            "worker",
        )
    elif isinstance(error, UnreadableDataset | CorruptResult):
        ours = isinstance(error, CorruptResult) and not _about(error, inputs)
        found = error, "site" if ours else "input"
    elif isinstance(error, OSError) and (_in_storage(error) or _about(error, inputs)):
        found = _of_store(error, label, site, list(inputs))
    else:
        found = failed_operation(error, label, site), "user"
    return Failure(to_document(found[0]), found[1])


def failed_operation(error: BaseException, label: str, site: str) -> OperationFailed:
    """An error of the operation's own code, as plain text."""
    return OperationFailed(label, site, text_of(error), user_traceback(error))


def text_of(error: BaseException) -> str:
    """Type and text of an error, whatever its ``__str__`` does."""
    try:
        text = str(error)
    except Exception:
        text = "(it has no text)"
    name = type(error).__name__
    return (f"{name}: {text}" if text else name)[:LONGEST_TEXT]


def user_traceback(error: BaseException) -> str:
    """The frames of an error that are neither ours, nor Dask's, nor of an installed package."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not _is_installed(frame.filename)]
    kept = (theirs or frames[-3:])[-FRAMES:]
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(kept)]
    return "".join(lines)[-4 * LONGEST_TEXT :] + text_of(error)


def is_loss(error: BaseException) -> bool:
    """Whether a worker, or the way to it, was lost."""
    from distributed import KilledWorker
    from distributed.comm.core import CommClosedError

    return isinstance(error, KilledWorker | CommClosedError | concurrent.futures.CancelledError)


def _of_store(
    error: OSError, label: str, site: str, inputs: list[str]
) -> tuple[DataflowError, Fault]:
    if isinstance(error, StorageError):
        last = _files(error)[-1:]
        about_value = bool(last) and Path(last[0]).name in _ABOUT_VALUES
        if about_value and not isinstance(error.__cause__, OSError):
            return failed_operation(error, label, site), "user"
        return error, "site"
    if isinstance(error, FileNotFoundError) or error.errno in (None, errno.ENOENT):
        return UnreadableDataset(inputs[0] if inputs else "", text_of(error)), "input"
    return StorageError(text_of(error)), "site"


def _about(error: BaseException, urls: Iterable[str]) -> bool:
    text = text_of(error)
    return any(url.removeprefix("file://") in text for url in urls)


def _in_storage(error: BaseException) -> bool:
    return any(file.startswith(_STORAGE) for file in _files(error))


def _files(error: BaseException) -> list[str]:
    """Source files of the frames that an error came through, outermost first."""
    found = []
    step: TracebackType | None = error.__traceback__
    while step is not None:
        frame: FrameType = step.tb_frame
        found.append(frame.f_code.co_filename)
        step = step.tb_next
    return found


def _installed_roots() -> tuple[str, ...]:
    paths: list[Any] = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
    paths += site.getsitepackages()
    return tuple({str(path) for path in paths if path})


_ROOTS = (_PACKAGE, *_installed_roots())


def _is_installed(file: str) -> bool:
    return file.startswith((*_ROOTS, "<frozen")) or "site-packages" in file
