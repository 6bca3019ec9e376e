from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest
from starlette.requests import HTTPConnection

from dataflow.agent.auth import (
    Identity,
    TokenFile,
    check_binding,
    first_token,
    make_token_file,
)
from dataflow.errors import ConfigError, SiteRefused

TOKEN = "a-token-of-enough-length"


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def asked(tokens: TokenFile, header: str | None) -> Identity:
    lines = [] if header is None else [(b"authorization", header.encode("latin-1"))]
    return asyncio.run(tokens(HTTPConnection({"type": "http", "headers": lines})))


def test_known_tokens_are_identities(tmp_path: Path) -> None:
    hashed = hashlib.sha256(b"another-token-of-length").hexdigest()
    file = written(
        tmp_path / "tokens",
        f"# people\n{TOKEN} ann user\n\nsha256:{hashed} vu site # their agent\n",
    )
    tokens = TokenFile(file, "uva")
    assert asked(tokens, f"Bearer {TOKEN}") == Identity(user="ann", role="user")
    assert asked(tokens, f"bearer  {TOKEN} ") == Identity(user="ann", role="user")
    assert asked(tokens, "Bearer another-token-of-length") == Identity(user="vu", role="site")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic YW5uOng=",
        TOKEN,
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        "Bearer ÿ\xff",
        "Bearer " + "x" * 100_000,
    ],
)
def test_everything_else_is_refused_without_repeating_it(tmp_path: Path, header: str) -> None:
    tokens = TokenFile(written(tmp_path / "tokens", f"{TOKEN} ann user\n"), "uva")
    with pytest.raises(SiteRefused) as refused:
        asked(tokens, header)
    assert TOKEN[:8] not in str(refused.value)
    assert TOKEN not in repr(tokens)


def test_the_digest_in_the_file_is_not_a_token(tmp_path: Path) -> None:
    hashed = "sha256:" + hashlib.sha256(TOKEN.encode()).hexdigest()
    tokens = TokenFile(written(tmp_path / "tokens", f"{hashed} ann user\n"), "uva")
    assert asked(tokens, f"Bearer {TOKEN}").user == "ann"
    with pytest.raises(SiteRefused):
        asked(tokens, f"Bearer {hashed}")


def test_a_line_taken_out_is_refused_at_once(tmp_path: Path) -> None:
    file = written(tmp_path / "tokens", f"{TOKEN} ann user\n")
    tokens = TokenFile(file, "uva")
    assert asked(tokens, f"Bearer {TOKEN}").user == "ann"
    written(file, "another-token-of-length bob user\n")
    os.utime(file, ns=(1, 1))
    with pytest.raises(SiteRefused):
        asked(tokens, f"Bearer {TOKEN}")
    assert asked(tokens, "Bearer another-token-of-length").user == "bob"


@pytest.mark.parametrize("damage", ["remove", "chmod", "garbage"])
def test_a_file_that_breaks_lets_nobody_in(tmp_path: Path, damage: str) -> None:
    file = written(tmp_path / "tokens", f"{TOKEN} ann user\n")
    tokens = TokenFile(file, "uva")
    if damage == "remove":
        file.unlink()
    else:
        text = "one two\n" if damage == "garbage" else f"{TOKEN} ann user \n"
        written(file, text, 0o644 if damage == "chmod" else 0o600)
    with pytest.raises(SiteRefused):
        asked(tokens, f"Bearer {TOKEN}")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("short ann user", "16 characters"),
        (f"{TOKEN} ann", "token user role"),
        (f"{TOKEN} ann king", "reader, user, site, admin"),
        (f"{TOKEN} a/b user", "name"),
        ("sha256:abc ann user", "64 hexadecimal"),
        (f"{TOKEN} ann user\n{TOKEN} bob user", "twice"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as wrong:
        TokenFile(written(tmp_path / "tokens", line), "uva")
    assert TOKEN not in str(wrong.value)
    assert wrong.value.line > 0


def test_others_may_not_read_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="chmod 600"):
        TokenFile(written(tmp_path / "tokens", f"{TOKEN} ann user\n", 0o640), "uva")
    with pytest.raises(ConfigError, match="No such file"):
        TokenFile(tmp_path / "missing", "uva")


def test_a_file_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "state" / "tokens"
    token = make_token_file(path, "ann")
    assert path.stat().st_mode & 0o777 == 0o600
    assert make_token_file(path, "bob") == token == first_token(path)
    assert asked(TokenFile(path, "uva"), f"Bearer {token}") == Identity(user="ann", role="admin")
    assert first_token(written(tmp_path / "empty", "# nobody\n")) == ""


def test_who_may_speak_for_others() -> None:
    assert Identity(user="ann", role="user").speaks_for("bob") == "ann"
    assert Identity(user="vu", role="site").speaks_for("bob") == "bob"
    assert Identity(user="vu", role="site").speaks_for("") == "vu"
    assert Identity(user="root", role="admin").speaks_for("bob") == "bob"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_loopback_needs_no_tls(host: str) -> None:
    check_binding(host, encrypted=False)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "", "::", "192.168.1.4", "example.org", "127.0.0.1.nip.io"]
)
def test_the_network_needs_tls(host: str) -> None:
    with pytest.raises(ConfigError, match="without TLS"):
        check_binding(host, encrypted=False)
    check_binding(host, encrypted=True)
