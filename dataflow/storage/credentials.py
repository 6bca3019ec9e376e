"""Credentials by name: looked up where they are used, never carried in a record.

A store or a site names its credential; this module finds the secret on the machine that needs it,
in this order:

1. the environment variable ``DATAFLOW_CREDENTIALS_<NAME>``, a JSON object (name in upper case,
   everything but letters and digits replaced by ``_``);
2. the YAML file ``$DATAFLOW_CREDENTIALS_FILE``, by default ``~/.config/dataflow/credentials.yaml``:
   a mapping from name to fields, readable by its owner only;
3. the keyring of the account, if the package ``keyring`` is installed: the password of the user
   ``<name>`` of the service ``dataflow``, a JSON object.

Fields in use: ``token`` (agents, and bearer tokens of HTTPS), ``access_key_id``,
``secret_access_key``, ``session_token`` (S3), ``username``, ``password`` (SFTP, HTTPS),
``private_key``, ``passphrase`` (SFTP).
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from dataflow.errors import ConfigError

#: The service under which credentials stand in a keyring.
SERVICE = "dataflow"
_KEYRING = "the keyring"


class Secret(Mapping[str, str]):
    """Fields of one credential; its text shows the field names, never the values."""

    def __init__(self, name: str, fields: Mapping[str, str]) -> None:
        self.name = name
        self._fields = dict(fields)

    def __getitem__(self, field: str) -> str:
        return self._fields[field]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __hash__(self) -> int:
        return hash(tuple(sorted(self._fields.items())))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and dict(other) == self._fields

    def __repr__(self) -> str:
        return f"<Secret {self.name!r}: {', '.join(sorted(self._fields)) or 'no fields'}>"


def resolve(name: str | None) -> Mapping[str, str]:
    """The fields of a named credential; an empty mapping for ``None``.

    Raises
    ------
    ConfigError
        If the name is known nowhere, or the place that should hold it is malformed or can be read
        by other users. The text says what was tried, and never contains a secret.
    """
    if name is None:
        return Secret("", {})
    variable = "DATAFLOW_CREDENTIALS_" + re.sub(r"[^A-Za-z0-9]", "_", name).upper()
    if variable in os.environ:
        return Secret(name, _fields(_json(os.environ[variable], variable), variable, name))
    file = credentials_file()
    if file.exists():
        entries = _entries(file)
        if name in entries:
            return Secret(name, _fields(entries[name], str(file), name))
        tried = f"{file} (no entry of this name)"
    else:
        tried = f"{file} (no such file)"
    kept, why = _in_keyring(name)
    if kept is not None:
        return Secret(name, _fields(_json(kept, _KEYRING), _KEYRING, name))
    raise ConfigError(
        f"no credential named {name!r}: tried the variable {variable} (not set), {tried} and {why}.\n"
        f"What you can do: put a JSON object into {variable}, or an entry {name!r} into that file "
        "and make it readable by you alone (chmod 600).",
        path=name,
    )


def _in_keyring(name: str) -> tuple[str | None, str]:
    """What the account's keyring has under a name; and why nothing, for an error."""
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        return None, f"{_KEYRING} (the package keyring is not installed)"
    try:
        found = keyring.get_password(SERVICE, name)
    except (KeyringError, RuntimeError, OSError) as error:
        # Locked, or there is none on this machine, as on most login hosts.
        return None, f"{_KEYRING} ({str(error).strip().partition(chr(10))[0]})"
    return found, f"{_KEYRING} (no entry of this name)"


def for_address(address: str) -> Mapping[str, str]:
    """The fields of the entry whose ``address`` is this one; an empty mapping if there is none.

    So a token goes to sites that were heard of from others only where its owner has said so.
    """
    file = credentials_file()
    for name, entry in _entries(file).items() if file.exists() else ():
        if isinstance(entry, Mapping) and str(entry.get("address", "")).rstrip("/") == address:
            return Secret(str(name), _fields(entry, str(file), str(name)))
    return Secret("", {})


def credentials_file() -> Path:
    """Where credentials stand that are not in the environment; it need not exist."""
    chosen = os.environ.get("DATAFLOW_CREDENTIALS_FILE")
    return Path(chosen) if chosen else Path.home() / ".config" / "dataflow" / "credentials.yaml"


def _entries(file: Path) -> Mapping[Any, Any]:
    if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError("other users can read this file; run: chmod 600", file=str(file))
    try:
        loaded = yaml.safe_load(file.read_text()) or {}
    except yaml.YAMLError:
        # The parser quotes the line that it could not read, which may be the secret.
        raise ConfigError("this is not YAML", file=str(file)) from None
    if not isinstance(loaded, Mapping):
        raise ConfigError("needs a mapping from name to fields", file=str(file))
    return loaded


def _json(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        raise ConfigError("needs a JSON object of strings", file=where) from None


def _fields(value: object, where: str, name: str) -> Mapping[str, str]:
    if not isinstance(value, Mapping) or not all(
        isinstance(field, str) and isinstance(secret, str) for field, secret in value.items()
    ):
        raise ConfigError("needs a mapping of strings to strings", file=where, path=name)
    return {str(field): str(secret) for field, secret in value.items()}
