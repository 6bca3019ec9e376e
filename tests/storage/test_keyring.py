"""Credentials in the account's keyring."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataflow.errors import ConfigError
from dataflow.storage.credentials import resolve

keyring = pytest.importorskip("keyring", reason="the extra 'keyring' is not installed")
KeyringBackend = pytest.importorskip("keyring.backend").KeyringBackend
NoKeyring = pytest.importorskip("keyring.backends.fail").Keyring


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "credentials.yaml"
    monkeypatch.setenv("DATAFLOW_CREDENTIALS_FILE", str(path))
    return path


class _InMemory(KeyringBackend):
    """A keyring without a desktop."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password


@pytest.fixture
def kept() -> Iterator[object]:
    before = keyring.get_keyring()
    keyring.set_keyring(_InMemory())
    yield keyring.get_keyring()
    keyring.set_keyring(before)


def test_the_keyring_comes_last(file: Path, kept: object) -> None:
    keyring.set_password("dataflow", "bucket", json.dumps({"access_key_id": "k"}))
    assert dict(resolve("bucket")) == {"access_key_id": "k"}
    file.write_text("bucket: {access_key_id: from-file}")
    file.chmod(0o600)
    assert resolve("bucket")["access_key_id"] == "from-file"
    with pytest.raises(ConfigError, match=r"and the keyring \(no entry"):
        resolve("another")


def test_a_keyring_that_holds_something_else(file: Path, kept: object) -> None:
    keyring.set_password("dataflow", "bucket", "s3cr3t")
    with pytest.raises(ConfigError, match="JSON object") as caught:
        resolve("bucket")
    assert "s3cr3t" not in str(caught.value)


def test_without_a_keyring(file: Path) -> None:
    before = keyring.get_keyring()
    keyring.set_keyring(NoKeyring())
    try:
        with pytest.raises(ConfigError, match=r"the keyring \(No recommended backend"):
            resolve("bucket")
    finally:
        keyring.set_keyring(before)
