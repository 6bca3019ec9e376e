"""A stand-in for a Kubernetes cluster: real HTTP, real processes, one namespace's worth of it.

It answers what is asked about Jobs, Pods, Secrets and events (discovery, create, get, list by
labels, watch, delete), knows tokens and Roles, and does what Kubernetes does about it: a Job gets a
Pod, the Pod's command runs as a process of this machine with the Pod's variables and volumes, and
status, deadline, time to live, owners, quota and the *restricted* standard are honoured. What a
process cannot be given stands in :mod:`dataflow.testing.kubernetes.processes`.

It is no proof that a real cluster does the same: where it errs, its author has misread the
documentation, and nobody would notice.

    with KubernetesStandIn(folder) as cluster:
        backend = KubernetesBackend(settings=KubernetesSettings(
            namespace=cluster.namespace, image=cluster.image, kubeconfig=cluster.kubeconfig()), …)
        cluster.world.cores = 1             # nothing more fits
        cluster.faults.slow = 2.0           # its API server is slow
        cluster.accounts.revoke("token")    # or does not let anybody in
        cluster.down()                      # or is not there
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import yaml

from dataflow.testing.kubernetes.admission import Accounts, Rules
from dataflow.testing.kubernetes.controllers import Controllers, World
from dataflow.testing.kubernetes.objects import KINDS, Object, Objects
from dataflow.testing.kubernetes.server import ApiServer, Faults

_Result = TypeVar("_Result")

#: Token of the account that the stand-in is entered with.
TOKEN = "token-of-the-agent"


class KubernetesStandIn:
    """A cluster on this machine, up inside the ``with``; afterwards none of its processes runs.

    Parameters
    ----------
    folder
        For certificates, kubeconfig, and a directory per Pod with its log.
    namespace
        Where the account may do what ``rules`` say; everything without them.
    """

    def __init__(self, folder: Path, *, namespace: str = "adk", rules: Rules | None = None) -> None:
        self.folder, self.namespace = folder, namespace
        self.image = "registry.example.org/dataflow:test"
        self.world = World(images={self.image})
        self.accounts = Accounts()
        account = f"system:serviceaccount:{namespace}:dataflow-agent"
        self.accounts.add(TOKEN, account, namespace, rules)
        self.port = 0
        self._objects: Objects | None = None
        self._controllers: Controllers | None = None
        self._api: ApiServer | None = None
        self._server: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads: list[threading.Thread] = []
        self._stop: asyncio.Event | None = None

    def __enter__(self) -> KubernetesStandIn:
        self.folder.mkdir(parents=True, exist_ok=True)
        _write_certificate(self.folder / "ca.crt", self.folder / "ca.key")
        ready = threading.Event()
        self._start(lambda: asyncio.run(self._live(ready)))
        ready.wait(30)
        self.up()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.down()
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        for thread in self._threads:
            thread.join(30)

    @property
    def faults(self) -> Faults:
        """What is wrong with the API server; attributes may be set."""
        assert self._api is not None
        return self._api.faults

    @property
    def url(self) -> str:
        """Address of the API server."""
        return f"https://127.0.0.1:{self.port}"

    def kubeconfig(self, token: str = TOKEN) -> str:
        """Path of a kubeconfig for a token."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "contexts": [
                {
                    "name": "lab",
                    "context": {"cluster": "lab", "user": "me", "namespace": self.namespace},
                }
            ],
            "clusters": [
                {
                    "name": "lab",
                    "cluster": {
                        "server": self.url,
                        "certificate-authority": str(self.folder / "ca.crt"),
                    },
                }
            ],
            "users": [{"name": "me", "user": {"token": token}}],
        }
        path = self.folder / f"kubeconfig-{token}.yaml"
        path.write_text(yaml.safe_dump(config))
        return str(path)

    def service_account(self, token: str = TOKEN) -> Path:
        """A directory such as a Pod has of its service account."""
        directory = self.folder / "serviceaccount"
        directory.mkdir(exist_ok=True)
        (directory / "token").write_text(token)
        (directory / "namespace").write_text(self.namespace)
        (directory / "ca.crt").write_bytes((self.folder / "ca.crt").read_bytes())
        return directory

    # --- looking --------------------------------------------------------------------------------

    def objects(self, kind: str) -> list[Object]:
        """All objects of a kind, such as ``jobs``."""
        return self._in_loop(lambda: self._known().listed(kind, self.namespace))

    def left(self) -> dict[str, list[str]]:
        """Names of all that is there but events, by kind."""
        found = {
            kind: [str(item["metadata"]["name"]) for item in self.objects(kind)]
            for kind in KINDS
            if kind != "events"
        }
        return {kind: names for kind, names in found.items() if names}

    def pids(self) -> dict[str, int]:
        """Process of each Pod that is there."""
        assert self._controllers is not None
        processes = dict(self._controllers.processes)
        return {
            str(pod["metadata"]["name"]): pid
            for pod in self.objects("pods")
            if (process := processes.get(pod["metadata"]["uid"])) and (pid := process.pid)
        }

    # --- changing -------------------------------------------------------------------------------

    def create(self, kind: str, item: Object) -> Object:
        """Make an object, as an administrator."""
        return self._in_loop(lambda: self._known().create(kind, self.namespace, item))

    def delete(self, kind: str, name: str) -> None:
        """Delete an object, as an administrator."""
        controllers = self._controllers
        assert controllers is not None
        self._in_loop(lambda: controllers.delete(kind, self.namespace, name, None))

    def forget_history(self) -> None:
        """Let nobody watch from an earlier version."""
        self._in_loop(self._known().forget_history)

    def cut_watches(self) -> None:
        """End all watches in the middle."""
        self.faults.watches += 1
        self._in_loop(self._known().wake)

    def down(self) -> None:
        """Let the API server be gone; what runs goes on."""
        if self._server is not None:
            server, self._server = self._server, None
            server.should_exit = server.force_exit = True
            self.faults.watches += 1
            self._in_loop(lambda: _break(server))
            self._in_loop(self._known().wake)
            self._serving.join(30)

    def up(self) -> None:
        """Have the API server again, at the same address."""
        import uvicorn

        assert self._api is not None
        config = uvicorn.Config(
            self._api.app,
            host="127.0.0.1",
            port=self.port,
            ssl_certfile=str(self.folder / "ca.crt"),
            ssl_keyfile=str(self.folder / "ca.key"),
            log_level="critical",
            access_log=False,
            lifespan="off",
            ws="none",
        )
        listening = socket.create_server(("127.0.0.1", self.port))
        self.port = listening.getsockname()[1]
        self._server = server = uvicorn.Server(config)
        loop = self._loop
        assert loop is not None

        def serve() -> None:
            done = asyncio.run_coroutine_threadsafe(server.serve([listening]), loop)
            with contextlib.suppress(Exception):
                done.result()
            listening.close()

        self._serving = self._start(serve)

    # --- inside ---------------------------------------------------------------------------------

    async def _live(self, ready: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._objects = Objects()
        self._controllers = Controllers(self._objects, self.world, self.folder / "pods")
        self._api = ApiServer(self._objects, self._controllers, self.accounts)
        running = asyncio.create_task(self._controllers.run())
        ready.set()
        await self._stop.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    def _known(self) -> Objects:
        assert self._objects is not None
        return self._objects

    def _in_loop(self, work: Callable[[], _Result]) -> _Result:
        async def done() -> _Result:
            return work()

        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(30)

    def _start(self, work: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self._threads.append(thread)
        return thread


def _break(server: Any) -> None:
    """Break the connections of a server in the middle, or it waits for those who listen."""
    for connection in list(server.server_state.connections):
        connection.transport.abort()


def _write_certificate(certificate: Path, key: Path) -> None:
    """A certificate for this machine, signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stand-in")])
    today = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False
        )
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
