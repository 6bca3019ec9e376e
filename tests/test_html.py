"""Pieces of HTML."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from dataflow._html import block, disclosure, escape, listing, plain_table, table, themed


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["td"]:
            self.texts.append(data)


@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), max_size=5))
def test_whatever_is_written_comes_back_as_text(rows: list[tuple[str, str]]) -> None:
    reader = Reader()
    reader.feed(block(disclosure("more", table(("a", "b"), rows, numbers=[1]))).text)
    reader.close()
    assert not reader.open
    assert "".join(reader.texts) == "".join(a + b for a, b in rows).replace("\r\n", "\r\n")


def test_markup_is_not_escaped_twice() -> None:
    assert escape("<b>") == "&lt;b&gt;"
    assert escape(table(("x",), [("<b>",)])).count("&lt;b&gt;") == 1


def test_details() -> None:
    assert disclosure("a & b", "c", opened=True).text == (
        "<details open><summary>a &amp; b</summary>c</details>"
    )
    assert listing([]).text == ""
    assert listing(["x"]).text == "<ul><li>x</li></ul>"


def test_faint_rows_and_caption() -> None:
    text = table(("x",), [("1",), ("2",)], faint=[1], caption="c").text
    assert '<tr class="faint"><td>2' in text
    assert "<caption>c</caption>" in text


def test_nothing_is_loaded_from_anywhere() -> None:
    text = block(table(("x",), [("1",)])).text
    assert "http" not in text
    assert "<script" not in text


def test_themes() -> None:
    css = themed(".a", "color: black", "color: white")
    assert css.count("color: white") == 2
    assert "prefers-color-scheme: dark" in css


def test_plain_table() -> None:
    assert plain_table(("a", "bb"), [("ccc", 1)]) == "a    bb\nccc  1"
