"""An issuer of tokens on this machine: publishes its keys over HTTP and signs what it is told to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

AUDIENCE = "dataflow"
RSA = RSAKey.generate_key(2048, {"kid": "rsa"}, private=True)
EC = ECKey.generate_key("P-256", {"kid": "ec"}, private=True)
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"}, private=True)
KEYS: Mapping[str, Key] = {"RS256": RSA, "PS256": RSA, "ES256": EC, "Ed25519": ED}


class TestIssuer:
    """One that answers as long as the block lasts; ``asked`` are the paths it was asked for."""

    __test__ = False

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.keys: list[dict[str, Any]] = [key.as_dict(private=False) for key in (RSA, EC, ED)]
        self.changes: dict[str, Any] = {}
        outer = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                document = outer.answer(self.path)
                body = json.dumps(document).encode()
                self.send_response(404 if document is None else 200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/realms/lab"

    def answer(self, path: str) -> Any:
        if path.endswith("/.well-known/openid-configuration"):
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.changes}
        return {"keys": self.keys} if path.endswith("/keys") else None

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        said = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "4711",
            "preferred_username": "anna",
            "iat": now,
            "exp": now + 300,
            "jti": "t1",
            "realm_access": {"roles": ["staff"]},
        }
        return {name: value for name, value in {**said, **changes}.items() if value is not None}

    def token(self, alg: str = "RS256", key: Key | None = None, **changes: Any) -> str:
        signing = key or KEYS[alg]
        header = {"alg": alg, "kid": signing.kid}
        return jwt.encode(header, self.claims(**changes), signing, algorithms=[alg])

    def __enter__(self) -> TestIssuer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
