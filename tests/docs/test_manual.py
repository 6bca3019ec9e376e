"""What the manual tells people to type is typed here."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

import dataflow as flow
from dataflow.config import read_site_file
from dataflow.testing.federation import Federation, SiteSettings

_SPEC = importlib.util.spec_from_file_location(
    "manual_blocks", Path(__file__).with_name("blocks.py")
)
assert _SPEC is not None
assert _SPEC.loader is not None
manual = importlib.util.module_from_spec(_SPEC)
sys.modules.setdefault("manual_blocks", manual)
_SPEC.loader.exec_module(manual)

BLOCKS = [block for page in manual.PAGES for block in manual.blocks_of(page)]
KINDS = {"session", "file", "part", "shell", "bed", "make", "elsewhere", "shown"}
COMMANDS = {"console", "python", "bash", "sh", "shell"}


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_says_how_it_is_run(block: Any) -> None:
    assert block.kind in KINDS, f"{block}: put <!-- run: … --> above it; tests/docs/blocks.py"
    if block.language in COMMANDS:
        assert block.kind not in ("shown", "file", "part"), f"{block}: commands are run"
    if block.kind == "elsewhere":
        assert (manual.ROOT / block.rest).is_file()


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    sites = {name: SiteSettings(memory="1 GB") for name in ("amsterdam", "delft", "groningen")}
    folder = tmp_path_factory.mktemp("manual")
    with Federation(folder, sites, users={"anna": "user"}, ready_within=120) as found:
        (found.data("amsterdam") / "simulations").mkdir(parents=True)
        for number, name in enumerate(("run1", "run2")):
            values = np.random.default_rng(number).random((20, 5, 3))
            array = xr.DataArray(values, dims=("frame", "atom", "axis"), name="positions")
            for place in ("", "simulations/"):
                array.to_netcdf(found.data("amsterdam") / f"{place}{name}.h5", engine="h5netcdf")
        yield found


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """A text as somebody would type it whose data lie elsewhere; in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    data = tmp_path / "data"
    (data / "simulations").mkdir(parents=True)
    return lambda text: (
        re.sub(r"workers: \d+", "workers: 1", text)
        .replace("/data/", f"{data}/")
        .replace(":8800", ":0")
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", ["README.md", "docs/using.md", "docs/notebook.md", "docs/coming-from.md"]
)
def test_python(
    page: str, federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sites.yaml").write_text(federation.sites_file.read_text())
    monkeypatch.setenv("DATAFLOW_STATE_DIR", str(tmp_path / "state"))
    sessions: list[flow.Session] = []
    connect = flow.connect

    def kept(*arguments: Any, **named: Any) -> flow.Session:
        session = connect(*arguments, **named)
        sessions.append(session)
        if arguments:
            session.register(
                str(federation.data("amsterdam") / "run2.h5"), name="run2", site="amsterdam"
            )
        return session

    monkeypatch.setattr(flow, "connect", kept)
    names: dict[str, Any] = {"flow": flow, "__name__": "manual"}
    try:
        for block in manual.blocks_of(page):
            if block.kind == "session":
                text = block.text.replace("/data/", f"{federation.data('amsterdam')}/")
                code = "\n" * block.line + text
                exec(compile(code, str(manual.ROOT / page), "exec"), names)
        names["job"].wait(60)
        assert names["job"].status == "done"
    finally:
        for session in sessions:
            session.close()


@pytest.mark.parametrize("page", manual.PAGES)
def test_files_and_commands(
    page: str, typed: Callable[[str], str], federation: Federation, tmp_path: Path
) -> None:
    for block in manual.blocks_of(page):
        if block.kind == "file":
            file = Path(block.rest)
            file.write_text(typed(block.text))
            if file.name in ("site.yaml", "sites.yaml", "surf.yaml"):
                _reads(file)
            else:
                assert yaml.safe_load(block.text)
        elif block.kind == "part":
            _reads(_completed(block, tmp_path))
        elif block.kind == "shell":
            if "sites.yaml" in block.text:
                Path("sites.yaml").write_text(federation.sites_file.read_text())
            until = block.rest.removeprefix("until ")
            *before, last = block.commands
            for command in before:
                _run(command, "")
            try:
                _run(last, until)
            except AssertionError:  # an agent that a busy machine kept from answering in time
                _run(last, until)
        elif block.kind == "make":
            made = (manual.ROOT / "Makefile").read_text()
            for command in block.commands:
                target = command.split()[1]
                assert re.search(rf"(?m)^{target}:", made), f"{block}: make has no {target}"


def _completed(block: Any, folder: Path) -> Path:
    """A section as a whole site file."""
    given = yaml.safe_load(textwrap.dedent(block.text))
    document: dict[str, Any] = {"site": {"name": "here"}}
    key = block.rest.removeprefix("of ")
    if key == "sites":
        document["sites"] = [{"name": "hpc", "address": "ssh://hpc-login", **given}]
    elif key == "file":
        document |= given
    else:
        document[key] = given[key]
    path = folder / "part.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def _reads(file: Path) -> None:
    """The site file is right, all but for credentials, which somebody else has."""
    found = read_site_file(file)
    assert found.sites or found.peers or found.site


def _run(command: str, until: str) -> None:
    process = subprocess.Popen(
        ["bash", "-e", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    if not until:
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, f"{command}: {said}"
        return
    said = ""
    while until not in said:
        line = process.stdout.readline()
        assert line, f"{command} ended: {said}"
        said += line
    process.terminate()
    try:
        process.communicate(timeout=20)
    except (
        subprocess.TimeoutExpired
    ):  # its workers are still starting; how it ends is tested elsewhere
        process.kill()
        process.communicate()
