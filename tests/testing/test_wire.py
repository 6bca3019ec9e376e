"""The witness must be right before anybody is judged by it."""

from __future__ import annotations

import contextlib
import gc
import http.client
import http.server
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator

import pytest

from dataflow.testing.wire import Wire


class Server:
    """Answers ``get N`` with N bytes, swallows what ``put`` brings and answers with its size."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.received = self.sent = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                while line := self._line(client):
                    verb, _, number = line.partition(" ")
                    self.received += len(line) + 1
                    if verb == "get":
                        client.sendall(b"x" * int(number))
                        self.sent += int(number)
                    else:
                        size = 0
                        while data := client.recv(1 << 16):
                            size += len(data)
                        self.received += size
                        answer = b"%d" % size
                        client.sendall(answer)
                        self.sent += len(answer)
                        return
            except OSError:
                return

    def _line(self, client: socket.socket) -> str:
        line = b""
        while not line.endswith(b"\n"):
            more = client.recv(1)
            if not more:
                return ""
            line += more
        return line[:-1].decode()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.socket.close()


def connect(wire: Wire) -> socket.socket:
    host, port = wire.address.split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def get(client: socket.socket, nbytes: int) -> int:
    client.sendall(b"get %d\n" % nbytes)
    return read(client, nbytes)


def read(client: socket.socket, nbytes: int) -> int:
    got = 0
    while got < nbytes and (data := client.recv(min(1 << 18, nbytes - got))):
        got += len(data)
    return got


def trickle(client: socket.socket) -> int:
    try:
        return len(client.recv(1 << 18))
    except TimeoutError:
        return 0


def put(client: socket.socket, nbytes: int) -> int:
    client.sendall(b"put\n")
    client.sendall(b"y" * nbytes)
    client.shutdown(socket.SHUT_WR)
    return int(client.recv(100))


def eventually(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    limit = time.monotonic() + seconds
    while not holds() and time.monotonic() < limit:
        time.sleep(0.01)


def assert_lasted(begun: float, seconds: float) -> None:
    """Never quicker than the link allows; slower only as far as a busy machine explains."""
    assert 0.95 * seconds < time.monotonic() - begun < 3 * seconds + 1


def test_counts_every_byte_in_both_directions(server: Server) -> None:
    with Wire(server.address) as wire:
        with connect(wire) as client:
            assert get(client, 3_000_001) == 3_000_001
            assert get(client, 17) == 17
        with connect(wire) as client:
            assert put(client, 2_000_003) == 2_000_003
        eventually(lambda: wire.bytes_out == server.sent)  # which counts after it has sent
        assert wire.bytes_out == server.sent
        assert wire.bytes_in == server.received
        assert wire.crossed - wire.crossed == (0, 0)
        assert wire.accepted == 2


def test_counts_many_connections_at_once(server: Server) -> None:
    def one(number: int) -> None:
        with connect(wire) as client:
            assert get(client, 100_000 + number) == 100_000 + number

    with Wire(server.address) as wire:
        threads = [threading.Thread(target=one, args=(n,)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # A client may have its bytes before the wire has got to counting them.
        eventually(lambda: wire.bytes_out >= sum(100_000 + n for n in range(20)))
        assert wire.bytes_out == sum(100_000 + n for n in range(20))


@pytest.mark.parametrize("direction", ["in", "out"])
def test_nothing_is_faster_than_the_rate(server: Server, direction: str) -> None:
    rate, nbytes = 2.5e6, 5_000_000
    limits = (rate, None) if direction == "in" else (None, rate)
    with Wire(server.address, rate=limits) as wire, connect(wire) as client:
        begun = time.monotonic()
        assert (put if direction == "in" else get)(client, nbytes) == nbytes
        assert_lasted(begun, nbytes / rate)


def test_rate_is_shared_by_the_connections(server: Server) -> None:
    rate, each = 4e6, 1_500_000
    seconds: list[float] = []

    def one() -> None:
        with connect(wire) as client:
            get(client, each)
            seconds.append(time.monotonic() - begun)

    with Wire(server.address, rate=rate) as wire:
        threads = [threading.Thread(target=one) for _ in range(4)]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert max(seconds) > 0.95 * 4 * each / rate
    assert min(seconds) > 0.5 * max(seconds), "one connection took the link for itself"


def test_rate_changes_while_bytes_flow(server: Server) -> None:
    with Wire(server.address, rate=1e5) as wire, connect(wire) as client:
        client.sendall(b"get 3000000\n")
        read(client, 50_000)
        wire.rate = None
        begun = time.monotonic()
        read(client, 2_950_000)
        assert time.monotonic() - begun < 20, "at the old rate it takes 30 s"
        assert wire.rate == (None, None)


def test_a_slow_link_lets_the_sender_wait(server: Server) -> None:
    """The wire holds no more than its buffers: what was not sent cannot be counted as crossed."""
    with Wire(server.address, rate=1e5) as wire, connect(wire) as client:
        client.sendall(b"get 30000000\n")
        time.sleep(0.5)
        assert server.sent == 0, "30 MB went into a link of 100 kB/s at once"
        assert wire.bytes_out < 100_000


def test_latency_is_added_once_per_direction(server: Server) -> None:
    with Wire(server.address, latency=(0.05, 0.15)) as wire:
        begun = time.monotonic()
        with connect(wire) as client:
            get(client, 10)
            assert_lasted(begun, 0.4)  # a new connection waits one more round trip
            begun = time.monotonic()
            get(client, 10)
            assert_lasted(begun, 0.2)


def test_latency_does_not_lower_the_rate(server: Server) -> None:
    with Wire(server.address, latency=0.2, rate=4e6) as wire, connect(wire) as client:
        get(client, 1)
        begun = time.monotonic()
        get(client, 6_000_000)
        assert_lasted(begun, 0.4 + 1.5)


def test_refuse_resets_and_refuses_until_healed(server: Server) -> None:
    with Wire(server.address) as wire, connect(wire) as client:
        get(client, 10)
        assert wire.connections == 1
        wire.cut()
        with pytest.raises(ConnectionResetError):
            get(client, 10)
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                connect(wire)
        wire.heal()
        with connect(wire) as again:
            assert get(again, 10) == 10


def test_cut_in_the_middle_is_counted_exactly(server: Server) -> None:
    with Wire(server.address, rate=1e6) as wire, connect(wire) as client:
        client.sendall(b"get 5000000\n")
        got = read(client, 300_000)
        # The rate ends here, so that all that crossed can be read before the reset.
        wire.rate = 1e3
        time.sleep(0.2)
        client.settimeout(0.3)
        while more := trickle(client):
            got += more
        assert abs(wire.bytes_out - got) <= 1024
        wire.cut()
        assert wire.bytes_out < 1_000_000


def test_blackhole_is_silent_and_connections_survive_it(server: Server) -> None:
    with Wire(server.address) as wire, connect(wire) as client:
        get(client, 10)
        wire.cut("blackhole")
        client.settimeout(0.3)
        client.sendall(b"get 7\n")
        with pytest.raises(TimeoutError):
            client.recv(10)
        with connect(wire) as late:
            late.settimeout(0.3)
            late.sendall(b"get 3\n")
            with pytest.raises(TimeoutError):
                late.recv(10)
            wire.heal()
            client.settimeout(5)
            late.settimeout(5)
            assert read(client, 7) == 7
            assert read(late, 3) == 3


def test_reset_drops_once(server: Server) -> None:
    with Wire(server.address) as wire, connect(wire) as client:
        get(client, 10)
        wire.reset()
        with pytest.raises(ConnectionResetError):
            get(client, 10)
        with connect(wire) as again:
            assert get(again, 10) == 10


@pytest.mark.filterwarnings("always::ResourceWarning")
def test_a_connection_that_comes_as_the_link_is_cut_is_closed(server: Server) -> None:
    done = threading.Event()

    def knock() -> None:
        while not done.is_set():
            with contextlib.suppress(OSError), connect(wire):
                pass

    with Wire(server.address) as wire, warnings.catch_warnings(record=True) as told:
        knocking = [threading.Thread(target=knock) for _ in range(3)]
        for thread in knocking:
            thread.start()
        for _ in range(300):
            wire.cut()
            assert wire.connections == 0
            wire.heal()
        done.set()
        for thread in knocking:
            thread.join()
        gc.collect()
    assert not [str(warning.message) for warning in told]


class Counting(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served = 0

    def do_GET(self) -> None:
        type(self).served += 1
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_loss_takes_questions_and_answers() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Counting.served = answered = 0
    with Wire(server.server_address[1], loss=0.3, seed=5) as wire:
        client = http.client.HTTPConnection("127.0.0.1", wire.port, timeout=5)
        for _ in range(200):
            try:
                client.request("GET", "/")
                answered += client.getresponse().read() == b"ok"
            except OSError:
                client.close()
        client.close()
        assert 35 <= wire.lost <= 85
        assert answered == 200 - wire.lost
        assert answered < Counting.served < 200, "some answers were lost after the work was done"
    server.shutdown()
    server.server_close()


def test_no_server_behind_is_a_reset_not_a_hang() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    # The reset may come before the connection is made, as far as the client knows.
    with Wire(port) as wire, pytest.raises(ConnectionResetError), connect(wire) as client:
        client.recv(1)


def test_target_may_move(server: Server) -> None:
    other = Server()
    with Wire(server.address) as wire:
        with connect(wire) as client:
            get(client, 5)
        wire.target = other.address
        with connect(wire) as client:
            get(client, 6)
    assert (server.sent, other.sent) == (5, 6)
    other.socket.close()


def test_close_frees_thread_and_port(server: Server) -> None:
    before = threading.active_count()
    wire = Wire(server.address)
    wire.close()
    wire.close()
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        connect(wire)


@pytest.mark.parametrize(
    "wrong",
    [{"rate": 0}, {"rate": -1.0}, {"latency": -0.1}, {"loss": 1.5}, {"target": "no-port"}],
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"rate|latency|probability|port"):
        Wire(**{"target": 1, **wrong})  # type: ignore[arg-type]


def test_throughput_without_limit(server: Server) -> None:
    with Wire(server.address) as wire, connect(wire) as client:
        begun = time.monotonic()
        get(client, 100_000_000)
        assert time.monotonic() - begun < 60, "the wire itself is the bottleneck"


def test_wire_uses_nothing_of_dataflow() -> None:
    import dataflow.testing.wire as module

    with open(module.__file__, encoding="utf-8") as file:
        assert "import dataflow" not in (text := file.read())
        assert "from dataflow" not in text
