"""Examine: ask everybody at once, and give the checks in an order that can be read."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from dataflow.client.pinned import shown
from dataflow.config import Federation, read_settings, read_site_file, state_directory
from dataflow.config.records import PeerAddress
from dataflow.errors import ConfigError, DataflowError
from dataflow.session.connecting import LOCAL, this_machine
from dataflow.session.doctor.checks import (
    Check,
    Finding,
    Notes,
    bounded,
    failed,
    from_error,
    in_thread,
    ok,
    warning,
    without,
)
from dataflow.session.doctor.own import OWN_SECONDS, examine_own
from dataflow.session.doctor.sites import SITE_SECONDS, SSH_SECONDS, examine_site
from dataflow.session.doctor.stores import STORE_SECONDS, examine_store
from dataflow.session.doctor.workers import examine_workers
from dataflow.session.loop import LoopThread
from dataflow.storage import credentials as secrets
from dataflow.stores import Store

#: Seconds for the files.
_FILE_SECONDS = 5.0

#: Fields of a credential that an agent, and an S3 service, are shown.
_TOKEN, _KEYS = ("token",), ("access_key_id", "secret_access_key")


def examine(path: str | os.PathLike[str] | None = None) -> tuple[Check, ...]:
    """Check a site file, and everything that it names, from where we are.

    Nothing is raised, and each check is bounded in seconds. Nothing is changed but for a small
    object that is written to each results store, and to the state directory, and deleted again.

    Parameters
    ----------
    path
        The site file; by default as :func:`dataflow.connect` finds one.
    """
    loop = LoopThread()
    try:
        return loop.run(_examine(path))
    finally:
        loop.close()


async def _examine(path: str | os.PathLike[str] | None) -> tuple[Check, ...]:
    found: list[Federation] = []

    async def read(notes: Notes) -> None:
        notes.begin("site file")
        try:
            federation = await in_thread(lambda: _federation(path))
        except DataflowError as error:
            notes.end(from_error(error, "mend that line; docs/using.md shows files that work"))
            return
        if not notes.end(_contents(federation)):
            return
        found.append(federation)
        _credentials(federation, notes)

    checks = await bounded("site file", read, seconds=_FILE_SECONDS)
    if not found:
        return tuple(checks)
    (federation,) = found
    mine = federation.me
    parts = await asyncio.gather(
        bounded(
            f"site {mine} (own)" if mine else "this machine",
            lambda notes: examine_own(federation, notes),
            seconds=OWN_SECONDS,
        ),
        examine_workers(federation),
        *(_store(store, mine) for store in federation.stores),
        *(_site(other, shown(federation)) for other in federation.peers),
    )
    return without((*checks, *(check for part in parts for check in part)), _secrets(federation))


def _store(store: Store, mine: str | None) -> asyncio.Future[list[Check]]:
    name = store.name if store.site == mine else f"{store.site}/{store.name}"
    return asyncio.ensure_future(
        bounded(f"store {name}", lambda notes: examine_store(store, notes), seconds=STORE_SECONDS)
    )


def _site(other: PeerAddress, pair: tuple[Path, Path] | None) -> asyncio.Future[list[Check]]:
    return asyncio.ensure_future(
        bounded(
            f"site {other.site or other.address}",
            lambda notes: examine_site(other, notes, pair),
            seconds=SITE_SECONDS if other.ssh is None else 2 * SSH_SECONDS,
        )
    )


def _federation(path: str | os.PathLike[str] | None) -> Federation:
    chosen = path if path is not None else read_settings().site_file
    return this_machine(state_directory() / LOCAL) if chosen is None else read_site_file(chosen)


def _contents(federation: Federation) -> Finding:
    if not federation.file:
        return ok("none: this machine is the only site")
    others = len(federation.peers) + sum(site.stores_only for site in federation.sites)
    if not federation.sites and not others:
        advice = "say site:, sites: or peers: in it"
        return failed(f"{federation.file} names no site", advice)
    own = f"own site {federation.me}" if federation.me else "no site of its own"
    return ok(f"{federation.file}: {own}, {others} other{'' if others == 1 else 's'}")


def _credentials(federation: Federation, notes: Notes) -> None:
    """Check what the file names, and the file that holds them."""
    file = secrets.credentials_file()
    if file.exists():
        notes.begin("credentials file")
        others = file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        advice = f"chmod 600 {file}; if others have seen it, ask for new tokens"
        notes.end(failed(f"others can read {file}", advice) if others else ok(f"{file} is private"))
    for name, fields in _wanted(federation).items():
        notes.begin(f"credential {name}")
        try:
            found = secrets.resolve(name)
        except ConfigError as error:
            # Its path is the name, which stands there already.
            notes.end(from_error(ConfigError(error.message, error.file), f"mend {file}"))
            continue
        missing = [field for field in fields if field not in found]
        if missing:
            notes.end(warning(f"it has no field {' or '.join(missing)}", "add it where it stands"))
        else:
            notes.end(ok(f"is there, with {', '.join(sorted(found))}"))


def _wanted(federation: Federation) -> dict[str, tuple[str, ...]]:
    """Credentials by name, and the fields that they should have."""
    named: dict[str | None, tuple[str, ...]] = {
        other.credentials: _TOKEN for other in federation.peers if other.ssh is None
    }
    named |= {store.credentials: _fields(store) for store in federation.stores}
    return {name: fields for name, fields in named.items() if name is not None}


def _fields(store: Store) -> tuple[str, ...]:
    return _KEYS if store.url.startswith("s3:") else ()


def _secrets(federation: Federation) -> Iterable[str]:
    """What must not be printed, whoever quotes it in an error."""
    for name in _wanted(federation):
        try:
            found = secrets.resolve(name)
        except ConfigError:
            continue
        yield from (value for field, value in found.items() if field != "access_key_id")
    for other in federation.peers:
        try:
            yield secrets.for_address(other.address.rstrip("/")).get("token", "")
        except ConfigError:
            continue
