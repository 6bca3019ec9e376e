"""Shown: what all widgets have in common.

A widget holds facts and draws nothing itself: its picture is a function of ``facts`` (what changes
seldom) and ``progress`` (what changes often), both plain values that every page on the same kernel
gets. What a person does comes back as a command, ``{"do": name, …}``, and ends in new facts.

Beside the live view there is always the same as static HTML and as text, so that an executed
notebook, a page made of it and a site that shows notebooks have the picture too. A program that
executes notebooks gets only these: it would keep the widget's state, and a page made of that would
look for the widget on the internet.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import anywidget
import traitlets

from dataflow.errors import DataflowError
from dataflow.session.attaching import notebook_kernel

#: "1" or "0" in the environment: live views wherever one is shown, or nowhere.
SETTING = "DATAFLOW_LIVE_VIEWS"
_VIEW = "application/vnd.jupyter.widget-view+json"


@cache
def static(*names: str) -> str:
    """Files that are bundled with the package, one after the other."""
    folder = files("dataflow.widgets") / "static"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def is_live() -> bool:
    """Whether somebody looks: a page tells which of its cells it has executed, a program does not."""
    stated = os.environ.get(SETTING, "")
    if stated:
        return stated != "0"
    kernel = notebook_kernel()
    parent = kernel.get_parent() if kernel is not None else {}
    return bool((parent or {}).get("metadata", {}).get("cellId"))


class Shown(anywidget.AnyWidget):
    """A live view, with the same as HTML and as text.

    It is on the page's side only from the moment it is shown to somebody who looks.
    """

    facts = traitlets.Dict().tag(sync=True)
    progress = traitlets.Dict().tag(sync=True)
    kind = traitlets.Unicode("").tag(sync=True)

    def __init__(self, kind: str, **traits: Any) -> None:
        self._esm = static("common.js", f"{kind}.js")
        self._css = static("view.css")
        self._live = False
        self._commands: dict[str, Callable[..., Any]] = {}
        super().__init__(kind=kind, **traits)
        self.on_msg(self._told)

    def open(self) -> None:
        """Make it known to the page; does nothing before it is shown there."""
        if self._live:
            super().open()

    def text(self) -> str:
        """One line."""
        raise NotImplementedError

    def html(self) -> str:
        """The same picture at rest."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return self.html()

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle: dict[str, Any] = {"text/plain": self.text(), "text/html": self.html()}
        if is_live():
            self._live = True
            self.open()
            bundle[_VIEW] = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return bundle, {}

    def command(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Do what a person asked for; what there is to say to it.

        An error is an answer as well: it is shown where the person looks.
        """
        wanted = {name: value for name, value in command.items() if name not in ("do", "ask")}
        try:
            did = self._commands[str(command.get("do"))]
            answer = did(**wanted) or {}
        except DataflowError as error:
            answer = {"error": str(error)}
        except Exception as error:  # a page that waits for nothing helps nobody
            answer = {"error": f"{type(error).__name__}: {error}"}
        return {"ask": command.get("ask"), **answer}

    def _told(self, _: Any, content: Any, __: Any) -> None:
        if isinstance(content, dict) and "do" in content:
            self.send(self.command(content))
