"""A browser without a screen, and a page that shows one widget without a notebook around it.

The widget's own JavaScript draws, and its own Python answers; only the road between them is shorter
than in JupyterLab.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from dataflow.widgets.shown import Shown

#: Nothing is fetched, updated or reported behind our back.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

#: Beside the view: the part of a Jupyter widget's model that views use.
_PAGE = """
<!doctype html><meta charset="utf-8"><title>view</title>
<body style="margin:0;background:var(--jp-layout-color0);font-family:sans-serif"><div id="view"></div>
"""
_MODEL = """
async ([code, css, text]) => {
  const traits = JSON.parse(text);
  const style = document.createElement("style"); style.textContent = css; document.head.append(style);
  const heard = new Map();
  const all = (name) => heard.get(name) || heard.set(name, new Set()).get(name);
  const model = {
    get: (name) => traits[name],
    on: (name, act) => all(name).add(act),
    off: (name, act) => all(name).delete(act),
    send: async (command) => {
      const {answer, changed} = await window.command(command);
      window.changed(changed);
      for (const act of all("msg:custom")) act(answer);
    },
  };
  window.changed = (changed) => {
    for (const [name, value] of Object.entries(changed)) {
      traits[name] = value;
      for (const act of all(`change:${name}`)) act();
    }
  };
  const url = URL.createObjectURL(new Blob([code], {type: "text/javascript"}));
  const view = (await import(url)).default;
  view.render({model, el: document.getElementById("view")});
}
"""
#: What JupyterLab's themes say, as far as views look at it.
_THEMES = {
    "light": "--jp-layout-color0:#fff;--jp-layout-color1:#fff;--jp-ui-font-color0:rgba(0,0,0,1)",
    "dark": "--jp-layout-color0:#111;--jp-layout-color1:#212121;--jp-ui-font-color0:#fff",
}


def why_not() -> str:
    """Why no browser can be had here; empty if one can."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed"
    return "" if _chromium() else "there is no chromium"


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium of this machine, with an empty profile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=_chromium(), args=list(FLAGS))
        try:
            yield started
        finally:
            started.close()


def show(page: Page, shown: Shown, *, theme: str = "light") -> None:
    """Put a widget on an empty page; its commands are done by the widget in this process."""
    known = {name: getattr(shown, name) for name in ("facts", "progress", "kind")}

    def command(content: dict[str, Any]) -> dict[str, Any]:
        answer = shown.command(content)
        return {"answer": answer, "changed": _changed(shown, known)}

    page.set_content(_PAGE)
    page.expose_function("command", command)
    page.evaluate(
        "([light, css]) => { document.body.dataset.jpThemeLight = light; document.body.style.cssText += css }",
        [str(theme == "light").lower(), _THEMES[theme]],
    )
    code, css = shown._esm, shown._css
    # As text, as a kernel sends it: playwright takes longer over values than a page over all else.
    page.evaluate(_MODEL, [code, css, json.dumps(known)])
    page.known = known  # type: ignore[attr-defined]


def push(page: Page, shown: Shown) -> None:
    """Bring what has changed in the widget to its page."""
    page.evaluate("changed => window.changed(changed)", _changed(shown, page.known))  # type: ignore[attr-defined]


def _changed(shown: Shown, known: dict[str, Any]) -> dict[str, Any]:
    now = {name: getattr(shown, name) for name in known}
    changed = {name: value for name, value in now.items() if value is not known[name]}
    known.update(changed)
    return changed


def _chromium() -> str:
    named = os.environ.get("CHROMIUM", "")
    if named and Path(named).exists():
        return named
    return shutil.which("chromium") or shutil.which("chromium-browser") or ""
