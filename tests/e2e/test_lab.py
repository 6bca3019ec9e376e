"""A person in JupyterLab: looks into a plan, drags a step, pins it, starts a job, goes away, comes back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dataflow.testing.browser import browser

NAME = "00_tutorial"
NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebooks" / f"{NAME}.ipynb"
#: Milliseconds that anything on the page may take on a busy machine.
PATIENCE = 180_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not os.environ.get("DATAFLOW_E2E"), reason="DATAFLOW_E2E is not set: a story of minutes"
    ),
]


class Lab:
    """One page of JupyterLab with the notebook; cells are known by what stands in them."""

    def __init__(self, page: Any, pictures: Path) -> None:
        self.page, self._pictures = page, pictures
        page.set_default_timeout(PATIENCE)

    def open(self, url: str) -> None:
        self.page.goto(f"{url}lab/tree/notebooks/{NAME}.ipynb?reset")
        self.page.wait_for_function(
            "() => window.jupyterapp?.shell?.currentWidget?.content?.widgets?.length > 5"
            " && window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'"
        )

    def run(self, words: str) -> None:
        """Execute the cell with these words, to its end."""
        outcome = self.page.evaluate(
            """async (words) => {
              const app = window.jupyterapp, panel = app.shell.currentWidget, cells = panel.content;
              const index = cells.widgets.findIndex((c) => c.model.type === "code" && c.model.sharedModel.source.includes(words));
              cells.activeCellIndex = index;
              cells.deselectAll();
              await app.commands.execute("notebook:run-cell");
              const outputs = cells.widgets[index].model.outputs.toJSON();
              const error = outputs.find((o) => o.output_type === "error");
              return error ? `${error.ename}: ${error.evalue}` : "";
            }""",
            words,
        )
        assert not outcome, outcome

    def output(self, words: str) -> Any:
        """The output of the cell with these words."""
        return (
            self.page.locator(".jp-CodeCell", has_text=words).locator(".jp-OutputArea-output").last
        )

    def save(self) -> None:
        self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")

    def restart(self) -> None:
        self.page.evaluate(
            """async () => {
              const context = window.jupyterapp.shell.currentWidget.sessionContext;
              await context.session.kernel.restart();
            }"""
        )

    def theme(self, name: str) -> None:
        self.page.evaluate(
            "(theme) => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", name
        )
        light = str("Light" in name).lower()
        self.page.wait_for_selector(f"body[data-jp-theme-light='{light}']", state="attached")

    def picture(self, name: str, of: Any) -> None:
        of.scroll_into_view_if_needed()
        of.screenshot(path=self._pictures / f"{name}.png")


@contextmanager
def opened(pictures: Path) -> Iterator[tuple[Lab, list[str]]]:
    """A page, and the addresses that it has asked for outside of this machine."""
    with browser() as chromium:
        context = chromium.new_context(viewport={"width": 1400, "height": 1000})
        page = context.new_page()
        outside: list[str] = []
        local = ("http://127.0.0.1", "http://localhost", "data:", "blob:", "ws://127.0.0.1")
        page.on("request", lambda r: None if r.url.startswith(local) else outside.append(r.url))
        try:
            yield Lab(page, pictures), outside
        except BaseException:
            page.screenshot(path=pictures / "failed.png")
            raise
        finally:
            context.close()


def with_parameters(target: Path, parameters: dict[str, object]) -> None:
    """The notebook with other parameters, as papermill writes it."""
    notebook = json.loads(NOTEBOOK.read_text())
    place = next(
        n for n, c in enumerate(notebook["cells"]) if "parameters" in c["metadata"].get("tags", ())
    )
    source = "\n".join(f"{name} = {str(value)!r}" for name, value in parameters.items())
    cell = {
        "cell_type": "code",
        "execution_count": None,
        "id": "injected",
        "metadata": {"tags": ["injected-parameters"]},
        "outputs": [],
        "source": "# by the test\n" + source,
    }
    notebook["cells"].insert(place + 1, cell)
    target.write_text(json.dumps(notebook))


def connect(lab: Lab) -> None:
    for words in (
        "# by the test",
        "from three_sites import",
    ):
        lab.run(words)


def test_look_drag_pin_start_go_and_come_back(
    lab: tuple[str, Path], federation: Any, tmp_path: Path
) -> None:
    url, root = lab
    gate = tmp_path / "gate"
    pictures = Path(os.environ.get("E2E_PICTURES", tmp_path))
    pictures.mkdir(parents=True, exist_ok=True)
    target = root / "notebooks" / f"{NAME}.ipynb"
    sites = {"sites": federation.sites_file, "folder": federation.folder, "gate": gate}
    with_parameters(target, sites)
    with opened(pictures) as (lab_, outside):
        page = lab_.page
        lab_.open(url)
        connect(lab_)
        for words in ("session.register(", "flow.view(session)", "def widest(", "flow.view(plan)"):
            lab_.run(words)
        around = lab_.output("flow.view(session)").locator(".flow-view")
        around.get_by_text("run2").first.wait_for()
        lab_.picture("session-light", around)
        lab_.theme("JupyterLab Dark")
        lab_.picture("session-dark", around)
        lab_.theme("JupyterLab Light")
        view = lab_.output("flow.view(plan)").locator(".flow-view")
        view.locator(".box.step").first.wait_for()

        # look into a step: candidates, prices, what would change the choice
        step = view.locator(".box.step[data-label='widest']")
        step.click()
        view.locator(".why li").first.wait_for()
        assert view.locator("tr[data-site]").count() == 3
        lab_.picture("plan-light", view)

        # drag it to another site: the price is there while it is dragged
        chosen = view.locator(".panel h4").inner_text().partition(" at ")[2]
        other = next(site for site in ("groningen", "delft") if site != chosen)
        start = step.bounding_box()
        there = view.locator(f".band[data-site='{other}'] .ground").bounding_box()
        page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
        page.mouse.down()
        page.mouse.move(there["x"] + there["width"] / 2, there["y"] + there["height"] / 2, steps=8)
        assert view.locator(".tip-of-drag").inner_text()[: len(other) + 3] in (
            f"{other}: +",
            f"{other}: −",
        )
        lab_.picture("drag-light", view)
        page.mouse.up()
        view.locator("tr.tried .pin").click()
        view.locator(".compare summary", has_text="compared with plan 1").wait_for()
        label = view.locator(".box.step[data-label='widest']").get_attribute("aria-label")
        assert label.startswith(f"widest at {other}")
        lab_.theme("JupyterLab Dark")
        lab_.picture("pinned-dark", view)

        # start it; the last step waits for the gate
        lab_.run("session.submit(view.plan")
        live = lab_.output("session.submit(view.plan").locator(".flow-view")
        waiting = live.locator(".box[data-label='widest'][data-state='r']")
        waiting.wait_for()
        lab_.picture("running-dark", live)
        lab_.save()

        # restart the kernel in the middle, reload the page
        lab_.restart()
        lab_.open(url)
        connect(lab_)
        lab_.run("session.jobs(tags=")
        again = lab_.output("session.jobs(tags=").locator(".flow-view")
        again.locator(".box[data-label='widest'][data-state='r']").wait_for()
        assert again.locator(".status").inner_text() == "running"

        # a page that is loaded again finds the view by itself
        lab_.save()
        lab_.open(url)
        again = lab_.output("session.jobs(tags=").locator(".flow-view")
        again.locator(".box[data-label='widest'][data-state='r']").wait_for()

        gate.touch()
        again.locator(".status[data-status='done']").wait_for()
        assert again.locator(".box[data-state='w']").count() == 0
        lab_.picture("done-dark", again)
        lab_.theme("JupyterLab Light")
        lab_.picture("done-light", again)
        lab_.run("job.result(120)")
        lab_.run("session.verify(")
        lab_.run("adk.reference()")
        lab_.run("session.close()")
        lab_.save()
        page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")
    assert not outside, "nothing was fetched"
    kept = json.loads(target.read_text())
    for cell in kept["cells"]:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "application/vnd.jupyter.widget-view+json" in data:
                assert "<svg" in "".join(data["text/html"]), "others see a picture"
    assert target.stat().st_size < 200_000
    assert "widgets" not in kept["metadata"], "the state of the views is not kept"
