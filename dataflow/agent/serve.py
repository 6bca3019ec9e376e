"""An agent as a process: one socket, one participant, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import structlog
import uvicorn

from dataflow.agent.app import create_app
from dataflow.agent.auth import Authenticate, TokenFile, check_binding, make_token_file
from dataflow.agent.certificates import Known, ShowsCertificate, ask_for, read_certificates
from dataflow.agent.detached import ADDRESS_FILE, TOKEN_FILE
from dataflow.agent.inside import guests_of
from dataflow.agent.lean import UNUSED, without
from dataflow.agent.served import Served
from dataflow.config.records import Listen
from dataflow.errors import ConfigError

#: Longer than any client of ours keeps an idle connection.
KEEP_ALIVE_SECONDS = 75
#: Time for answers under way when the agent is told to stop.
GRACE_SECONDS = 5

log = structlog.get_logger(__name__)


async def serve(
    participant_at: Callable[[str], Served],
    *,
    site: str,
    listen: Listen,
    state_dir: Path,
    authenticate: Authenticate | None = None,
    certificates: Mapping[str, Path] | None = None,
    announce: Callable[[str], None] | None = None,
    idle: float | None = None,
) -> None:
    """Serve one site until SIGTERM or SIGINT; then close its participant.

    Parameters
    ----------
    participant_at
        Makes the participant, given the address at which it will be reached. It is started and
        closed here.
    site
        Name of the site.
    listen
        Where to listen: a Unix socket, a loopback address, or with TLS any address.
    state_dir
        Gets the address file while the agent runs, and the token file.
    authenticate
        Who is let in; by default the token file in ``state_dir``, made if missing.
    certificates
        Of sites that are known by theirs: over TLS, their tokens are good only together with them.
    announce
        Told ``listening on <address>`` once requests are answered; by default it is printed.
    idle
        Seconds without a connection and without anything running, after which it ends by itself.

    Raises
    ------
    ConfigError
        If the address is taken, or may not be used, or a certificate cannot be read.
    """
    encrypted = listen.socket is None and listen.certificate is not None
    known = read_certificates(certificates or {}) if encrypted else {}
    if listen.socket is None:
        check_binding(listen.host, encrypted=encrypted)
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    if authenticate is None:
        own_tokens(state_dir)
        authenticate = TokenFile(state_dir / TOKEN_FILE, site)
    with _listening(listen) as listening:
        address = _address(listening, listen)
        participant = participant_at(listen.public or address)
        async with guests_of(participant, encrypted=encrypted) as inside:
            admits = authenticate if inside is None else inside.admits(authenticate)
            admits = Known(admits, site, known) if known else admits
            with without(*UNUSED):
                app = create_app(participant, admits)
            server = _Server(_config(app, listen, known))
            file = state_dir / ADDRESS_FILE
            server.when_ready = lambda: _ready(site, address, file, announce)
            try:
                with _signals(server, app.state.stopping):
                    if await _started(participant, app.state.stopping):
                        if idle is not None:
                            watch = asyncio.create_task(_end_when_idle(server, participant, idle))
                            app.state.watch = watch  # or it would be collected
                        inner = [] if inside is None else [inside.listening]
                        await server.serve(sockets=[listening, *inner])
            finally:
                await participant.close()
                _withdraw(file)
    log.info("agent_stopped", site=site)


def own_tokens(state_dir: Path) -> None:
    """Make the token file of a site, if there is none, with one for the account that runs it."""
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    make_token_file(state_dir / TOKEN_FILE, _account())


async def _started(participant: Served, stopping: asyncio.Event) -> bool:
    """Start the participant; false if we were told to stop before it had."""
    starting = asyncio.ensure_future(participant.start())
    stopped = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            return not stopping.is_set()
        return False
    finally:
        for task in (starting, stopped):
            task.cancel()
        await asyncio.gather(starting, stopped, return_exceptions=True)


async def _end_when_idle(server: _Server, participant: Served, idle: float) -> None:
    """Tell the server to stop once nobody has been connected, and nothing has run, for so long."""
    loop = asyncio.get_running_loop()
    wanted = loop.time()
    while loop.time() - wanted < idle:
        await asyncio.sleep(min(1.0, idle / 4))
        if server.server_state.connections or participant.busy():
            wanted = loop.time()
    log.info("agent_idle", seconds=idle)
    server.should_exit = True


class _Server(uvicorn.Server):
    """Uvicorn, except that it says when it is ready and leaves signals to us."""

    when_ready: Callable[[], None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.when_ready is not None:
            self.when_ready()
        if not gc.isenabled():  # whoever had us started was in a hurry
            gc.freeze()  # what was imported stays, and need not be looked through again
            gc.enable()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server_of(app: object, listen: Listen | None = None) -> uvicorn.Server:
    """A server of an application, which leaves signals to whoever runs it."""
    return _Server(_config(app, listen or Listen()))


def _config(
    app: object, listen: Listen, known: Mapping[str, bytes] | None = None
) -> uvicorn.Config:
    more: Any = {"http": ShowsCertificate} if known else {}
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ssl_certfile=listen.certificate,
        ssl_keyfile=listen.key,
        **more,
    )
    if known:
        config.load()
        assert config.ssl is not None
        ask_for(config.ssl, known)
    return config


@contextlib.contextmanager
def _signals(server: uvicorn.Server, stopping: asyncio.Event) -> Iterator[None]:
    """The first signal lets answers finish, the second does not."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stopping.set()
        server.force_exit = server.should_exit
        server.should_exit = True

    handled = (signal.SIGTERM, signal.SIGINT)
    for number in handled:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _listening(listen: Listen) -> Iterator[socket.socket]:
    listening = _listen(listen)
    try:
        yield listening
    finally:
        listening.close()
        if listen.socket is not None:
            listen.socket.unlink(missing_ok=True)


def _listen(listen: Listen) -> socket.socket:
    if listen.socket is not None:
        return _listen_unix(listen.socket)
    try:
        found = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, where = found[0]
        with contextlib.ExitStack() as undo:
            listening = undo.enter_context(socket.socket(family, kind, protocol))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(where)
            undo.pop_all()
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {listen.host}:{listen.port}: {error.strerror or error}"
        ) from error
    return listening


def _listen_unix(path: Path) -> socket.socket:
    """A socket that only its owner can reach; one left behind by a dead agent is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with contextlib.ExitStack() as undo:
            listening = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            if path.exists():
                if not stat.S_ISSOCK(path.stat().st_mode):
                    raise ConfigError(f"{path} exists and is not a socket")
                if _answers(path):
                    raise ConfigError(f"another agent listens on {path}")
                path.unlink()
            listening.bind(str(path))
            path.chmod(0o600)  # before listen(): nobody can have connected yet
            undo.pop_all()
    except OSError as error:
        raise ConfigError(f"cannot listen on {path}: {error.strerror or error}") from error
    return listening


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as attempt:
        attempt.settimeout(1.0)
        try:
            attempt.connect(str(path))
        except OSError:
            return False
        return True


def _address(listening: socket.socket, listen: Listen) -> str:
    if listen.socket is not None:
        return f"unix://{quote(str(listen.socket.absolute()))}"
    port = listening.getsockname()[1]
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    return f"{'https' if listen.certificate else 'http'}://{host}:{port}"


def _ready(site: str, address: str, file: Path, announce: Callable[[str], None] | None) -> None:
    draft = file.with_suffix(f".{os.getpid()}")
    told = {"site": site, "address": address, "pid": os.getpid(), "host": socket.gethostname()}
    draft.write_text(json.dumps(told) + "\n")
    draft.replace(file)
    log.info("agent_ready", site=site, address=address)
    text = f"listening on {address}"
    if announce is None:
        print(text, flush=True)
    else:
        announce(text)


def _withdraw(file: Path) -> None:
    """Remove the address file if it is still ours."""
    try:
        ours = json.loads(file.read_text()).get("pid") == os.getpid()
    except (OSError, ValueError):
        return
    if ours:
        file.unlink(missing_ok=True)


def _account() -> str:
    """The name of the account that we run under; ``owner`` where it has none."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "owner"


def configure_logs(*, debug: bool = False) -> None:
    """Log as one JSON object a line to stderr: for a process that is an agent, not for a library.

    Records of libraries (uvicorn, distributed) take the same way.
    """
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    to_json = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
    )
    stderr = logging.StreamHandler()
    stderr.setFormatter(to_json)
    root = logging.getLogger()
    root.handlers[:] = [stderr]
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    for noisy in ("asyncio", "httpx2", "httpcore2", "distributed", "bokeh", "tornado"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
