"""Pieces of HTML for notebooks: escaping, tables, things to unfold.

Knows no domain and needs no library, script or network. Colours come from the page (``currentColor``)
or follow its light and dark theme.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: One class for everything; the style is scoped to it, so that the page around stays as it is.
CLASS = "flow-html"

#: Wherever the page may be dark: by the system's wish, or by JupyterLab's or VS Code's theme.
DARK_THEMES = (
    "[data-jp-theme-light='false']",
    "[data-vscode-theme-kind='vscode-dark']",
    "[data-theme='dark']",
)

_STYLE = f"""
.{CLASS} {{font: 13px/1.45 var(--jp-content-font-family, system-ui, sans-serif);
  color: var(--jp-content-font-color1, inherit)}}
.{CLASS} table {{border-collapse: collapse; margin: 4px 0 8px; background: none}}
.{CLASS} td, .{CLASS} th {{
  text-align: left; vertical-align: top; padding: 2px 14px 2px 0; border: 0;
  border-bottom: 1px solid color-mix(in srgb, currentColor 18%, transparent); background: none}}
.{CLASS} th {{font-weight: 600; opacity: .8}}
.{CLASS} td.number, .{CLASS} th.number {{text-align: right; font-variant-numeric: tabular-nums}}
.{CLASS} tr.faint td {{opacity: .72}}
.{CLASS} summary {{cursor: pointer}}
.{CLASS} details > *:not(summary) {{margin-left: 1em}}
""".strip()


@dataclass(frozen=True, slots=True)
class Markup:
    """Text that is HTML already and is not escaped again."""

    text: str

    def _repr_html_(self) -> str:
        return self.text


def escape(value: object) -> str:
    """HTML of a value: its text with ``& < > " '`` made harmless; :class:`Markup` as it is."""
    if isinstance(value, Markup):
        return value.text
    return html.escape(str(value), quote=True)


def table(
    header: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    numbers: Iterable[int] = (),
    faint: Iterable[int] = (),
    caption: str = "",
) -> Markup:
    """A table; ``numbers`` are columns set flush right, ``faint`` are rows shown paler."""
    right, pale = frozenset(numbers), frozenset(faint)

    def cells(tag: str, values: Sequence[object]) -> str:
        return "".join(
            f'<{tag} class="number">{escape(value)}</{tag}>'
            if column in right
            else f"<{tag}>{escape(value)}</{tag}>"
            for column, value in enumerate(values)
        )

    body = "".join(
        f'<tr class="faint">{cells("td", row)}</tr>'
        if number in pale
        else f"<tr>{cells('td', row)}</tr>"
        for number, row in enumerate(rows)
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return Markup(
        f"<table>{title}<thead><tr>{cells('th', header)}</tr></thead><tbody>{body}</tbody></table>"
    )


def disclosure(summary: object, *content: object, opened: bool = False) -> Markup:
    """A line that unfolds into ``content``."""
    state = " open" if opened else ""
    inside = "".join(map(escape, content))
    return Markup(f"<details{state}><summary>{escape(summary)}</summary>{inside}</details>")


def facts(pairs: Iterable[tuple[object, object]]) -> Markup:
    """Names and values, one pair on a line; those without a value are left out."""
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
        for name, value in pairs
        if value not in ("", None)
    )
    return Markup(f"<table>{rows}</table>")


def preformatted(text: str) -> Markup:
    """Text with its own lines and blanks."""
    return Markup(f"<pre>{escape(text)}</pre>")


def listing(items: Iterable[object]) -> Markup:
    """A list with bullets; nothing at all if there are no items."""
    inside = "".join(f"<li>{escape(item)}</li>" for item in items)
    return Markup(f"<ul>{inside}</ul>" if inside else "")


def block(*content: object) -> Markup:
    """The whole of one output: content with the style that it needs."""
    inside = "".join(map(escape, content))
    return Markup(f'<div class="{CLASS}"><style>{_STYLE}</style>{inside}</div>')


def themed(selector: str, light: str, dark: str) -> str:
    """CSS that declares ``light`` for a selector, and ``dark`` where the page is dark.

    A theme that the page states outright wins over what the system prefers.
    """
    stated = ", ".join(f"{theme} {selector}" for theme in DARK_THEMES)
    bright = f"[data-jp-theme-light='true'] {selector}"
    return (
        f"{selector} {{{light}}}\n"
        f"@media (prefers-color-scheme: dark) {{{selector} {{{dark}}}}}\n"
        f"{bright} {{{light}}}\n"
        f"{stated} {{{dark}}}"
    )


def plain_table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """The same for terminals: columns as wide as their longest cell, no trailing blanks."""
    lines = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
