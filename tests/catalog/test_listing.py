"""A table for terminals and for notebooks."""

from __future__ import annotations

import pytest

from dataflow.catalog.entries import TagSet
from dataflow.catalog.listing import SHOWN, Listing
from dataflow.catalog.snapshot import assemble
from dataflow.datasets import Dataset, Extent
from dataflow.errors import UnknownDataset
from examples import dataset, replica

RUN = dataset("run1", tags={"system": "adk"}, shape=(-1, 3))
FAR = dataset("far", site="amc", owner="<b>eve</b>", extent=Extent(nbytes=10**9, guessed="size"))


def listing(*datasets: Dataset, away: tuple[str, ...] = ()) -> Listing:
    found = assemble(
        {
            "dataset": [(one.site, one) for one in datasets],
            "replica": [("uva", replica(RUN)), ("sara", replica(RUN, site="sara"))],
            "tags": [("uva", TagSet(key=RUN.key, user="bob", tags={"run": "7"}))],
        },
        away=away,
    )
    return Listing(datasets, found)


def test_sequence() -> None:
    both = listing(RUN, FAR)
    assert (len(both), list(both), both[0], both["far"]) == (2, [RUN, FAR], RUN, FAR)
    assert both[:1] == listing(RUN)
    assert hash(both[:1]) == hash(listing(RUN))
    assert both != [RUN, FAR]
    assert RUN in both
    assert both._ipython_key_completions_() == ["far", "run1"]
    with pytest.raises(UnknownDataset):
        both[:1]["far"]


def test_one_line() -> None:
    assert repr(listing(RUN, FAR)) == "<Listing 2 datasets at 3 sites, 1 GB>"
    assert repr(listing()) == "<Listing no datasets>"


def test_text() -> None:
    assert str(listing(RUN, FAR, away=("amc",))).splitlines() == [
        "name  sites       kind   shape   dtype    size        owner       tags"
        "                    copies",
        "run1  sara, uva   array  (?, 3)  float64  240 B       anna        system=adk run=7 (bob)"
        "  2",
        "far   amc (away)  array                   about 1 GB  <b>eve</b>"
        "                          0",
    ]
    assert str(listing()) == "no datasets"


def test_html_is_escaped_and_away_is_faint() -> None:
    html = listing(RUN, FAR, away=("amc",))._repr_html_()
    assert "<b>eve" not in html
    assert "&lt;b&gt;eve" in html
    assert html.count('<tr class="faint">') == 1
    assert "no datasets" in listing()._repr_html_()


def test_only_the_first_are_shown() -> None:
    many = listing(*(dataset(f"run{i:04}") for i in range(SHOWN + 5)))
    assert "… and 5 more datasets" in str(many)
    assert str(many).count("\n") == SHOWN + 1
    assert many._repr_html_().count("<tr") == SHOWN + 1


def test_long_names_are_cut_in_text_only() -> None:
    long = listing(dataset("x" * 200))
    assert "x" * 41 not in str(long)
    assert "x" * 200 in long._repr_html_()


def test_terminal_shows_the_table() -> None:
    class Printer:
        shown = ""

        def text(self, text: str) -> None:
            self.shown += text

    printer = Printer()
    listing(RUN)._repr_pretty_(printer, False)
    assert printer.shown == str(listing(RUN))
