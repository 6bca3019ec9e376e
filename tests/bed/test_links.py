"""Links: exact counters, shapes that hold, cuts that cut and heal."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
from bed_network import datagrams, echo, round_trip, seconds_to_send, sink, until

from dataflow.testing.bed import PRESETS, Bed, Both

#: Ethernet, IP and UDP headers of one datagram.
HEADERS = 14 + 20 + 8
#: Neighbours ask for one another's address now and then: 42 bytes a question or an answer.
CHATTER = 500


@pytest.mark.parametrize("site", ["hpc", "edge", "cloud", "third"])
def test_datagrams_are_counted_to_the_byte(bed: Bed, site: str):
    link = bed.link(site)
    with datagrams(bed, site) as where, socket.socket(type=socket.SOCK_DGRAM) as end:
        before = link.bytes
        end.sendto(b"so that the addresses are known", where)
        until(lambda: (link.bytes - before).to >= 31 + HEADERS)
        before, sent = link.bytes, link.sent
        for _ in range(100):
            end.sendto(bytes(1000), where)
        until(lambda: (link.bytes - before).to >= 100 * (1000 + HEADERS))
        crossed = link.bytes - before
    assert 0 <= crossed.to - 100 * (1000 + HEADERS) <= CHATTER
    assert 0 <= crossed.from_ <= CHATTER
    assert abs((link.sent - sent).to - crossed.to) <= CHATTER


def test_a_stream_is_counted_with_its_headers(bed: Bed):
    bed.preset("unshaped")
    nbytes = 20_000_000
    with sink(bed, "edge") as where:
        before = bed.link("edge").bytes
        seconds_to_send(where, nbytes)
        crossed = bed.link("edge").bytes - before
    segments = nbytes / 1448
    assert crossed.to >= nbytes + segments * 66
    # Retransmissions apart, that is all.
    assert crossed.to <= (nbytes + segments * 66) * 1.01


def test_traffic_between_sites_crosses_both_links_and_no_third(bed: Bed):
    before = {link.site: link.bytes for link in bed.links}
    with sink(bed, "hpc") as (address, port):
        bed.host("edge").run(f"head -c 2000000 /dev/zero > /dev/tcp/{address}/{port}")
        until(lambda: (bed.link("hpc").bytes - before["hpc"]).to >= 2_000_000)
    crossed = {link.site: link.bytes - before[link.site] for link in bed.links}
    assert 2_000_000 < crossed["hpc"].to < 2_200_000
    assert 2_000_000 < crossed["edge"].from_ < 2_200_000
    assert crossed["cloud"].to < 10 * CHATTER
    assert crossed["third"].to < 10 * CHATTER


@pytest.mark.parametrize("rate", [10e6, 2e6])
def test_the_rate_holds(bed: Bed, rate: float):
    bed.link("hpc").shape(rate=rate)
    nbytes = int(rate)
    with sink(bed, "hpc") as where:
        seconds = seconds_to_send(where, nbytes)
    # 1448 of 1514 bytes are payload; a little passes at once at the start.
    expected = nbytes / (rate * 1448 / 1514)
    assert 0.97 * expected < seconds < 1.5 * expected


def test_each_way_has_its_own_rate(bed: Bed):
    link = bed.link("third")
    link.shape(rate=(1e6, 20e6), latency=(0.01, 0.03))
    assert link.like.rate == Both(1e6, 20e6)
    assert link.like.latency == Both(0.01, 0.03)
    with sink(bed, "third") as where:
        assert seconds_to_send(where, 500_000) > 0.45


@pytest.mark.parametrize("latency", [0.005, 0.05, 0.3])
def test_the_latency_holds_for_the_first_packet_too(bed: Bed, latency: float):
    bed.link("edge").shape(latency=latency)
    with echo(bed, "edge") as where:
        seconds = round_trip(where)
    assert 2 * latency <= seconds < 2 * latency + 0.05


def test_latency_does_not_lower_the_rate(bed: Bed):
    bed.link("hpc").shape(rate=10e6, latency=0.05)
    with sink(bed, "hpc") as where:
        seconds = seconds_to_send(where, 20_000_000)
    assert seconds < 5


def test_a_shape_can_jump_under_a_connection(bed: Bed):
    with echo(bed, "third") as where, socket.create_connection(where, 20) as end:
        spent = []
        for latency in (0.0, 0.2, 0.0):
            bed.link("third").shape(latency=latency)
            begun = time.monotonic()
            end.sendall(b"x")
            assert end.recv(1) == b"x"
            spent.append(time.monotonic() - begun)
    assert spent[0] < 0.4
    assert spent[1] >= 0.4
    assert spent[2] < 0.4


def test_a_rate_can_fall_in_the_midst_of_a_transfer(bed: Bed):
    """What waits is never larger than what the lower rate lets pass at once: it would wait for ever."""
    link = bed.link("hpc")
    over = threading.Event()

    def pour(end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not over.is_set():
                end.sendall(bytes(1 << 18))

    with echo(bed, "hpc") as where, socket.create_connection(where, 20) as end:
        sender = threading.Thread(target=pour, args=(end,))
        sender.start()
        try:
            for rate in (10e6, 4e6, 8e6, 2e6, 6e6, 3e6) * 3:
                link.shape(rate=rate)
                came = 0
                while came < 0.05 * rate:
                    came += len(end.recv(1 << 18))
        finally:
            over.set()
            end.shutdown(socket.SHUT_RDWR)
            sender.join()


@pytest.mark.slow
def test_the_presets_are_what_they_say(bed: Bed):
    bed.preset("scope")
    for site, expected in {"edge": 0.010, "cloud": 0.040, "third": 0.060, "hpc": 0.200}.items():
        port = 8000 if site == "cloud" else 22
        assert expected <= round_trip((bed.address(site), port)) < expected + 0.04
    bed.preset("fog")
    ask = (
        "import socket, sys, time; begun = time.monotonic();"
        "socket.create_connection((sys.argv[1], 22), 20).close(); print(time.monotonic() - begun)"
    )
    for near, far, expected in [
        ("edge", "hpc", 1.0),
        ("edge", "third", 1.5),
        ("hpc", "third", 1.2),
    ]:
        command = ["/usr/bin/python3", "-c", ask, bed.address(far)]
        bed.host(near).run(command)  # the neighbours get to know each other
        assert expected <= float(bed.host(near).run(command).stdout) < expected + 0.1


def test_five_per_cent_loss_is_late_and_not_lost(bed: Bed):
    bed.link("edge").shape(loss=0.05)
    with sink(bed, "edge") as where:
        seconds_to_send(where, 1_000_000)
    lost = bed.link("edge").lost
    assert lost.to > 5


def test_a_cut_link_is_silent_and_connections_go_on_after_it_heals(bed: Bed):
    link = bed.link("hpc")
    with echo(bed, "hpc") as where, socket.create_connection(where, 30) as end:
        end.sendall(b"before")
        assert end.recv(6) == b"before"
        link.cut()
        before = link.bytes
        end.sendall(b"during")
        end.settimeout(0.5)
        with pytest.raises(TimeoutError):
            end.recv(6)
        with pytest.raises(OSError, match="timed out"):
            socket.create_connection(where, 0.5)
        assert link.bytes == before
        link.heal()
        end.settimeout(30)
        assert end.recv(6) == b"during"


def test_a_link_can_be_cut_one_way(bed: Bed):
    link = bed.link("edge")
    with echo(bed, "edge") as where, socket.create_connection(where, 30) as end:
        end.sendall(b"1")
        assert end.recv(1) == b"1"
        before = link.bytes
        link.cut(one_way="from")
        end.sendall(b"2")
        end.settimeout(0.5)
        with pytest.raises(TimeoutError):
            end.recv(1)
        crossed = link.bytes - before
        assert crossed.to > 0
        assert crossed.from_ == 0
        link.heal()
        end.settimeout(30)
        assert end.recv(1) == b"2"


def test_a_cut_takes_what_is_under_way(bed: Bed):
    link = bed.link("third")
    with echo(bed, "third") as where, socket.create_connection(where, 30) as end:
        end.sendall(b"1")
        assert end.recv(1) == b"1"
        link.shape(latency=0.5)
        before = link.lost
        end.sendall(b"2")
        link.cut()
        until(lambda: (link.lost - before).to >= 1)


def test_restoring_brings_links_back(bed: Bed):
    bed.preset("late")
    bed.link("edge").cut()
    bed.restore()
    assert {link.site: link.like for link in bed.links} == PRESETS["default"]
    with echo(bed, "edge") as where:
        assert round_trip(where) < 0.1


def test_what_cannot_be_is_refused(bed: Bed):
    with pytest.raises(ValueError, match="loss cannot be 2"):
        bed.link("hpc").shape(loss=2)
    with pytest.raises(ValueError, match="latency cannot be -1"):
        bed.link("hpc").shape(latency=-1)
    with pytest.raises(KeyError, match="hpc-n1"):
        bed.link("hpc-n1")
