"""Tokens of a real issuer: the npm package oidc-provider, as ``make oidc-provider`` installs it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.agent.issuer import TestIssuer
from tests.agent.test_issued import Door

FOLDER = Path(os.environ.get("DATAFLOW_OIDC_PROVIDER", "~/.cache/dataflow/oidc-provider"))
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    folder, node = FOLDER.expanduser(), shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    if not (folder / "node_modules" / "oidc-provider").is_dir():
        pytest.skip("needs the npm package oidc-provider: make oidc-provider")
    program = [node, str(HERE / "oidc_provider.mjs"), str(folder)]
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as running:
        assert running.stdout is not None
        try:
            url = running.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:"), "it did not start"
            yield url
        finally:
            running.kill()


def token_of(url: str, audience: str) -> str:
    about = httpx2.get(f"{url}/.well-known/openid-configuration", timeout=60, trust_env=False)
    answer = httpx2.post(
        about.json()["token_endpoint"],
        data={"grant_type": "client_credentials", "resource": audience},
        auth=("anna", "a-secret-of-anna"),
        timeout=60,
        trust_env=False,
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


def test_who_signed_in_there_is_known_here(tmp_path: Path, provider: str) -> None:
    issuer = TestIssuer.__new__(TestIssuer)
    issuer.url = provider
    door = Door(tmp_path, issuer, user="sub", audience="https://uva.example.org")
    token = token_of(provider, "https://uva.example.org")
    assert door.asked(token).user == "anna"
    head, body, signature = token.split(".")
    door.refuses(f"{head}.{body}.{signature[:-8]}AAAAAAAA", "signature")
    door.refuses(token_of(provider, "https://amc.example.org"), "not for this site")
    door.revoked.write_text("user anna\n")
    door.refuses(token, "revoked")
