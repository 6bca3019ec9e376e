"""``dataflow demo``: found in a checkout and in a wheel, and honest where it cannot run."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from dataflow.cli import demo
from dataflow.cli.app import main
from dataflow.errors import ConfigError

ROOT = Path(__file__).parents[2]


def test_a_wheel_has_all_that_the_demonstration_imports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    inside = {target: (ROOT / source) for source, target in included.items()}
    assert {Path(target).parent for target in inside} == {Path("dataflow_examples")}
    there = {path.stem for path in inside.values()}
    assert all(path.is_file() for path in inside.values())
    for path in inside.values():
        names = {
            alias.name if isinstance(node, ast.Import) else str(node.module)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        beside = {other.stem for other in path.parent.glob("*.py")}
        assert names & beside <= there


def test_it_is_found_where_it_lies(tmp_path: Path) -> None:
    assert demo.program() == ROOT / "examples" / "demo.py"
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(ConfigError, match="What you can do"):
        demo.program((tmp_path / "none", inside))
    for name in ("demo.py", "three_sites.py"):
        (inside / name).touch()
    assert demo.program((tmp_path / "none", inside)) == inside / "demo.py"


def test_what_is_not_installed_is_said_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(demo.NEEDS, "there_is_no_such_module", "demo")
    with pytest.raises(SystemExit) as ended:
        main(["demo"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "there_is_no_such_module" in said
    assert "pip install 'jupyter-dataflow[all,demo]'" in said


def test_its_own_exit_code_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "missing", dict)
    (tmp_path / "three_sites.py").touch()
    program = (
        "import sys; sys.exit(5 if sys.argv[1:] == ['--out', 'x', '--megabits', '7.0'] else 6)"
    )
    (tmp_path / "demo.py").write_text(program)
    file = demo.program((tmp_path,))
    monkeypatch.setattr(demo, "program", lambda: file)
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--out", "x", "--megabits", "7"])
    assert ended.value.code == 5
