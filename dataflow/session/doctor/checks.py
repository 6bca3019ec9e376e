"""Checks: what was looked at, and how it was found; and how looking stays bounded."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeVar

from dataflow.errors import DataflowError

T = TypeVar("T")

Status = Literal["ok", "warning", "failed"]

#: What an error of ours puts before its advice.
_ADVICE = "\nWhat you can do: "


class Finding(NamedTuple):
    """How something was found.

    ``said`` is for people; ``advice`` says what to do unless it is ok.
    """

    status: Status
    said: str
    advice: str = ""


def ok(said: str) -> Finding:
    """Nothing to be done."""
    return Finding("ok", said)


def warning(said: str, advice: str) -> Finding:
    """It works, but somebody should look at it."""
    return Finding("warning", said, advice)


def failed(said: str, advice: str) -> Finding:
    """It does not work."""
    return Finding("failed", said, advice)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    area
        Of what: the site file, a site, a store, the workers.
    what
        The thing, in a word or two.
    status, said, advice
        As in :class:`Finding`.
    seconds
        How long it took.
    """

    area: str
    what: str
    status: Status
    said: str
    advice: str = ""
    seconds: float = 0.0


class Notes:
    """The checks of one area, as they are made.

    Parameters
    ----------
    area
        Its name.
    """

    def __init__(self, area: str) -> None:
        self.area = area
        self.checks: list[Check] = []
        self._what, self._since = area, time.monotonic()

    def begin(self, what: str) -> None:
        """From now on this is looked at; what breaks before :meth:`end` is its failure."""
        self._what, self._since = what, time.monotonic()

    def end(self, finding: Finding) -> bool:
        """Write down how it was found; false if it has failed, so that nothing can follow."""
        took = time.monotonic() - self._since
        self.checks.append(
            Check(area=self.area, what=self._what, seconds=round(took, 3), **finding._asdict())
        )
        return finding.status != "failed"

    def add(self, what: str, finding: Finding) -> bool:
        """Write down what took no time to find out."""
        self.begin(what)
        return self.end(finding)


async def bounded(
    area: str, look: Callable[[Notes], Awaitable[None]], *, seconds: float
) -> list[Check]:
    """Look for so many seconds at most; whatever is raised meanwhile is a failed check."""
    notes = Notes(area)
    try:
        async with asyncio.timeout(seconds):
            await look(notes)
    except TimeoutError:
        advice = "try again; if it stays so, something on the way swallows what is sent"
        notes.end(failed(f"no answer within {seconds:g} s", advice))
    except DataflowError as error:
        notes.end(from_error(error))
    except Exception as error:  # a doctor who faints is no use
        said = f"the check itself failed: {type(error).__name__}: {error}"
        notes.end(failed(said, "this is a mistake in dataflow; please report it with this line"))
    return notes.checks


def from_error(error: DataflowError, advice: str = "") -> Finding:
    """A failure in the words of the error, its own advice apart."""
    said, _, own = str(error).partition(_ADVICE)
    return failed(said, own or advice or "see what it says")


async def in_thread(work: Callable[[], T]) -> T:
    """Run what blocks; a call that never ends does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def tell(answer: Callable[[Any], None], value: Any) -> None:
        if not future.done():
            answer(value)

    def run() -> None:
        answer: Callable[[Any], None] = future.set_result
        value: Any
        try:
            value = work()
        except Exception as error:
            answer, value = future.set_exception, error
        with suppress(RuntimeError):  # the loop has ended meanwhile: nobody wants to know
            loop.call_soon_threadsafe(tell, answer, value)

    threading.Thread(target=run, name="dataflow-doctor", daemon=True).start()
    return await future


def without(checks: Iterable[Check], secrets: Iterable[str]) -> tuple[Check, ...]:
    """The same checks, with nothing in their text that is one of these."""
    hidden = sorted({secret for secret in secrets if secret}, key=len, reverse=True)

    def clean(text: str) -> str:
        for secret in hidden:
            text = text.replace(secret, "***")
        return text

    return tuple(
        replace(check, said=clean(check.said), advice=clean(check.advice)) for check in checks
    )


def document(checks: Iterable[Check]) -> Mapping[str, Any]:
    """All checks as one document, and whether nothing has failed."""
    listed = list(checks)
    return {
        "ok": all(check.status != "failed" for check in listed),
        "checks": [
            {name: getattr(check, name) for name in Check.__dataclass_fields__} for check in listed
        ],
    }
