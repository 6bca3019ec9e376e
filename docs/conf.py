"""How the documentation is built. The module list is read from the code, without importing it."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent

project = "dataflow"
author = "The dataflow developers"
copyright = "The dataflow developers"
release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

extensions = ["myst_nb"]
exclude_patterns = ["_build"]
suppress_warnings: list[str] = []

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"

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


(DOCS / "_build").mkdir(exist_ok=True)
(DOCS / "_build" / "modules.md").write_text(module_tables())
