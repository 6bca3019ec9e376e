"""The command line without a federation: its form, its exit codes, what it prints."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dataflow.catalog.listing import Listing
from dataflow.catalog.snapshot import Snapshot
from dataflow.cli import app as command_line
from dataflow.datasets import Dataset, Extent, Variable
from dataflow.errors import (
    ConfigError,
    DataflowError,
    PolicyError,
    SiteRefused,
    SiteUnreachable,
    UnknownJob,
)
from dataflow.execution.events import Asked, UnitStarted
from dataflow.sites import Site, Topology
from dataflow.stores import Store

DATASET = Dataset(
    id="d" * 32,
    name="run [1]",
    key="k",
    kind="array",
    extent=Extent(
        nbytes=2_000_000,
        variables=(Variable(name="v", dims=("t",), shape=(500,), dtype="float32", nbytes=2000),),
    ),
    site="amc",
    owner="ann",
    tags={"system": "adk", "a": "b"},
    created=1.0,
)


@dataclass(frozen=True, kw_only=True)
class View:
    id: str = "j1"
    status: str = "running"
    user: str = "ann"
    tags: Mapping[str, str] = field(default_factory=dict)
    coordinator: str = "amc"
    created: float = 1.0
    updated: float = 2.0
    error: Mapping[str, Any] | None = None
    done: int = 1
    total: int = 3
    results: Mapping[str, Dataset] = field(default_factory=lambda: {"k": DATASET})
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Entry:
    source: str = "amc"
    target: str = "uva"
    nbytes: int = 1_500_000
    seconds: float = 0.25
    key: str = "f" * 64


class Job:
    def __init__(self, session: Session) -> None:
        self.session = session

    def cancel(self) -> None:
        self.session.asked.append("cancel")

    def events(self) -> Sequence[Any]:
        started = UnitStarted(unit="s1", site="amc", attempt=1, time=1.0)
        return [started, Asked(what="cancel", by="ann", time=2.0)]

    def view(self) -> View:
        return View()


class Session:
    """What the commands ask of a session, and a record of it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[Any] = []

    def __enter__(self) -> Session:
        if self.error is not None:
            raise self.error
        return self

    def __exit__(self, *_: object) -> None:
        self.asked.append("closed")

    def topology(self) -> Topology:
        sites = (Site(name="uva"), Site(name="amc", address="http://amc.test", trust="steward"))
        stores = (Store(name="data", site="amc", url="file:///data"),)
        return Topology(sites=sites, stores=stores, away=frozenset({"amc"}))

    def datasets(self, **asked: Any) -> Sequence[Dataset]:
        self.asked.append(asked)
        return [] if asked.get("text") == "nothing" else [DATASET]

    def register(self, url: str, **named: Any) -> Dataset:
        self.asked.append((url, named))
        return DATASET

    def register_all(self, listing: str, **named: Any) -> Sequence[Dataset]:
        self.asked.append((listing, named))
        return [DATASET]

    def jobs(self) -> Sequence[View]:
        return [View()]

    def job(self, id: str) -> Job:
        return Job(self)

    def ledger(self, id: str) -> Sequence[Entry]:
        return [Entry()]


def run(
    monkeypatch: pytest.MonkeyPatch, *arguments: str, error: Exception | None = None
) -> tuple[int, list[Any]]:
    """Exit code of a command, and what it asked of the session."""
    session = Session(error)
    monkeypatch.setattr(command_line, "session", lambda: session)
    with pytest.raises(SystemExit) as left:
        command_line.main(arguments)
    return int(left.value.code or 0), session.asked


LISTINGS = (("sites",), ("datasets",), ("jobs",), ("job", "j1"), ("ledger", "j1"))


@pytest.mark.parametrize("command", [*LISTINGS, ("job", "j1", "--events")])
def test_every_listing_in_both_forms(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    code, asked = run(monkeypatch, *command)
    assert (code, asked[-1]) == (0, "closed")
    table = capsys.readouterr()
    assert "amc" in table.out
    assert table.err == ""
    assert run(monkeypatch, *command, "--json")[0] == 0
    assert "amc" in json.dumps(json.loads(capsys.readouterr().out))


def test_tables_hide_and_cut_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "datasets")
    (head, row) = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "site", "kind", "shape", "size", "owner", "tags", "id"]
    for word in ("run [1]", "array", "500", "2 MB", "ann", "a=b, system=adk", "d" * 12):
        assert word in row
    run(monkeypatch, "sites")
    here, away = capsys.readouterr().out.splitlines()[1:]
    assert "uva" in here
    assert "here" in here
    assert "away" in away
    assert "steward" in away
    assert "http://amc.test" in away


def test_looking_for_datasets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, asked = run(monkeypatch, "datasets", "--tag", "system=adk", "-t", "x=a=b", "--site", "amc")
    assert asked[0] == {
        "tags": {"system": "adk", "x": "a=b"},
        "text": None,
        "owner": None,
        "site": "amc",
    }
    capsys.readouterr()
    assert run(monkeypatch, "datasets", "--text", "nothing")[0] == 0
    assert "no datasets" in capsys.readouterr().out


def test_registering(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, asked = run(monkeypatch, "register", "x.h5", "--name", "run1", "-t", "a=b")
    assert code == 0
    assert asked[0] == (
        "x.h5",
        {"name": "run1", "tags": {"a": "b"}, "variable": None, "site": None},
    )
    assert capsys.readouterr().out == f"amc/run [1]  {'d' * 32}\n"


def test_registering_a_listing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, asked = run(monkeypatch, "register", "c.yaml", "--listing", "--site", "amc", "-t", "a=b")
    assert code == 0
    assert asked[0] == ("c.yaml", {"site": "amc", "tags": {"a": "b"}})
    assert "run [1]" in capsys.readouterr().out
    assert run(monkeypatch, "register", "c.yaml", "--listing", "--json")[0] == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "run [1]"
    assert run(monkeypatch, "register", "c.yaml", "--listing", "--name", "x")[0] == 2


def test_listing_as_stac(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Session, "datasets", lambda *_, **__: Listing([DATASET], Snapshot()))
    assert run(monkeypatch, "datasets", "--stac")[0] == 0
    assert json.loads(capsys.readouterr().out)["features"][0]["id"] == DATASET.id


def test_cancelling(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "job", "j1", "--cancel")[1] == ["cancel", "closed"]
    assert run(monkeypatch, "job", "j1")[1] == ["closed"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnknownJob("j9"), 1),
        (DataflowError("something"), 1),
        (ConfigError("no such key", "sites.yaml", "site", 3), 2),
        (SiteUnreachable("vu", "no route"), 3),
        (SiteRefused("vu", "no token"), 4),
        (PolicyError("agreement A7 says no"), 4),
    ],
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: DataflowError,
    code: int,
) -> None:
    assert run(monkeypatch, "jobs", error=error)[0] == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"{error.kind}: {error}\n"
    assert "Traceback" not in said.err


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(UnknownJob("j9"))
    monkeypatch.setattr(command_line, "session", lambda: session)
    with pytest.raises(UnknownJob):
        command_line.main(["--debug", "jobs"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["job"],
        ["jobs", "--nonsense"],
        ["datasets", "--tag", "noequals"],
        ["agent"],
        ["agent", "--config", "x.yaml", "--port", "99999"],
    ],
)
def test_wrong_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert run(monkeypatch, *arguments)[0] == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_certificate_of_an_agent_is_made_once_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "site.yaml"
    file.write_text("site: {name: a}\nlisten: {address: 'h:1', certificate: own}\nstate: s\n")
    command = ("agent", "--config", str(file), "--certificate")
    assert run(monkeypatch, *command)[0] == 0
    shown = capsys.readouterr().out
    path, digest = shown.splitlines()
    assert path == str(tmp_path / "s" / "certificate.pem")
    assert re.fullmatch("SHA-256 ([0-9A-F]{2}:){31}[0-9A-F]{2}", digest)
    assert run(monkeypatch, *command)[0] == 0
    assert capsys.readouterr().out == shown

    file.write_text("site: {name: a}\nlisten: 'h:1'\n")
    assert run(monkeypatch, *command)[0] == 2
    assert "certificate: own" in capsys.readouterr().err


def test_an_agent_without_a_file_or_a_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "agent", "--config", str(tmp_path / "none.yaml"))[0] == 2
    assert "there is no such file" in capsys.readouterr().err
    file = tmp_path / "visitor.yaml"
    file.write_text("sites: [{name: vu, address: 'http://127.0.0.1:1'}]\n")
    assert run(monkeypatch, "agent", "--config", str(file))[0] == 2
    assert "none to serve" in capsys.readouterr().err


# --- as a process ---------------------------------------------------------------------------------


def process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "dataflow", *arguments]
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, **options)


def test_help_names_every_command() -> None:
    done = process("--help")
    assert done.returncode == 0
    commands = ("sites", "datasets", "register", "jobs", "job", "ledger", "agent", "doctor")
    for word in (*commands, "--sites", "--debug", "--install-completion", "Exit codes"):
        assert word in done.stdout
    assert process().returncode in (0, 2)


def test_a_shell_can_complete_names_of_commands() -> None:
    """As the function does that ``dataflow --show-completion bash`` prints."""
    asked = {"COMP_WORDS": "dataflow da", "COMP_CWORD": "1", "_DATAFLOW_COMPLETE": "complete_bash"}
    command = Path(sys.executable).with_name("dataflow")
    done = subprocess.run(
        [command], capture_output=True, text=True, env={**os.environ, **asked}, check=True
    )
    assert done.stdout.split() == ["datasets"]


def test_version() -> None:
    done = process("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "dataflow")


def test_help_is_quick() -> None:
    """Half a second, of a processor: by the clock it is as quick only on an idle machine."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "dataflow", "--help"], capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.5


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys\nfrom dataflow.cli.app import main\n"
        "try: main(['--help'])\nexcept SystemExit: print('LOADED', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    loaded = set(done.stdout.rpartition("LOADED")[2].split())
    heavy = "dask distributed xarray zarr numpy pandas pydantic fastapi uvicorn httpx2 obstore"
    assert not loaded & set(heavy.split())


def test_a_reader_that_has_enough() -> None:
    command = f"{sys.executable} -m dataflow --help | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert "Traceback" not in done.stderr


def test_audit_verify(tmp_path: Path) -> None:
    from dataflow.participant.audit import Audit

    path = tmp_path / "state" / "audit.jsonl"
    path.parent.mkdir()
    Audit(path, lambda: 1.0).write(what="read")
    site_file = tmp_path / "site.yaml"
    site_file.write_text("site: {name: vu}\nstate: ./state\n")
    program = [sys.executable, "-m", "dataflow", "audit", "verify"]
    for where in (["--config", str(site_file)], [str(path)]):
        done = subprocess.run([*program, *where], capture_output=True, text=True, check=True)
        assert "1 entries hold; the last is" in done.stdout
    said = subprocess.run([*program, "--json", str(path)], capture_output=True, text=True)
    assert json.loads(said.stdout)["holds"] is True
    path.write_text(path.read_text().replace("read", "none"))
    said = subprocess.run([*program, "--json", str(path)], capture_output=True, text=True)
    assert (said.returncode, json.loads(said.stdout)["holds"]) == (1, False)
    done = subprocess.run([*program, str(path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "broken at line 1: it was changed" in done.stdout
    assert subprocess.run(program, capture_output=True).returncode == 2
