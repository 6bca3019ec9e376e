"""The directory of a run: what a program finds there, and what it leaves there.

::

    <directory>/           where the command runs and writes its outputs
        .flow/command      what /bin/sh runs
        .flow/inputs/      what had to be fetched from a store that is no directory
        .flow/stdout, .flow/stderr
        .flow/staged.json  the record of the run, written last: without it nothing was begun
"""

from __future__ import annotations

import shlex
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import xxhash

from dataflow.backends.programs import OURS
from dataflow.errors import OperationFailed
from dataflow.execution.inputs import Lying
from dataflow.execution.programs import STREAM_NBYTES, ProgramFile, Relation
from dataflow.graph.keys import decode
from dataflow.graph.operation import Step

_PIECE = 2**22

#: Bytes of stderr that an error quotes.
QUOTED_NBYTES = 4_000


@dataclass(frozen=True, slots=True)
class Staged:
    """A run that is ready: where, what it is to write, and what it was given."""

    directory: Path
    outputs: tuple[Path, ...]
    files: tuple[ProgramFile, ...]


def stage(step: Step, inputs: Sequence[tuple[Lying, Path]], directory: Path) -> Staged:
    """Write down what a program runs, and what it is given.

    Parameters
    ----------
    inputs
        What lies in stores, and where it is seen from here, in the order of the step.
    directory
        Fresh: where it runs.
    """
    values = {name: shlex.quote(str(decode(value))) for name, value in step.parameters.items()}
    paths = {slot: path for slot, (_, path) in zip(step.slots, inputs, strict=True)}
    values |= {slot: shlex.quote(str(path)) for slot, path in paths.items()}
    command, outputs = filled(step.operation.command, values, directory)
    ours = directory / OURS
    ours.mkdir(mode=0o700, parents=True, exist_ok=True)
    script = f"{command}\n".encode()
    (ours / "command").write_bytes(script)
    files = [
        ProgramFile(
            relation="script",
            name=f"{OURS}/command",
            nbytes=len(script),
            checksum=xxhash.xxh3_128_hexdigest(script),
        )
    ]
    files += [
        input_file(slot, source, path)
        for slot, (source, path) in zip(step.slots, inputs, strict=True)
    ]
    return Staged(directory, tuple(outputs), tuple(files))


def input_file(slot: str, source: Lying, path: Path) -> ProgramFile:
    """The record of an input; what was committed need not be read for its checksum."""
    known = source.replica.fingerprint
    if path.is_dir() and known.startswith("manifest:"):
        nbytes, checksum = source.replica.nbytes or 0, known.removeprefix("manifest:")
    else:
        nbytes, checksum = checked(path)
    return ProgramFile(
        relation="input", slot=slot, name=str(path), nbytes=nbytes, checksum=checksum
    )


def streams(directory: Path) -> tuple[ProgramFile, ...]:
    """Both streams of a run, as far as they are there."""
    found = []
    relations: tuple[Relation, ...] = ("stdout", "stderr")
    for relation in relations:
        path = directory / OURS / relation
        if path.is_file():
            nbytes, checksum = checked(path)
            found.append(
                ProgramFile(
                    relation=relation,
                    name=relation,
                    nbytes=nbytes,
                    checksum=checksum,
                    text=end_of(path, STREAM_NBYTES),
                )
            )
    return tuple(found)


def written(outputs: Sequence[Path]) -> tuple[ProgramFile, ...]:
    """The records of outputs that are there."""
    found = []
    for path in outputs:
        if path.exists():
            nbytes, checksum = checked(path)
            found.append(
                ProgramFile(relation="output", name=path.name, nbytes=nbytes, checksum=checksum)
            )
    return tuple(found)


def must_be_written(step: Step, outputs: Sequence[Path], site: str) -> None:
    """Refuse what ended well without writing what it promised.

    Raises
    ------
    OperationFailed
    """
    for path in outputs:
        if not path.exists():
            raise OperationFailed(
                step.label, site, f"the command ended well but wrote no {{output:{path.name}}}"
            )


def checked(path: Path) -> tuple[int, str]:
    """Bytes and XXH3-128 of a file; of a directory the sum, and one over names and checksums."""
    if not path.is_dir():
        digest, nbytes = xxhash.xxh3_128(), 0
        with path.open("rb") as opened:
            while piece := opened.read(_PIECE):
                digest.update(piece)
                nbytes += len(piece)
        return nbytes, digest.hexdigest()
    digest, nbytes = xxhash.xxh3_128(), 0
    for file in sorted(found for found in path.rglob("*") if found.is_file()):
        size, one = checked(file)
        digest.update(f"{file.relative_to(path)}\0{size}\0{one}\n".encode())
        nbytes += size
    return nbytes, digest.hexdigest()


def end_of(path: Path, nbytes: int) -> str:
    """The last bytes of a file as text; empty if it is not there."""
    try:
        with path.open("rb") as opened:
            size = opened.seek(0, 2)
            opened.seek(max(0, size - nbytes))
            return opened.read(nbytes).decode(errors="replace")
    except OSError:
        return ""


def filled(command: str, values: Mapping[str, str], directory: Path) -> tuple[str, list[Path]]:
    """The command with its placeholders replaced, and the paths it is to write."""
    pieces: list[str] = []
    outputs: dict[Path, None] = {}
    for text, name, form, _ in string.Formatter().parse(command):
        pieces.append(text)
        if name is None:
            continue
        if name != "output":
            pieces.append(values[name])
            continue
        path = directory / Path(form or "output").name
        outputs[path] = None
        pieces.append(shlex.quote(str(path)))
    return "".join(pieces), list(outputs)
