"""Random stories of three to five sites: after healing all copies are what their sites wrote."""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
import time
import types
from pathlib import Path
from unittest import mock

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from network import Network, Participant, contents, equal, until

import dataflow.catalog.log as log_module
from tests.virtual import VirtualLoop

places = st.integers(0, 4)
ids = st.integers(0, 3)


class Federation(RuleBasedStateMachine):
    """Writes, cuts, losses, restarts, moves and wipes in any order, on a clock of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        asyncio.set_event_loop(self.loop)
        self.directory = tempfile.TemporaryDirectory()
        self.network = Network()
        self.sites: list[Participant] = []
        #: What each site holds now, and every body that it ever wrote.
        self.present: dict[str, dict[str, str]] = {}
        self.ever: dict[str, set[str]] = {}
        self.writes = self.moves = 0

    @initialize(count=st.integers(3, 5), seed=st.integers(0, 1000))
    def everybody_joins(self, count: int, seed: int) -> None:
        self.network.random = random.Random(seed)

        async def story() -> None:
            for name in "abcde"[:count]:
                one = Participant(self.network, name, Path(self.directory.name), period=0.25)
                self.sites.append(one)
                self.present[name], self.ever[name] = {}, set()
                await one.up(*(["https://a"] if name != "a" else []))
            await until(lambda: equal(self.sites), 30)

        self.loop.run_until_complete(story())

    def site(self, place: int) -> Participant:
        return self.sites[place % len(self.sites)]

    @rule(place=places, id=ids)
    def write(self, place: int, id: int) -> None:
        one = self.site(place)
        self.writes += 1
        body = {"by": one.site, "number": self.writes}
        one.records.put("measurement", str(id), body)
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        self.present[one.site][str(id)] = text
        self.ever[one.site].add(text)

    @rule(place=places, id=ids)
    def delete(self, place: int, id: int) -> None:
        one = self.site(place)
        one.records.delete("measurement", str(id))
        self.present[one.site].pop(str(id), None)

    @rule(one=places, other=places, both=st.booleans())
    def cut(self, one: int, other: int, both: bool) -> None:
        names = self.site(one).site, self.site(other).site
        self.network.cuts.add(names)
        if both:
            self.network.cuts.add((names[1], names[0]))

    @rule(
        loss=st.sampled_from([0.0, 0.1, 0.5]),
        twice=st.sampled_from([0.0, 0.3]),
        delay=st.sampled_from([0.0, 0.1, 1.5]),
        hangs=st.booleans(),
    )
    def disturb(self, loss: float, twice: float, delay: float, hangs: bool) -> None:
        self.network.loss, self.network.twice, self.network.hangs = loss, twice, hangs
        self.network.delay = lambda chance: chance.random() * delay

    @rule()
    def heal(self) -> None:
        self.network.heal()

    @rule(seconds=st.sampled_from([0.1, 1.0, 7.0]))
    def pass_time(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @rule(
        place=places, move=st.booleans(), wipe=st.booleans(), skew=st.sampled_from([-300, 0, 300])
    )
    def restart(self, place: int, move: bool, wipe: bool, skew: int) -> None:
        one = self.site(place)
        others = [other.address for other in self.sites if other is not one]
        address = None
        if move:
            self.moves += 1
            address = f"https://{one.site}.{self.moves}"
        shifted = types.SimpleNamespace(time_ns=lambda: time.time_ns() + skew * 10**9)
        with mock.patch.object(log_module, "time", shifted):
            self.loop.run_until_complete(one.restart(*others, wipe=wipe, address=address))
        if wipe:
            self.present[one.site] = {}

    @precondition(lambda self: self.sites)
    @invariant()
    def nobody_holds_what_its_site_never_wrote(self) -> None:
        for holder in self.sites:
            for writer in self.sites:
                held = contents(holder.records, writer.site)
                words = {body for (kind, _), body in held.items() if kind == "measurement" and body}
                assert words <= self.ever[writer.site]

    @precondition(lambda self: self.sites)
    @invariant()
    def every_site_holds_its_own_word(self) -> None:
        for one in self.sites:
            own = contents(one.records, one.site)
            measured = {id: body for (kind, id), body in own.items() if kind == "measurement"}
            assert {id: body for id, body in measured.items() if body} == self.present[one.site]

    def teardown(self) -> None:
        try:
            if self.sites:
                self.network.heal()
                self.network.hangs = False
                self.loop.run_until_complete(until(lambda: equal(self.sites), 60, step=0.5))
                self.every_site_holds_its_own_word()
                self.loop.run_until_complete(asyncio.sleep(10))
                assert not any(one.sync and one.sync.away() for one in self.sites)
        finally:
            for one in self.sites:
                self.loop.run_until_complete(one.end())
            self.loop.close()
            asyncio.set_event_loop(None)
            self.directory.cleanup()


Federation.TestCase.settings = settings(max_examples=30, stateful_step_count=25)
TestFederation = Federation.TestCase
