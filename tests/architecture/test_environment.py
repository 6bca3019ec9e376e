"""``environment.yml`` and ``pyproject.toml`` ask for the same things."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]

#: Name on PyPI → name on conda-forge, where they differ.
CONDA_NAMES = {
    "dask": "dask-core",
    "duckdb": "python-duckdb",
    "matplotlib": "matplotlib-base",
    "xxhash": "python-xxhash",
}

#: Needed to make an environment, and nowhere else.
TOOLS = {"pip"}


def split(requirement: str) -> tuple[str, str]:
    """``"PyYAML>=6.0"`` → ``("pyyaml", "6.0")``; only floors are allowed.

    Extras, as in ``psycopg[binary]``, are left out: packages of conda have none.
    """
    match = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[a-z]+\])?(?:>=([0-9.]+))?", requirement)
    assert match, f"{requirement!r}: a name and a floor are allowed, nothing else"
    return re.sub(r"[-_.]+", "-", match[1]).lower(), match[2] or ""


def asked_by_pyproject() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lists = [project["dependencies"], *(extras[name] for name in extras if name != "all")]
    asked = dict(split(requirement) for lines in lists for requirement in lines)
    return asked | {"python": project["requires-python"].removeprefix(">=")}


def asked_by_environment() -> dict[str, str]:
    lines = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    only_pip = [name for line in lines if isinstance(line, dict) for name in line["pip"]]
    conda = [line for line in lines if isinstance(line, str)]
    assert len(conda) == len({split(line)[0] for line in conda}), "a name stands there twice"
    pypi_names = {conda: pypi for pypi, conda in CONDA_NAMES.items()}
    asked = dict(split(line) for line in conda)
    found = {pypi_names.get(name, name): floor for name, floor in asked.items()}
    return {name: floor for name, floor in found.items() if name not in TOOLS} | dict(
        split(line) for line in only_pip
    )


def test_same_names_and_floors() -> None:
    assert asked_by_environment() == asked_by_pyproject()


def test_all_means_every_extra_but_the_demo() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    (line,) = extras["all"]
    names = line.removeprefix("jupyter-dataflow[").removesuffix("]").split(",")
    assert sorted(names) == sorted(set(extras) - {"all", "demo"})


def test_every_extra_has_its_place_in_the_environment() -> None:
    text = (ROOT / "environment.yml").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    missing = [name for name in extras if name != "all" and f"  # {name}\n" not in text]
    assert not missing
