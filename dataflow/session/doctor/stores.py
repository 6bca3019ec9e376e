"""Stores: whether our own can be reached, listed and written to, as results want it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dataflow.client.look import NoAnswer, looking
from dataflow.errors import ConfigError, StorageError, UnsafeStore
from dataflow.session.doctor import judge
from dataflow.session.doctor.checks import Finding, Notes, failed, from_error, in_thread, ok
from dataflow.session.doctor.sites import ANSWER_SECONDS, resolves
from dataflow.storage import credentials as secrets
from dataflow.storage.open import local_path
from dataflow.stores import in_database

if TYPE_CHECKING:
    from dataflow.storage.open import Options
    from dataflow.stores import Store

#: Seconds for all about one store.
STORE_SECONDS = 20.0

#: Instead of the store's own patience, which is minutes.
_IMPATIENT = {"timeout": "4s", "retries": "1"}


async def examine_store(store: Store, notes: Notes) -> None:
    """All checks of one store of our own; one that holds results is written to."""
    path = local_path(store.url)
    if path is not None:
        if not await _directory(store, path, notes):
            return
    elif not (store.url.startswith("sftp:") or in_database(store.url)) and not await _service(
        store, notes
    ):
        return
    notes.begin("credential")
    try:
        secret = secrets.resolve(store.credentials)
    except ConfigError as error:
        notes.end(from_error(error, "mend the credentials file"))
        return
    options: Options = store.options
    if in_database(store.url):
        from dataflow.storage import databases  # and with it Arrow, which not everybody has

        notes.begin("tables")
        try:
            found = await in_thread(lambda: databases.tables(store.url, secret, dict(options)))
        except StorageError as error:
            advice = "mend url:, the credential or options:; the account needs to read, no more"
            notes.end(failed(str(error), advice))
            return
        notes.end(ok(f"{len(found)} tables and views may be seen"))
        return
    if path is None:
        impatient = _IMPATIENT if store.url.startswith("s3:") else {}
        options = tuple(sorted((dict(store.options) | impatient).items()))
    if store.url.startswith(("http:", "https:")):
        return  # it has no list
    notes.begin("listing")
    try:
        await in_thread(lambda: _list(store.url, secret, options))
    except (StorageError, ConfigError) as error:
        notes.end(_failure(error))
        return
    notes.end(ok("can be listed"))
    if store.purpose == "results":
        await _writing(store, secret, options, notes)


async def _directory(store: Store, path: Path, notes: Notes) -> bool:
    """Check a local store; false if there is nothing more to look at."""
    notes.begin("directory")
    if not await in_thread(path.exists):
        if store.purpose == "data":
            advice = "mend url: in the site file, or mount what should be there"
            return notes.end(failed(f"there is no {path}", advice))
        notes.end(ok(f"{path} is made when it is needed"))
        parent = await in_thread(lambda: existing(path))
        _writable_parent(parent, notes)
        notes.add(
            "free space", judge.space((await in_thread(lambda: shutil.disk_usage(parent))).free)
        )
        return False
    if not await in_thread(path.is_dir):
        return notes.end(failed(f"{path} is no directory", "mend url: in the site file"))
    notes.end(ok(str(path)))
    if store.purpose == "results":
        notes.begin("free space")
        notes.end(judge.space((await in_thread(lambda: shutil.disk_usage(path))).free))
    return True


def _writable_parent(parent: Path, notes: Notes) -> None:
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        advice = "mend url: in the site file, or have it made by whoever may"
        notes.add("parent", failed(f"it cannot be made in {parent}", advice))


def existing(path: Path) -> Path:
    """The path, or the closest one above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


async def _service(store: Store, notes: Notes) -> bool:
    """Check the way to a service, and its clock."""
    endpoint = _endpoint(store)
    parts = urlsplit(endpoint)
    if not await resolves(parts.hostname or "", parts.scheme, notes):
        return False
    notes.begin("reach")
    async with looking(endpoint, seconds=ANSWER_SECONDS) as ask:
        try:
            look = await ask("/")
        except NoAnswer as error:
            finding = judge.no_answer(error.step, error.reason, endpoint)
            if error.step != "tls":
                finding = finding._replace(
                    advice="is the service up? look at options: {endpoint: ...}"
                )
            return notes.end(finding)
    notes.end(ok(f"{endpoint} answers"))
    notes.add("clock", judge.clock(look.ahead(), signed=store.url.startswith("s3:")))
    return True


def _endpoint(store: Store) -> str:
    options = dict(store.options)
    if not store.url.startswith("s3:"):
        parts = urlsplit(store.url)
        return f"{parts.scheme}://{parts.netloc}"
    region = options.get("region", "us-east-1")
    return options.get("endpoint") or f"https://s3.{region}.amazonaws.com"


def _list(url: str, secret: Mapping[str, str], options: Options) -> None:
    from dataflow.storage.open import object_store
    from dataflow.storage.publish import plain_errors

    with plain_errors(url):
        store = object_store(url, credentials=secret, options=options, mkdir=False)
        next(iter(store.list(chunk_size=1)), None)


async def _writing(store: Store, secret: Mapping[str, str], options: Options, notes: Notes) -> None:
    from dataflow.storage.upkeep import check_store

    notes.begin("writing")
    try:
        await in_thread(
            lambda: check_store(store.url, credentials=secret, options=options, name=store.name)
        )
    except UnsafeStore as error:
        advice = (
            "results would overwrite each other: use another store for them, purpose: data here"
        )
        notes.end(from_error(error)._replace(advice=advice))
        return
    except (StorageError, ConfigError) as error:
        notes.end(_failure(error))
        return
    notes.end(ok("writes, writes only if absent, deletes"))


def _failure(error: StorageError | ConfigError) -> Finding:
    return from_error(error, judge.store_error(f"{error} {error.__cause__ or ''}"))
