"""Every error that dataflow raises, sorted by what the reader can do about it.

::

    DataflowError
    ├── ConfigError            a site file or a setting is wrong: mend the file
    ├── CatalogError
    │   ├── UnknownDataset     no such id, name or key: look with session.datasets()
    │   ├── AmbiguousDataset   a name that several sites use: say which site
    │   └── UnreadableDataset  the bytes at a URL are not what they claim to be
    ├── GraphError             the graph itself cannot be right: mend the notebook
    │   ├── ShapeMismatch      inputs of an elementwise operation differ in shape
    │   └── NotLinear          a declared property was disproved on a sample
    ├── PolicyError            somebody who may say no said no
    │   ├── NotGranted         an owner's agreement does not grant it: ask for less, or ask the owner
    │   ├── OutOfOrder         a negotiation does not allow this move now
    │   └── UnknownNegotiation  no such negotiation at the site
    ├── PlacementError
    │   ├── ScopeError         the user's word about where is wrong
    │   └── NoAllowedSite      nobody is left after agreements, scope and reach
    ├── StorageError
    │   ├── UnsafeStore        the store ignores conditional writes: no results there
    │   ├── CorruptResult      bytes and manifest disagree
    │   └── TransferFailed     a copy did not arrive
    ├── SiteError
    │   ├── SiteUnreachable    no answer: try again, or plan without it
    │   └── SiteRefused        an answer, and it was no: token, trust or version
    └── JobError
        ├── OperationFailed    the operation's own code raised: never retried
        │   └── WalltimeExceeded   a program ran longer than it may: give it more
        ├── WorkerLost         a worker died under an operation more often than allowed
        ├── JobCancelled       somebody asked for it
        ├── JobTimedOut        the job's own time limit
        ├── NotReproduced      a second run came to another result
        └── UnknownJob         no such id at any site that answered

Catch the root, read the text, or look at ``kind`` from a program::

    try:
        job.result()
    except DataflowError as error:
        print(error.kind, error)

Guarantees: every error survives pickling and the way through HTTP (:func:`to_document`), because
each constructor takes plain values and hands just those to its base class. ``kind`` is stable:
the list only grows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class DataflowError(Exception):
    """Root of all errors raised on purpose by this package."""

    kind: ClassVar[str] = "dataflow"

    def __init__(self, *args: Any) -> None:
        Exception.__init__(self, *args)  # that of OSError would keep the first two only

    def __str__(self) -> str:
        return " ".join(str(arg) for arg in self.args)


class ConfigError(DataflowError, ValueError):
    """A site file or a setting is wrong.

    Parameters
    ----------
    message
        What is wrong and what would be right.
    file, path, line
        Where: file name, dotted path inside it, line number from 1 (0 if unknown).
    """

    kind = "config"

    def __init__(self, message: str, file: str = "", path: str = "", line: int = 0) -> None:
        self.message, self.file, self.path, self.line = message, file, path, line
        super().__init__(message, file, path, line)

    def __str__(self) -> str:
        where = self.file + (f":{self.line}" if self.line else "")
        return ": ".join(part for part in (where, self.path, self.message) if part)


class CatalogError(DataflowError):
    """A dataset could not be found, told apart, or read."""

    kind = "catalog"


class UnknownDataset(CatalogError, KeyError):
    """Nothing in the federation has this id, name or key."""

    kind = "unknown-dataset"

    def __init__(self, name: str, similar: Sequence[str] = ()) -> None:
        self.name, self.similar = name, list(similar)
        super().__init__(name, self.similar)

    def __str__(self) -> str:
        hint = f"; did you mean {', '.join(map(repr, self.similar))}?" if self.similar else ""
        return (
            f"unknown dataset {self.name!r}{hint}\n"
            "What you can do: session.datasets() lists all that you may see, session.register(…) adds."
        )


class AmbiguousDataset(CatalogError, KeyError):
    """One name, several different datasets."""

    kind = "ambiguous-dataset"

    def __init__(self, name: str, choices: Sequence[str]) -> None:
        self.name, self.choices = name, list(choices)
        super().__init__(name, self.choices)

    def __str__(self) -> str:
        return (
            f"{self.name!r} names {len(self.choices)} different datasets\n"
            f"What you can do: say which, as in session[{self.choices[0]!r}]; "
            f"there are {', '.join(self.choices)}."
        )


class UnreadableDataset(CatalogError, ValueError):
    """What lies at the URL cannot be read as a dataset."""

    kind = "unreadable-dataset"

    def __init__(self, url: str, reason: str) -> None:
        self.url, self.reason = url, reason
        super().__init__(url, reason)

    def __str__(self) -> str:
        return f"cannot read {self.url} as a dataset: {self.reason}"


class GraphError(DataflowError, ValueError):
    """The graph of operations cannot be right as it was built."""

    kind = "graph"


class ShapeMismatch(GraphError):
    """Inputs that must have one shape have several."""

    kind = "shape-mismatch"

    def __init__(self, operation: str, shapes: Mapping[str, Sequence[int]]) -> None:
        self.operation = operation
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        super().__init__(operation, self.shapes)

    def __str__(self) -> str:
        listed = ", ".join(f"{name} has {shape}" for name, shape in self.shapes.items())
        return (
            f"elementwise operation {self.operation!r} needs inputs of one shape: {listed}\n"
            "What you can do: select or resample first, or declare the operation kind='opaque'."
        )


class NotLinear(GraphError):
    """A declared kind was disproved on a sample of the data."""

    kind = "not-linear"

    def __init__(self, operation: str, declared: str, difference: float, sample: str) -> None:
        self.operation, self.declared = operation, declared
        self.difference, self.sample = difference, sample
        super().__init__(operation, declared, difference, sample)

    def __str__(self) -> str:
        return (
            f"operation {self.operation!r} is declared {self.declared!r} but is not: on {self.sample} "
            f"the result of the whole and the combined results of the parts differ by "
            f"{self.difference:.3g}\n"
            "What you can do: declare kind='opaque'; it then runs at one place on all its inputs."
        )


class PolicyError(DataflowError, PermissionError):
    """Somebody who may say no said no."""

    kind = "policy"


class NotGranted(PolicyError):
    """Owners do not grant what was asked; each with the clause of the agreement that says so.

    Parameters
    ----------
    refusals
        Site (or what else refuses) → why.
    """

    kind = "not-granted"

    def __init__(self, refusals: Mapping[str, str]) -> None:
        self.refusals = dict(refusals)
        super().__init__(self.refusals)

    def __str__(self) -> str:
        why = "\n".join(f"  - {who}: {reason}" for who, reason in self.refusals.items())
        return (
            f"not granted:\n{why}\n"
            "What you can do: ask for what is granted (session.agreements() lists it), or ask the "
            "owner for more."
        )


class OutOfOrder(PolicyError):
    """A negotiation does not allow this move now, or not to this side."""

    kind = "out-of-order"

    def __init__(
        self, negotiation: str, state: str, move: str, side: str, possible: Sequence[str] = ()
    ) -> None:
        self.negotiation, self.state, self.move, self.side = negotiation, state, move, side
        self.possible = list(possible)
        super().__init__(negotiation, state, move, side, self.possible)

    def __str__(self) -> str:
        can = f"it can {', '.join(self.possible)}" if self.possible else "it can only wait"
        if self.state in ("finalized", "terminated"):
            can = "it has ended; begin another"
        return (
            f"negotiation {self.negotiation!r} is {self.state}: the {self.side} cannot {self.move}\n"
            f"What you can do: as the {self.side}, {can}."
        )


class UnknownNegotiation(PolicyError, KeyError):
    """A site has no such negotiation."""

    kind = "unknown-negotiation"

    def __init__(self, negotiation: str) -> None:
        self.negotiation = negotiation
        super().__init__(negotiation)

    def __str__(self) -> str:
        return (
            f"unknown negotiation {self.negotiation!r}\n"
            "What you can do: session.negotiations.all() lists yours."
        )


class PlacementError(DataflowError, ValueError):
    """No plan could be made."""

    kind = "placement"


class ScopeError(PlacementError):
    """What the user says about where cannot be read, or not be honoured."""

    kind = "scope"

    def __init__(self, reason: str, text: str = "", position: int = -1) -> None:
        self.reason, self.text, self.position = reason, text, position
        super().__init__(reason, text, position)

    def __str__(self) -> str:
        if self.position < 0 or not self.text:
            return f"scope: {self.reason}"
        first, *more = self.reason.split("\n")
        before = self.text[: self.position]
        line = self.text.splitlines()[before.count("\n")] if self.text.strip() else ""
        column = self.position - (before.rfind("\n") + 1)
        shown = f"scope, at {self.position}: {first}\n  {line}\n  {' ' * column}^"
        return "\n".join([shown, *more])


class NoAllowedSite(PlacementError):
    """No site may run an operation, and why each may not.

    ``changes`` are the fewest things that stand in the way of the request as a whole.
    """

    kind = "no-allowed-site"

    def __init__(
        self, operation: str, refusals: Mapping[str, str], changes: Sequence[str] = ()
    ) -> None:
        self.operation, self.refusals, self.changes = operation, dict(refusals), tuple(changes)
        super().__init__(operation, self.refusals, *([self.changes] if changes else []))

    def __str__(self) -> str:
        why = "\n".join(f"  - {site}: {reason}" for site, reason in self.refusals.items())
        text = f"no site may run {self.operation!r}:\n{why or '  - there are no sites'}"
        if not self.changes:
            return text
        least = "\n".join(f"  - {change}" for change in self.changes)
        return f"{text}\nWhat you can do: the least that would have to be otherwise is\n{least}"


class StorageError(DataflowError, OSError):
    """A store did not do what was asked of it."""

    kind = "storage"


class UnsafeStore(StorageError):
    """The store cannot publish a result in one step."""

    kind = "unsafe-store"

    def __init__(self, store: str, reason: str) -> None:
        self.store, self.reason = store, reason
        super().__init__(store, reason)

    def __str__(self) -> str:
        return (
            f"store {self.store!r} cannot hold results: {self.reason}\n"
            "What you can do: use a store that honours If-None-Match (MinIO, Ceph, AWS, a local "
            "directory), or keep this one for reading only."
        )


class CorruptResult(StorageError):
    """Bytes in the store and the manifest that was committed disagree."""

    kind = "corrupt-result"

    def __init__(self, url: str, reason: str) -> None:
        self.url, self.reason = url, reason
        super().__init__(url, reason)

    def __str__(self) -> str:
        return f"{self.url} is not what was committed: {self.reason}"


class TransferFailed(StorageError):
    """A copy between two sites did not arrive; the source is untouched."""

    kind = "transfer-failed"

    def __init__(self, what: str, source: str, target: str, reason: str) -> None:
        self.what, self.source, self.target, self.reason = what, source, target, reason
        super().__init__(what, source, target, reason)

    def __str__(self) -> str:
        return f"{self.what} did not get from {self.source} to {self.target}: {self.reason}"


class SiteError(DataflowError, ConnectionError):
    """Something between us and a site."""

    kind = "site"


class SiteUnreachable(SiteError):
    """No answer from a site within the time allowed."""

    kind = "site-unreachable"

    def __init__(self, site: str, reason: str) -> None:
        self.site, self.reason = site, reason
        super().__init__(site, reason)

    def __str__(self) -> str:
        return f"site {self.site!r} does not answer: {self.reason}"


class SiteRefused(SiteError):
    """A site answered, and the answer was no."""

    kind = "site-refused"

    def __init__(self, site: str, reason: str) -> None:
        self.site, self.reason = site, reason
        super().__init__(site, reason)

    def __str__(self) -> str:
        return f"site {self.site!r} refuses: {self.reason}"


class JobError(DataflowError, RuntimeError):
    """A job did not end well."""

    kind = "job"


class OperationFailed(JobError):
    """The operation's own code raised an error; it is not retried.

    ``error`` is the type and text of the original, ``traceback`` its text as the worker saw it.
    """

    kind = "operation-failed"

    def __init__(self, operation: str, site: str, error: str, traceback: str = "") -> None:
        self.operation, self.site = operation, site
        self.error, self.traceback = error, traceback
        super().__init__(operation, site, error, traceback)

    def __str__(self) -> str:
        tail = f"\n{self.traceback.rstrip()}" if self.traceback else ""
        return f"operation {self.operation!r} failed at {self.site!r}: {self.error}{tail}"


class WalltimeExceeded(OperationFailed):
    """A program was ended because it ran longer than it may; it is not retried.

    ``walltime`` is the limit in seconds, ``error`` the word of whoever ended it, ``traceback`` the
    end of its stderr.
    """

    kind = "walltime-exceeded"

    def __init__(
        self, operation: str, site: str, walltime: float, error: str, traceback: str = ""
    ) -> None:
        OperationFailed.__init__(self, operation, site, error, traceback)
        self.walltime = walltime
        self.args = (operation, site, walltime, error, traceback)

    def __str__(self) -> str:
        tail = f"\n{self.traceback.rstrip()}" if self.traceback else ""
        return (
            f"operation {self.operation!r} was ended at {self.site!r} by its time limit of "
            f"{self.walltime:g} s: {self.error}{tail}\n"
            "What you can do: give it a longer walltime, as in flow.shell(…, walltime='2 h')."
        )


class WorkerLost(JobError):
    """A worker died while it ran an operation, more often than retries allow."""

    kind = "worker-lost"

    def __init__(self, operation: str, site: str, reason: str) -> None:
        self.operation, self.site, self.reason = operation, site, reason
        super().__init__(operation, site, reason)

    def __str__(self) -> str:
        return f"a worker at {self.site!r} was lost while it ran {self.operation!r}: {self.reason}"


class JobCancelled(JobError):
    """The job was cancelled on request."""

    kind = "job-cancelled"

    def __init__(self, job: str, by: str = "") -> None:
        self.job, self.by = job, by
        super().__init__(job, by)

    def __str__(self) -> str:
        return f"job {self.job} was cancelled" + (f" by {self.by}" if self.by else "")


class JobTimedOut(JobError):
    """The job's own time limit ended it."""

    kind = "job-timed-out"

    def __init__(self, job: str, limit: float) -> None:
        self.job, self.limit = job, limit
        super().__init__(job, limit)

    def __str__(self) -> str:
        return f"job {self.job} was ended by its time limit of {self.limit:g} s"


class NotReproduced(JobError):
    """A second run, at another site, came to another result, so that this one is not given out.

    ``differs`` are the paths of the files that are not the same.
    """

    kind = "not-reproduced"

    def __init__(self, result: str, site: str, second: str, differs: Sequence[str]) -> None:
        self.result, self.site, self.second, self.differs = result, site, second, tuple(differs)
        super().__init__(result, site, second, list(differs))

    def __str__(self) -> str:
        some = ", ".join(self.differs[:5]) + (" …" if len(self.differs) > 5 else "")
        return (
            f"{self.result!r} of {self.site!r} was not reproduced: the run at {self.second!r} "
            f"differs in {some}\n"
            "What you can do: look for what is not the same each time in the operations (random "
            "numbers without a seed, time, order of threads), and run it again."
        )


class UnknownJob(JobError, KeyError):
    """No site that answered knows this job."""

    kind = "unknown-job"

    def __init__(self, job: str, asked: Sequence[str] = ()) -> None:
        self.job, self.asked = job, list(asked)
        super().__init__(job, self.asked)

    def __str__(self) -> str:
        asked = f" (asked: {', '.join(self.asked)})" if self.asked else ""
        return f"unknown job {self.job!r}{asked}"


def _subclasses(root: type[DataflowError]) -> dict[str, type[DataflowError]]:
    found = {root.kind: root}
    for child in root.__subclasses__():
        found.update(_subclasses(child))
    return found


def to_document(error: BaseException) -> dict[str, Any]:
    """A JSON-ready record of an error: its kind and constructor arguments.

    An error that is not ours keeps its type name and text only; nothing is pickled.
    """
    if isinstance(error, DataflowError):
        return {"kind": error.kind, "args": list(error.args)}
    return {"kind": DataflowError.kind, "args": [f"{type(error).__name__}: {error}"]}


def from_document(document: Mapping[str, Any]) -> DataflowError:
    """The error that :func:`to_document` described.

    An unknown kind, from a newer site, becomes a plain :class:`DataflowError` with the same text.
    """
    args = list(document.get("args", ()))
    cls = _subclasses(DataflowError).get(str(document.get("kind")))
    if cls is None:
        return DataflowError(f"{document.get('kind')}: {' '.join(map(str, args))}")
    try:
        error = cls(*args)
        str(error)
        return error
    except Exception:  # what a site says of another version, or says wrongly
        return DataflowError(f"{document.get('kind')}: {' '.join(map(str, args))}")
