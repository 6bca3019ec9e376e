"""Credentials by name, and what is never shown."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from dataflow.errors import ConfigError
from dataflow.storage.credentials import resolve


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "credentials.yaml"
    monkeypatch.setenv("DATAFLOW_CREDENTIALS_FILE", str(path))
    return path


def write(file: Path, text: str, mode: int = 0o600) -> None:
    file.write_text(text)
    file.chmod(mode)


def test_no_name_no_fields() -> None:
    assert dict(resolve(None)) == {}


def test_environment_comes_first(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(file, "ams-minio.2: {token: from-file}")
    assert resolve("ams-minio.2")["token"] == "from-file"
    monkeypatch.setenv("DATAFLOW_CREDENTIALS_AMS_MINIO_2", json.dumps({"token": "from-env"}))
    assert dict(resolve("ams-minio.2")) == {"token": "from-env"}


def test_home_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATAFLOW_CREDENTIALS_FILE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".config" / "dataflow").mkdir(parents=True)
    write(tmp_path / ".config" / "dataflow" / "credentials.yaml", "a: {token: t}")
    assert resolve("a")["token"] == "t"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_readable_by_others_is_refused(file: Path, mode: int) -> None:
    write(file, "a: {token: s3cr3t}", mode)
    with pytest.raises(ConfigError, match="chmod 600") as caught:
        resolve("a")
    assert "s3cr3t" not in str(caught.value)


def test_unknown_name_says_what_was_tried(file: Path) -> None:
    with pytest.raises(ConfigError, match="no such file") as caught:
        resolve("my store")
    assert "DATAFLOW_CREDENTIALS_MY_STORE" in str(caught.value)
    assert str(file) in str(caught.value)
    write(file, "other: {token: s3cr3t}")
    with pytest.raises(ConfigError, match="no entry") as caught:
        resolve("my store")
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: s3cr3t", "a: {token: 3}", "- s3cr3t", "a: {token: 's3cr3t"])
def test_malformed_file_is_named_without_its_content(file: Path, text: str) -> None:
    write(file, text)
    with pytest.raises(ConfigError) as caught:
        resolve("a")
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("text", ["s3cr3t", '["s3cr3t"]', '{"token": 3}'])
def test_malformed_variable(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("DATAFLOW_CREDENTIALS_A", text)
    with pytest.raises(ConfigError) as caught:
        resolve("a")
    assert "s3cr3t" not in str(caught.value)


def test_never_shown(file: Path) -> None:
    write(file, "a: {token: s3cr3t, access_key_id: id1}")
    secret = resolve("a")
    assert repr(secret) == "<Secret 'a': access_key_id, token>"
    assert "s3cr3t" not in f"{secret} {secret!r} {[secret]}"
    assert pickle.loads(pickle.dumps(secret)) == secret
    assert hash(secret) == hash(resolve("a"))
