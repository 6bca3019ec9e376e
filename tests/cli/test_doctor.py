"""``dataflow doctor``: what is printed, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataflow.cli import app as command_line
from dataflow.cli.doctor import lines
from dataflow.session.doctor.checks import Check


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        command_line.main(["doctor", *arguments])
    return int(left.value.code or 0)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "site.yaml"
    file.write_text(
        "site: {name: lab, memory: 10 MB}\nstate: ./own\nstores: [{name: results, url: ./results}]\n"
    )
    return file


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    file = tmp_path / "sites.yaml"
    file.write_text("sites: [{name: café, address: 'http://127.0.0.1:9'}]\n")
    return file


def test_all_is_well(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--config", str(good)) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "\nstore results\n  ok    directory" in said.out
    assert "\x1b" not in said.out
    assert " 0 failed" in said.out.splitlines()[-1]


def test_something_is_not(bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--sites", str(bad)) == 1
    out = capsys.readouterr().out
    assert out.isascii()
    at = next(i for i, line in enumerate(out.splitlines()) if line.startswith("  FAIL  "))
    assert out.splitlines()[at + 1].startswith(" " * 10)


def test_the_file_said_before_the_command(bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command_line.main(["--sites", str(bad), "doctor"])
    assert left.value.code == 1
    assert str(bad) in capsys.readouterr().out


def test_one_document(good: Path, bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-c", str(good), "--json") == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    assert run("-s", str(bad), "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    fields = {"area", "what", "status", "said", "advice", "seconds"}
    assert all(set(check) == fields for check in document["checks"])


def test_two_files_are_one_too_many(good: Path) -> None:
    assert run("--config", str(good), "--sites", str(good)) == 2


def test_several_lines_stay_together() -> None:
    check = Check(area="a", what="w", status="failed", said="one → two\nthree [x]", advice="do\nit")
    text = [line.plain for line in lines([check])]
    indent = " " * 10
    assert text == [
        "a",
        "  FAIL  w  one -> two",
        f"{indent}three [x]",
        f"{indent}do",
        f"{indent}it",
        "1 check, 1 failed, 0 to look at",
    ]
