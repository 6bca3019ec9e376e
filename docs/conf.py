"""How the documentation is built.

What can be told from the code is: the modules, the commands, the docstrings. The example notebooks
are pages, executed each time: three sites on this machine, real workers, no network.
"""

from __future__ import annotations

import ast
import os
import shutil
import tomllib
from pathlib import Path
from typing import Any

import typer

from dataflow.cli.app import app

DOCS = Path(__file__).parent
ROOT = DOCS.parent
BUILD = DOCS / "_build"

project = "dataflow"
author = "The dataflow developers"
copyright = "The dataflow developers"
release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build/html", "_build/jupyter_execute", "_build/*.md"]
suppress_warnings: list[str] = []

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring = False
napoleon_use_ivar = True  # attributes of records have their text in the class

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# "off" where the tests have executed them already, with papermill.
nb_execution_mode = os.environ.get("DATAFLOW_DOCS_NOTEBOOKS", "force")
nb_execution_timeout = 300
nb_execution_raise_on_error = True

html_theme = "furo"
html_title = f"dataflow {release}"
# Pages are read on clusters without internet too: nothing is fetched from elsewhere.
html_theme_options = {"top_of_page_buttons": []}


def first_line(path: Path) -> str:
    """First line of a module's docstring; empty if it has none."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return text.partition("\n")[0].rstrip(".")


def module_tables() -> str:
    """A table of modules for the package and each of its parts."""
    package = ROOT / "dataflow"
    folders = [package, *sorted(path.parent for path in package.glob("*/__init__.py"))]
    lines: list[str] = []
    for folder in folders:
        modules = [(path.stem, first_line(path)) for path in sorted(folder.glob("*.py"))]
        rows = [f"| `{name}` | {text} |" for name, text in modules if text]
        if rows:
            title = ".".join(folder.relative_to(ROOT).parts)
            lines += [f"## {title}", "", "| Module | What it is |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def command_texts(name: str, command: Any, parent: Any = None) -> list[str]:
    """A heading and the help text of a command and of those below it."""
    context = command.make_context(
        name, [], parent=parent, resilient_parsing=True, max_content_width=100
    )
    lines = [f"## `{context.command_path}`", "", "```text", command.get_help(context), "```", ""]
    for inner, below in getattr(command, "commands", {}).items():
        lines += command_texts(inner, below, context)
    return lines


def notebooks() -> None:
    """Copy the examples to where they become pages, with the modules that they import."""
    pages = BUILD / "notebooks"
    pages.mkdir(parents=True, exist_ok=True)
    for notebook in (ROOT / "examples" / "notebooks").glob("*.ipynb"):
        shutil.copy(notebook, pages)
    for module in (ROOT / "examples").glob("*.py"):
        shutil.copy(module, BUILD)


notebooks()
(BUILD / "modules.md").write_text(module_tables())
(BUILD / "commands.md").write_text(
    "\n".join(command_texts("dataflow", typer.main.get_command(app)))
)
# A site file of whoever builds this is none of the readers' business.
os.environ.pop("DATAFLOW_SITE_FILE", None)
