"""The example notebooks as a user runs them: by papermill, with parameters, each in its own kernel.

Every notebook ends with its own check against MDAnalysis or pandas; a failed check is a failed cell.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("MDAnalysisTests", reason="the extra 'demo' is not installed")
pytest.importorskip("papermill", reason="the extra 'papermill' is not installed")

from dataflow.testing import browser

NOTEBOOKS = Path(__file__).parents[2] / "examples" / "notebooks"
PARAMETERS = {
    "00_tutorial": {"megabits": 200},
    "01_first_steps": {"start_frame": 10, "megabits": 200},
    "02_two_datasets": {"start_frame": 3, "megabits": 50},
    "03_mixed_graph": {"most": 7, "compare_at": "groningen"},
    "04_two_universities": {"megabits": 200, "least": 7},
}
#: What the last cell says if all is well, and the sites of the play.
ENDS = {
    "04_two_universities": ("equal to pandas to the last digit", {"vu", "uva", "surf"}),
}
SIMULATIONS = ("equal to MDAnalysis", {"amsterdam", "delft", "groningen"})


def execute(name: str, folder: Path, parameters: dict[str, object]) -> dict[str, Any]:
    given = [word for pair in parameters.items() for word in ("-p", *map(str, pair))]
    target = folder / f"{name}.ipynb"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "papermill", "--cwd", NOTEBOOKS, "--kernel", "python3"),
            *("--no-progress-bar", "--log-level", "ERROR", *given),
            *(NOTEBOOKS / f"{name}.ipynb", target),
        ],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    notebook: dict[str, Any] = json.loads(target.read_text())
    return notebook


def said(notebook: dict[str, Any]) -> str:
    """All text in the outputs."""
    texts = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            texts += output.get("text", ())
            texts += output.get("data", {}).get("text/plain", ())
    return "".join(texts)


def pictures_without_a_network(notebook: Path, page: Path) -> None:
    """What nbconvert makes of it shows its pictures, and asks nobody for anything."""
    from nbconvert import HTMLExporter

    # What nbconvert itself would fetch, whatever is in the notebook: for formulas, and for widgets.
    theirs = {"require_js_url": "", "jquery_url": "", "mathjax_url": "", "mermaid_js_url": ""}
    page.write_text(HTMLExporter(**theirs).from_filename(str(notebook))[0])
    reason = browser.why_not()
    if reason and os.environ.get("CI") != "true":
        return
    with browser.browser() as chromium:
        context = chromium.new_context(offline=True)
        shown = context.new_page()
        asked: list[str] = []
        wrong: list[str] = []
        shown.on("request", lambda request: asked.append(request.url))
        shown.on("pageerror", lambda error: wrong.append(str(error)))
        shown.goto(page.as_uri())
        drawn = shown.locator("svg[role=img]")
        labels = [one.get_attribute("aria-label") or "" for one in drawn.all()]
        boxes = [one.bounding_box() for one in drawn.all() if one.is_visible()]
        context.close()
    assert asked == [page.as_uri()]
    assert not wrong
    assert sum(label.startswith("Plan ") for label in labels) >= 2, labels
    assert len(boxes) >= 3
    assert all(box["width"] > 100 and box["height"] > 50 for box in boxes)


def test_every_notebook_is_tried() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(PARAMETERS)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_notebook(name: str, tmp_path: Path) -> None:
    if name == "04_two_universities":
        pytest.importorskip("duckdb", reason="the extra 'sql' is not installed")
    picture = tmp_path / "picture.png"
    folder = tmp_path / "sites"
    notebook = execute(name, tmp_path, {"folder": folder, "picture": picture, **PARAMETERS[name]})
    if name == "00_tutorial":
        pictures_without_a_network(tmp_path / f"{name}.ipynb", tmp_path / "page.html")
    true, sites = ENDS.get(name, SIMULATIONS)
    assert true in said(notebook)
    assert picture.stat().st_size > (3_000 if name == "00_tutorial" else 5_000)  # an SVG, and PNGs
    assert {path.name for path in folder.iterdir()} >= sites


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_notebook_has_parameters_and_explains_itself(name: str) -> None:
    notebook = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())
    tagged = [c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", ())]
    assert len(tagged) == 1
    assert all(word in "".join(tagged[0]["source"]) for word in PARAMETERS[name])
    text = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown"]
    assert text[0].startswith("# ")
    assert "**The question.**" in text[0]
    assert any("Is it true?" in part for part in text)
