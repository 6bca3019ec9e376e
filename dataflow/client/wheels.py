"""Wheels of what is installed here: the same versions for a site that has none, or no internet."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from dataflow.errors import ConfigError

OURS = "jupyter-dataflow"

#: Files of an installation that an installer writes anew.
_NOT_PACKED = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}


def closure(name: str, extras: Sequence[str] = ()) -> list[str]:
    """Names of a distribution and of all that it needs, as far as they are installed here."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, set[str]] = {}
    waiting = [(name, frozenset(extras))]
    while waiting:
        wanted, chosen = waiting.pop()
        key = canonicalize_name(wanted)
        if key in found and chosen <= found[key]:
            continue
        try:
            needs = distribution(wanted).requires or []
        except PackageNotFoundError:
            continue
        known = found.setdefault(key, set())
        known |= chosen
        for line in needs:
            need = Requirement(line)
            markers = [{"extra": extra} for extra in ("", *known)]
            if need.marker is None or any(need.marker.evaluate(extra) for extra in markers):
                waiting.append((need.name, frozenset(need.extras)))
    return sorted(found)


def make_wheel(name: str, folder: Path) -> Path:
    """A wheel of an installed distribution, in ``folder``; one that is there is not made again.

    Our own is made of the package that runs, also where that is a working copy.

    Raises
    ------
    ConfigError
        If it was not installed in a way that tells its files.
    """
    found = distribution(name)
    path = folder / _file_name(found)
    if path.exists():
        return path
    draft = path.with_suffix(f".{os.getpid()}")
    lines = []
    with ZipFile(draft, "w", ZIP_DEFLATED, compresslevel=1) as packed:
        inside = f"{_stem(found)}.dist-info"
        for place, body in _files(found, inside):
            packed.writestr(place, body)
            digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
            lines.append(f"{place},sha256={digest},{len(body)}\n")
        record = f"{inside}/RECORD"
        packed.writestr(record, "".join(lines) + f"{record},,\n")
    draft.replace(path)
    return path


def _stem(found: Distribution) -> str:
    return f"{found.metadata['Name'].replace('-', '_').replace('.', '_')}-{found.version}"


def _file_name(found: Distribution) -> str:
    """With the tags by which an installer sees whether it fits its machine."""
    lines = (found.read_text("WHEEL") or "Tag: py3-none-any").splitlines()
    tags = [line.partition(":")[2].strip().split("-") for line in lines if line.startswith("Tag:")]
    parts = (".".join(dict.fromkeys(tag[i] for tag in tags)) for i in range(3))
    return f"{_stem(found)}-{'-'.join(parts)}.whl"


def _files(found: Distribution, inside: str) -> Iterator[tuple[str, bytes]]:
    if found.metadata["Name"] == OURS:
        spec = find_spec("dataflow")
        assert spec is not None
        assert spec.origin is not None
        package = Path(spec.origin).parent
        for file in sorted(package.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                yield f"dataflow/{file.relative_to(package).as_posix()}", file.read_bytes()
        for name in ("METADATA", "WHEEL", "entry_points.txt"):
            yield f"{inside}/{name}", (found.read_text(name) or "").encode()
        return
    if not found.files:
        raise ConfigError(f"{found.metadata['Name']} does not say of which files it is made")
    for entry in found.files:
        body = Path(str(entry.locate()))
        place = entry.as_posix()
        if entry.name in _NOT_PACKED or entry.suffix == ".pyc" or not body.is_file():
            continue
        content = body.read_bytes()
        if place.startswith(".."):
            if "/bin/" not in place or content.startswith(b"#!"):
                continue  # a script that the installer writes anew
            place = f"{_stem(found)}.data/scripts/{entry.name}"
        elif ".dist-info/" in place:
            place = f"{inside}/{place.partition('.dist-info/')[2]}"
        yield place, content
