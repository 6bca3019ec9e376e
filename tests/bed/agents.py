"""Sites on hosts of the bed whose agents answer over HTTPS, and reach one another directly."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import secrets
import signal
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from bed_network import until
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import dataflow as flow
from dataflow.testing.bed import Bed

PORT = 8790
_CREDENTIALS = "DATAFLOW_CREDENTIALS_FILE"


class Agents:
    """An agent at each of these sites, with stores for data and results, and the notebook's file."""

    def __init__(
        self,
        bed: Bed,
        folder: Path,
        names: Sequence[str],
        timeouts: Mapping[str, str] | None = None,
    ) -> None:
        self.bed, self.folder, self.names = bed, folder, list(names)
        #: Below the home directory of each site, and for this story alone.
        self.home = f"flow-{uuid.uuid4().hex[:8]}"
        self._timeouts = dict(timeouts or {})
        self._tokens = {name: secrets.token_hex(16) for name in ("notebook", *names)}
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._credentials = folder / "credentials.yaml"
        self._credentials.write_text(self._secrets())
        self._credentials.chmod(0o600)
        _write_certificate(folder, [bed.notebook, *(bed.address(name) for name in names)])
        for name in self.names:
            self._prepare(name)

    def begin(self) -> None:
        """Start all agents, and wait until they answer."""
        for name in self.names:
            self.start(name)
        for name in self.names:
            until(lambda name=name: self.answers(name), seconds=90)

    def address(self, name: str) -> str:
        host = self.bed.notebook if name == "notebook" else self.bed.address(name)
        return f"https://{host}:{PORT}"

    def _secrets(self) -> str:
        found = {
            name: {"token": token, "address": self.address(name)}
            for name, token in self._tokens.items()
        }
        return yaml.safe_dump(found)

    def document(self, name: str, **more: Any) -> dict[str, Any]:
        return {
            "site": {"name": name, "workers": 1, "memory": "500 MB"},
            "listen": {
                "address": self.address(name).removeprefix("https://"),
                "certificate": "./tls.crt",
                "key": "./tls.key",
            },
            "state": "./state",
            "stores": [
                {"name": "data", "url": "./data", "purpose": "data"},
                {"name": "results", "url": "./results"},
            ],
            "timeouts": self._timeouts,
            **more,
        }

    def _prepare(self, name: str) -> None:
        host = self.bed.host(name)
        host.run(f"mkdir -p {self.home}/data {self.home}/state; chmod 700 {self.home}/state")
        # Each shows its own token everywhere, and it is told which others know it by theirs.
        mine = {
            other: {"token": self._tokens[name], "address": self.address(other)}
            for other in ("notebook", *self.names)
        }
        document = self.document(name)
        document["sites"] = [
            {"name": other, "address": self.address(other), "credentials": other}
            for other in self.names
            if other != name
        ]
        tokens = "".join(f"{token} {who} site\n" for who, token in self._tokens.items())
        for path, text in (
            ("site.yaml", yaml.safe_dump(document)),
            ("credentials.yaml", yaml.safe_dump(mine)),
            ("state/tokens", tokens),
            ("ca.crt", (self.folder / "ca.crt").read_text()),
            ("tls.crt", (self.folder / "tls.crt").read_text()),
            ("tls.key", (self.folder / "tls.key").read_text()),
        ):
            host.run(f"umask 077; cat > {self.home}/{path}", stdin=text)

    def start(self, name: str) -> None:
        """Start an agent whose files are there."""
        line = (
            f"cd {self.home} && {_CREDENTIALS}=$PWD/credentials.yaml SSL_CERT_FILE=$PWD/ca.crt OMP_NUM_THREADS=1 "
            f"exec {self.bed.python} -m dataflow agent --config site.yaml > agent.log 2>&1"
        )
        self._running[name] = self.bed.host(name).start(line)

    def answers(self, name: str) -> bool:
        return "listening on" in self.log(name)

    def log(self, name: str) -> str:
        return self.bed.host(name).run(f"cat {self.home}/agent.log", check=False).stdout

    def path(self, name: str, rest: str = "") -> str:
        return f"/home/{self.bed.user}/{self.home}/{rest}"

    def run(self, name: str, line: str, *, check: bool = True) -> str:
        """What a line of shell says in the site's folder, whether its link is cut or not."""
        done = self.bed.host(name).run(f"cd {self.home} && {line}", check=check)
        return done.stdout.strip()

    def make(self, name: str, file: str, nbytes: int, seed: int) -> None:
        """A file of random numbers in the site's data store."""
        code = (
            "import numpy as np; "
            f"np.save('data/{file}.npy', np.random.default_rng({seed}).random({nbytes // 8}))"
        )
        self.run(name, f'{self.bed.python} -c "{code}"')

    def file(self, *, knows: Sequence[str] | None = None, **more: Any) -> Path:
        """A site file for the notebook."""
        mine = self.folder / f"mine-{uuid.uuid4().hex[:6]}.yaml"
        wanted = self.names if knows is None else knows
        entries = [
            {"name": other, "address": self.address(other), "credentials": f"for-{other}"}
            for other in wanted
        ]
        mine.write_text(yaml.safe_dump({"sites": entries, "timeouts": self._timeouts, **more}))
        found = {
            f"for-{other}": {"token": self._tokens["notebook"], "address": self.address(other)}
            for other in self.names
        }
        self._credentials.write_text(yaml.safe_dump(found))
        return mine

    @contextlib.contextmanager
    def session(self, file: Path | None = None, state: str = "notebook") -> Iterator[flow.Session]:
        with flow.connect(file or self.file(), state=self.folder / state, user="anna") as session:
            yield session

    @property
    def environment(self) -> dict[str, str]:
        return {
            _CREDENTIALS: str(self._credentials),
            "SSL_CERT_FILE": str(self.folder / "ca.crt"),
        }

    def end(self) -> None:
        for name, process in self._running.items():
            with contextlib.suppress(Exception):
                process.kill()
                process.communicate(timeout=10)
            for one in self.bed.host(name).processes(user=self.bed.user):
                with contextlib.suppress(KeyError, ProcessLookupError):
                    self.bed.host(name).end(one.pid, signal.SIGKILL)
            self.bed.host(name).run(f"rm -rf {self.home}", check=False)


def made(nbytes: int, seed: int) -> np.ndarray[Any, Any]:
    """What :meth:`Agents.make` writes."""
    return np.random.default_rng(seed).random(nbytes // 8)


def _write_certificate(folder: Path, addresses: Sequence[str]) -> None:
    """One certificate for all sites, ``tls.crt``, and that of who signed it, ``ca.crt``."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        for name in ("the bed's authority", "the bed's sites")
    ]
    now = datetime.datetime.now(datetime.UTC)
    hosts = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    pem = serialization.Encoding.PEM
    for number, file in enumerate(("ca", "tls")):
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[number])
            .issuer_name(names[0])
            .public_key(keys[number].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=file == "ca", path_length=None), critical=True)
        )
        if file == "tls":
            builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        certificate = builder.sign(keys[0], hashes.SHA256())
        (folder / f"{file}.crt").write_bytes(certificate.public_bytes(pem))
    plain = serialization.NoEncryption()
    key = keys[1].private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    (folder / "tls.key").write_bytes(key)
