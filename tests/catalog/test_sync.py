"""Stories of two to five sites: joining, cuts, moves, losses."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from network import Network, Participant, contents, equal, until

import dataflow.catalog.log as log_module
from dataflow.catalog.access import PeerAccess
from dataflow.catalog.entries import Peer
from dataflow.catalog.news import BUSY_GATHERING, GATHERING
from dataflow.catalog.records import Records
from dataflow.catalog.sync import Sync
from dataflow.errors import CatalogError
from tests.virtual import run


@asynccontextmanager
async def sites(
    directory: Path, names: str = "abc", network: Network | None = None, **options: float
) -> AsyncIterator[tuple[Network, Sequence[Participant]]]:
    """Sites that all joined by the first one's address."""
    network = network or Network()
    all_of_them = [Participant(network, name, directory, **options) for name in names]
    try:
        for one in all_of_them:
            await one.up(*([all_of_them[0].address] if one is not all_of_them[0] else []))
        yield network, all_of_them
    finally:
        for one in all_of_them:
            await one.end()


def test_join_by_one_address_and_know_all(tmp_path: Path) -> None:
    async def story() -> None:
        async with sites(tmp_path, "abcd") as (network, everybody):
            everybody[1].records.put("measurement", "m", {"v": 1})
            await until(lambda: equal(everybody), 2)
            newcomer = Participant(network, "e", tmp_path)
            await newcomer.up(everybody[2].address)
            try:
                await until(lambda: equal([*everybody, newcomer]), 5)
                assert newcomer.sync is not None
                assert newcomer.sync.away() == frozenset()
                assert everybody[0].sync is not None
                assert everybody[0].sync.away() == frozenset()
            finally:
                await newcomer.end()

    run(story())


def test_news_travel_in_one_round_trip(tmp_path: Path) -> None:
    async def story() -> None:
        network = Network(delay=lambda _: 0.01)
        async with sites(tmp_path, network=network) as (_, (a, b, c)):
            await until(lambda: equal([a, b, c]), 5)
            await asyncio.sleep(5)
            seq = a.records.put("measurement", "m", {"v": 1})
            assert c.sync is not None
            loop = asyncio.get_running_loop()
            start = loop.time()
            await asyncio.sleep(0)
            a.records.put("measurement", "n", {"v": 2})  # travels with the first
            assert await c.sync.wait_until_seen("a", seq, 5)
            assert loop.time() - start < GATHERING + 0.05
            assert equal([a, c])

    run(story())


def test_news_without_end_are_asked_for_a_few_times_a_second(tmp_path: Path) -> None:
    async def story() -> None:
        network = Network(delay=lambda _: 0.001)
        async with sites(tmp_path, network=network) as (_, (a, b, c)):
            await until(lambda: equal([a, b, c]), 5)
            await asyncio.sleep(5)
            assert c.sync is not None
            asked: list[int] = []
            page = a.records.page
            a.records.page = lambda *given: asked.append(1) or page(*given)  # type: ignore[func-returns-value, assignment]
            loop = asyncio.get_running_loop()
            for number in range(100):
                seq = a.records.put("measurement", "m", {"v": number})
                await asyncio.sleep(0.02)
            start = loop.time()
            assert await c.sync.wait_until_seen("a", seq, 5)
            assert loop.time() - start < BUSY_GATHERING + 0.05
            followers, rounds = 2, 2.0 / BUSY_GATHERING
            looks = 3  # one that finds nothing, one that finds news, and one that takes them
            assert len(asked) < looks * followers * (rounds + 4)

    run(story())


def test_silence_is_away_and_an_answer_is_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with sites(tmp_path) as (_, (a, b, c)):
            await until(lambda: equal([a, b, c]), 5)
            await c.down()
            assert a.sync is not None
            assert await until(lambda: a.sync.away() == {"c"}, 10) <= 5.6
            assert "c" in a.records.versions()
            await c.up()
            assert await until(lambda: a.sync.away() == frozenset(), 10) < 2.1

    run(story())


@pytest.mark.parametrize("hangs", [False, True])
def test_heals_after_a_cut_without_restart(tmp_path: Path, hangs: bool) -> None:
    async def story() -> None:
        async with sites(tmp_path, network=Network(hangs=hangs)) as (network, (a, b, c)):
            await until(lambda: equal([a, b, c]), 5)
            for other in "bc":
                network.cut("a", other)
            await until(lambda: a.sync.away() == {"b", "c"}, 30)
            assert b.sync is not None
            assert b.sync.away() == {"a"}
            for one in (a, b):
                one.records.put("measurement", "during", {"at": one.site})
            await asyncio.sleep(60)
            network.heal()
            assert await until(lambda: equal([a, b, c]), 10) < 8
            await until(lambda: not a.sync.away() | b.sync.away() | c.sync.away(), 10)

    run(story())


def test_a_third_site_relays(tmp_path: Path) -> None:
    async def story() -> None:
        async with sites(tmp_path, "abc") as (network, (a, b, c)):
            await until(lambda: equal([a, b, c]), 5)
            network.cut("a", "c")
            c.records.put("measurement", "m", {"v": 1})
            await until(lambda: equal([a, b, c]), 10)
            await until(lambda: a.sync.away() == {"c"}, 10)
            assert b.sync is not None
            assert b.sync.away() == frozenset()

    run(story())


def test_never_met_but_known_through_a_third(tmp_path: Path) -> None:
    async def story() -> None:
        network = Network()
        network.cut("b", "c")
        async with sites(tmp_path, "abc", network) as (_, everybody):
            await until(lambda: equal(everybody), 10)
            assert everybody[1].sync is not None
            assert everybody[1].sync.away() == {"c"}

    run(story())


def test_many_rows_come_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "PAGE", 50)

    async def story() -> None:
        async with sites(tmp_path, "ab") as (_, (a, b)):
            a.records.put_many([("measurement", str(i), {"i": i}) for i in range(2_000)])
            await until(lambda: equal([a, b]), 5)

    run(story())


def test_a_site_with_a_new_address_is_found_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with sites(tmp_path) as (_, (a, b, c)):
            await until(lambda: equal([a, b, c]), 5)
            await c.restart(address="https://c.new")
            await until(lambda: a.sync.away() == frozenset() == b.sync.away(), 10)
            await until(lambda: equal([a, b, c]), 10)
            assert a.records.get("peer", "c").address == "https://c.new"

    run(story())


def test_an_address_taken_by_another_site_is_not_mistaken(tmp_path: Path) -> None:
    async def story() -> None:
        async with sites(tmp_path) as (_, (a, b, c)):
            await until(lambda: equal([a, b, c]), 5)
            old = c.address
            await c.down()
            await b.restart(address=old)
            await until(lambda: a.sync.away() == {"c"}, 20)
            await asyncio.sleep(10)
            assert a.sync.away() == {"c"}
            await c.up(address="https://c.new")
            await until(lambda: equal([a, b, c]), 10)
            await until(lambda: not a.sync.away() | b.sync.away() | c.sync.away(), 10)

    run(story())


@pytest.mark.parametrize("clock", ["ahead", "behind"])
def test_a_lost_file_begins_a_new_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    async def story() -> None:
        async with sites(tmp_path) as (_, (a, b, c)):
            for i in range(5):
                c.records.put("measurement", str(i), {"i": i})
            await until(lambda: equal([a, b, c]), 5)
            if clock == "behind":  # by five minutes, when the file is made anew
                real = time.time_ns
                monkeypatch.setattr(time, "time_ns", lambda: real() - 300 * 10**9)
            await c.restart(a.address, wipe=True)
            c.records.put("measurement", "new", {"i": -1})
            await until(lambda: equal([a, b, c]), 10)
            assert set(contents(a.records, "c")) == {("peer", "c"), ("measurement", "new")}

    run(story())


def test_the_one_whom_all_know_loses_its_file_and_knows_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with sites(tmp_path) as (_, (a, b, c)):
            await until(lambda: equal([a, b, c]), 5)
            real = time.time_ns
            monkeypatch.setattr(time, "time_ns", lambda: real() - 300 * 10**9)
            await a.restart(wipe=True)
            await until(lambda: equal([a, b, c]), 20)

    run(story())


def test_a_file_put_back_from_a_backup(tmp_path: Path) -> None:
    async def story() -> None:
        async with sites(tmp_path) as (_, (a, b, c)):
            a.records.put("measurement", "early", {"v": 1})
            await until(lambda: equal([a, b, c]), 5)
            await a.down()
            a.records.close()
            backup = a.path.read_bytes()
            a.records = Records(a.path, "a")
            await a.up()
            a.records.put("measurement", "late", {"v": 2})
            await until(lambda: equal([a, b, c]), 5)
            await a.down()
            a.records.close()
            a.path.write_bytes(backup)
            a.records = Records(a.path, "a")
            await a.up()
            await until(lambda: equal([a, b, c]), 10)
            assert ("measurement", "late") not in contents(b.records, "a")
            a.records.put("measurement", "after", {"v": 3})
            await until(lambda: equal([a, b, c]), 5)

    run(story())


def test_slow_and_lossy_links_deliver_everything(tmp_path: Path) -> None:
    """KO-10: 5 % loss and 2 s delay."""

    async def story() -> None:
        network = Network(loss=0.05, delay=lambda _: 2.0)
        async with sites(tmp_path, network=network) as (_, (a, b, c)):
            for i in range(100):
                a.records.put("job", str(i), {"id": str(i), "status": "running"})
                await asyncio.sleep(0.1)
            await until(lambda: equal([a, b, c]), 60)

    run(story())


def test_steady_delay_is_not_taken_for_absence(tmp_path: Path) -> None:
    async def story() -> None:
        async with sites(tmp_path, network=Network(delay=lambda _: 2.0)) as (_, (a, b, c)):
            await until(lambda: equal([a, b, c]), 60)
            await until(lambda: not a.sync.away(), 30)
            for _ in range(100):
                await asyncio.sleep(0.5)
                assert a.sync.away() == frozenset()

    run(story())


def test_quiet_sites_ask_seldom(tmp_path: Path) -> None:
    async def story() -> None:
        async with sites(tmp_path) as (network, everybody):
            await until(lambda: equal(everybody), 5)
            await asyncio.sleep(10)
            before = network.asked
            await asyncio.sleep(60)
            pairs, rounds = 6, 60 / 2.0  # a question is held back for that long
            assert network.asked - before <= 2 * pairs * rounds * 1.1

    run(story())


def test_a_liar_is_paused_not_hammered(tmp_path: Path) -> None:
    """A site that answers rows nobody can take must not be asked without a pause."""

    async def story() -> None:
        async with sites(tmp_path, "ab") as (network, (a, b)):
            await until(lambda: equal([a, b]), 5)
            real = b.sync.records

            async def lies(site: str, since: int, wait: float) -> object:
                epoch, rows = await real(site, 0, 0.0)
                return epoch, rows

            network.agents[b.address].records = lies  # type: ignore[method-assign, assignment]
            before = network.asked
            await asyncio.sleep(60)
            assert network.asked - before < 1000

    run(story())


def test_a_file_that_cannot_be_used_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with sites(tmp_path) as (_, (a, b, c)):

            def broken(*_: object) -> NoReturn:
                raise CatalogError("full")

            for verb in ("apply", "origins", "page", "written"):
                monkeypatch.setattr(a.records, verb, broken)
            a.sync.join("https://b")
            b.records.put("measurement", "m", {"v": 1})
            await asyncio.sleep(10)
            monkeypatch.undo()
            a.records.put("measurement", "m", {"v": 1})
            await until(lambda: equal([a, b, c]), 10)
            await until(lambda: not a.sync.away() | b.sync.away(), 10)

    run(story())


def test_settle_returns_when_all_are_tried(tmp_path: Path) -> None:
    async def story() -> None:
        async with sites(tmp_path) as (_, (a, b, c)):
            await until(lambda: equal([a, b, c]), 5)
            await b.down()
            await c.restart()
            assert c.sync is not None
            assert c.sync.away() == {"a", "b"}
            loop = asyncio.get_running_loop()
            start = loop.time()
            assert await c.sync.settle() == {"b"}
            assert loop.time() - start < 1

    run(story())


def test_who_is_there_is_known_after_some_round_trips_with_no_news_too(tmp_path: Path) -> None:
    async def story() -> None:
        async with sites(tmp_path) as (_, (a, b, c)):
            await until(lambda: equal([a, b, c]), 5)
            await c.restart()
            assert c.sync is not None
            start = asyncio.get_running_loop().time()
            assert await c.sync.settle() == frozenset()
            assert asyncio.get_running_loop().time() - start < 0.1, "a period is 0.5 s"

    run(story())


def test_invented_sites_are_not_looked_for(tmp_path: Path) -> None:
    async def story() -> None:
        async with sites(tmp_path, "ab") as (_, (a, b)):
            await until(lambda: equal([a, b]), 5)
            assert a.sync is not None
            before = len(asyncio.all_tasks())
            for number in range(100):
                await a.sync.hint(f"invented{number}", 1)
            await a.sync.hint("b", 1)
            assert len(asyncio.all_tasks()) == before
            assert a.sync.away() == frozenset()
            await a.sync.hint("c", 1, address="nowhere")
            assert a.sync.away() == frozenset({"c"})

    run(story())


def test_wait_until_seen_gives_up(tmp_path: Path) -> None:
    async def story() -> None:
        async with sites(tmp_path, "ab") as (_, (a, _b)):
            assert a.sync is not None
            assert not await a.sync.wait_until_seen("b", 10**6, 1.0)

    run(story())


def test_a_site_to_which_the_way_came_about_is_asked_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with sites(tmp_path, "a") as (network, (a,)):
            await a.down()
            late = Participant(network, "z", tmp_path)
            await late.up()
            try:
                assert late.sync is not None
                late.sync.join(a.address, site="a")
                assert await late.sync.settle() == {"a"}
                await asyncio.sleep(5)  # the pauses between its tries are long by now
                await a.up()
                start = asyncio.get_running_loop().time()
                late.sync.expect("a")
                late.sync.expect("nobody")
                assert await late.sync.settle() == frozenset()
                assert asyncio.get_running_loop().time() - start < 0.1
                assert not await late.sync.ask_again(["a", "nobody"], 60), "nobody is away"
                await a.down()
                await until(lambda: late.sync.away() == {"a"}, 30)
                assert not await late.sync.ask_again(["a"], 60), "it does not answer"
                assert not await late.sync.ask_again([], 60), "nobody is asked"
                await a.up()
                assert await late.sync.ask_again(["a"], 60)
            finally:
                await late.end()

    run(story())


def test_named_site_is_away_until_it_answers(tmp_path: Path) -> None:
    async def story() -> None:
        async with sites(tmp_path, "ab") as (_, (a, _b)):
            assert a.sync is not None
            a.sync.join("https://z", site="z")
            assert "z" in a.sync.away()

    run(story())


def test_connect_that_fails_is_like_no_answer(tmp_path: Path) -> None:
    async def story() -> None:
        with Records(tmp_path / "a.db", "a") as records:

            def connect(address: str, credentials: str | None) -> PeerAccess:
                raise CatalogError("no such credential")

            clock = asyncio.get_running_loop().time
            async with Sync(records, Peer(site="a"), connect, clock) as sync:
                sync.join("https://z", site="z")
                assert await sync.settle() == {"z"}

    run(story())


def test_close_leaves_nothing_behind(tmp_path: Path) -> None:
    async def story() -> None:
        before = asyncio.all_tasks()
        async with sites(tmp_path) as (_, everybody):
            await until(lambda: equal(everybody), 5)
            await everybody[0].sync.close()
            await everybody[0].sync.close()
        assert asyncio.all_tasks() == before

    run(story())


def test_other_name_is_refused(tmp_path: Path) -> None:
    with Records(tmp_path / "a.db", "a") as records, pytest.raises(CatalogError, match="as 'b'"):
        Sync(records, Peer(site="b"), lambda *_: None)  # type: ignore[arg-type,return-value]


def test_sync_answers_as_peer_access() -> None:
    def needs(access: PeerAccess) -> None: ...

    def typed(sync: Sync) -> None:
        needs(sync)

    assert callable(typed)


def test_real_time_and_threads(tmp_path: Path) -> None:
    """The same on the real clock, with writes from another thread."""

    async def story() -> None:
        network = Network(random=random.Random(1))
        async with sites(tmp_path, "ab", network) as (_, (a, b)):
            await until(lambda: equal([a, b]), 5)
            seq = await asyncio.to_thread(a.records.put, "measurement", "m", {"v": 1})
            assert b.sync is not None
            assert await b.sync.wait_until_seen("a", seq, 5)

    asyncio.run(story())


def test_a_look_takes_what_is_written_without_waiting_for_more(tmp_path: Path) -> None:
    """News are gathered while there are always news; who has to know now does not wait for that."""

    async def story() -> None:
        network = Network(delay=lambda _: 0.01)
        async with sites(tmp_path, "ab", network=network) as (_, (a, b)):
            await until(lambda: equal([a, b]), 5)
            assert a.sync is not None
            assert b.sync is not None
            loop = asyncio.get_running_loop()
            for number in range(5):  # one after the other: always news
                a.records.put("measurement", "m", {"v": number})
                begun = loop.time()
                await b.sync.look("a")
                assert loop.time() - begun < GATHERING
                assert equal([a, b])
            a.records.put("measurement", "m", {"v": 7})
            asked = network.asked
            await asyncio.gather(*(b.sync.look("a") for _ in range(100)))
            assert equal([a, b])
            assert network.asked - asked < 10, (
                "who looks at the same time waits for the same answer"
            )
            await b.sync.look("nobody")
            network.cut("a", "b")
            a.records.put("measurement", "m", {"v": 9})
            await until(lambda: "a" in b.sync.away(), 60)
            await b.sync.look("a")
            assert not equal([a, b])

    run(story())
