"""Bed, Link, S3: what a test holds in its hands.

    bed = Bed.current()
    bed.host("hpc").run("qsub -sync y -b y hostname")
    before = bed.link("hpc").bytes
    ...
    bed.link("hpc").bytes - before              # Crossed(to=..., from_=...), frames and all
    bed.link("hpc").shape(rate=2.5e6, latency=0.05)
    bed.link("hpc").cut(one_way="to")           # questions are lost, what is on its way back comes
    bed.host("hpc").daemon("qmaster").kill()
    bed.restore(); bed.repair()

Nothing here runs while a test waits: what is changed stays changed until it is restored.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from dataflow.testing.bed import control, links, s3, ssh, up
from dataflow.testing.bed import state as states
from dataflow.testing.bed.commands import BedError
from dataflow.testing.bed.gate import Rule
from dataflow.testing.bed.host import Host
from dataflow.testing.bed.hosts import PYTHON, REPOSITORY
from dataflow.testing.bed.layout import (
    HOSTS,
    NOTEBOOK,
    PRESETS,
    QUEUE,
    SITES,
    USER,
    Both,
    Shape,
    door,
    host,
)
from dataflow.testing.bed.links import Crossed
from dataflow.testing.bed.state import State

Way = Literal["to", "from"]


class Bed:
    """The test bed that stands on this machine. Changing it needs root.

    Attributes
    ----------
    notebook
        The address under which sites reach programs of this machine's own namespace.
    ssh_config
        For ``ssh -F``: ``ssh -F … hpc``; ``edge-w1`` is reached by way of ``edge``.
    ssh_key, known_hosts
        The same for clients that read no configuration.
    user
        The account that sites know.
    python, base
        The interpreter of every host's environment, as hosts know it (``dataflow`` lies beside it),
        and the one that the environment was made with.
    queue
        Grid Engine's queue.
    s3
        The S3 server of ``cloud``.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self.notebook = NOTEBOOK
        self.ssh_config = ssh.CONFIG
        self.ssh_key = ssh.KEY
        self.known_hosts = ssh.KNOWN_HOSTS
        self.user = USER
        self.python = Path(state.python)
        self.base = Path(state.base)
        self.queue = QUEUE
        self.s3 = S3(s3.endpoint(), s3.ACCESS_KEY, state.secret)

    def __repr__(self) -> str:
        down = [one.name for one in self.hosts if not one.up]
        return f"<Bed of {len(HOSTS)} hosts{f', down: {down}' if down else ''}>"

    @classmethod
    def current(cls) -> Bed:
        """The bed that stands; BedError if none does."""
        state = states.load()
        if state is None:
            raise BedError("no test bed stands here; run hpc/testbed/bed-up (make bed) as root")
        return cls(state)

    @classmethod
    def ensure(cls, *, python: Path | None = None) -> Bed:
        """The bed, made or mended first; installs Debian packages if some are missing."""
        _call("up", *(() if python is None else ("--python", str(python))))
        return cls.current()

    @classmethod
    def of_this_python(cls) -> Bed:
        """The bed that stands, its hosts' environment of the interpreter that runs this.

        Functions travel between interpreters of one version only.
        """
        base = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
        bed = cls.current()
        return bed if bed.base == base else cls.ensure(python=base)

    @property
    def stands(self) -> bool:
        """Whether all hosts and links live; their daemons may not."""
        return up.stands()

    @property
    def hosts(self) -> tuple[Host, ...]:
        """All hosts."""
        return tuple(Host(self._state, plan) for plan in HOSTS)

    @property
    def links(self) -> tuple[Link, ...]:
        """The link of every site."""
        return tuple(Link(self._state, site) for site in SITES)

    def host(self, name: str) -> Host:
        """The host of that name, KeyError with the known ones."""
        return Host(self._state, host(name))

    def link(self, site: str) -> Link:
        """The road between that site and everybody else."""
        return Link(self._state, door(site).site)

    def address(self, name: str) -> str:
        """Where the notebook and other sites find that host; KeyError for an inner one."""
        return door(name).outside or ""

    def preset(self, name: str) -> None:
        """Shape all links at once: default, unshaped, scope, fog or late."""
        for site, shape in PRESETS[name].items():
            links.apply(self._state, site, shape)

    def restore(self) -> None:
        """Undo faults that leave everything alive: shapes, cuts, hangs, disks, clocks, S3 rules.

        Quick. Then :attr:`healthy` tells whether something died and :meth:`repair` is wanted.
        """
        for one in self.hosts:
            one.restore()
        for link in self.links:
            if link.alive:
                link.restore()
        if self.host("cloud").up and self.host("cloud").daemon("gate").up:
            self.s3.restore()

    def clear(self) -> None:
        """End what the user runs anywhere: jobs of the queue, sessions, and all that they left."""
        login = next(one for one in self.hosts if "qmaster" in one.plan.services)
        if login.up and login.daemon("qmaster").up:
            login.run(["qdel", "-f", "-u", USER], user="root", check=False, timeout=30)
        for one in self.hosts:
            for process in one.processes(user=USER):
                with contextlib.suppress(KeyError, ProcessLookupError):
                    one.end(process.pid)

    @property
    def healthy(self) -> bool:
        """Whether every host, link and daemon lives."""
        return self.stands and all(
            one.daemon(name).up for one in self.hosts for name in one.plan.services
        )

    def repair(self) -> None:
        """Restore, and start whatever died. What lived is left alone."""
        self.restore()
        _call("up")
        fresh = states.load()
        if fresh is None:
            raise BedError("the bed was taken down while it was repaired")
        for part in ("hosts", "holders", "cables", "python", "secret"):
            setattr(self._state, part, getattr(fresh, part))


class Link:
    """The road between one site and everybody else.

    ``to`` is always towards the site, ``from`` away from it. Two sites meet at the bridge: traffic
    between them crosses, and is counted on, the links of both.
    """

    def __init__(self, state: State, site: str) -> None:
        self._state = state
        self.site = site

    def __repr__(self) -> str:
        return f"<Link {self.site} {self.bytes if self.alive else 'gone'}>"

    @property
    def alive(self) -> bool:
        """Whether there is such a road at all; a cut one lives."""
        cable = self._state.cables.get(self.site)
        return cable is not None and cable.there

    @property
    def bytes(self) -> Crossed:
        """Bytes of whole frames that came out at the far end; differences of two readings count.

        The kernel's counters, which begin at 0 again when a host or link was repaired.
        """
        return links.delivered(self._state, self.site)

    @property
    def payload(self) -> Crossed:
        """What of :attr:`bytes` TCP carried: 66 bytes of headers less for each frame, counted too.

        Acknowledgements come to nothing. Questions for addresses, which are no TCP, are taken for
        24 bytes less than nothing.
        """
        return links.payload(self._state, self.site)

    @property
    def sent(self) -> Crossed:
        """Bytes that were put in at the near end, whether they arrived or not."""
        return links.sent(self._state, self.site)

    @property
    def lost(self) -> Crossed:
        """Frames that the link lost by a cut, by its loss, or because the far end was down."""
        facts = links.tell(self.site, {})
        return Crossed(to=facts["to"]["lost"], from_=facts["from"]["lost"])

    @property
    def like(self) -> Shape:
        """What it is like now, cuts aside."""
        return links.shape_of(self.site)

    def shape(
        self,
        *,
        rate: float | tuple[float, float] | None = None,
        latency: float | tuple[float, float] | None = None,
        loss: float | tuple[float, float] | None = None,
    ) -> None:
        """Change what is named and nothing else, at once; one value for both ways, or (to, from).

        Parameters
        ----------
        rate
            Bytes per second on the wire; 0 for no limit. A program sees 4 to 5 % less of it.
        latency
            Seconds under way; a round trip from the notebook takes both ways.
        loss
            Probability that a frame is lost; the same frames in every run of the same traffic.
        """
        given = {"rate": rate, "latency": latency, "loss": loss}
        changes = {name: _both(name, value) for name, value in given.items() if value is not None}
        links.apply(self._state, self.site, replace(self.like, **changes))

    def cut(self, *, one_way: Way | None = None) -> None:
        """Lose every frame from now on, those under way included; nobody is told.

        Connections stay open on both sides, as when a cable is pulled somewhere far away.
        """
        for way in ("to", "from") if one_way is None else (one_way,):
            links.tell(self.site, {way: {"open": False}})

    def heal(self) -> None:
        """Undo :meth:`cut`; connections whose programs waited go on."""
        links.tell(self.site, {"to": {"open": True}, "from": {"open": True}})

    def restore(self) -> None:
        """Heal, and the shape of the preset ``default``."""
        self.heal()
        if self.like != PRESETS["default"][self.site]:
            links.apply(self._state, self.site, PRESETS["default"][self.site])


@dataclass(frozen=True, slots=True)
class S3:
    """The S3 server of ``cloud``, and the gate before it.

    The link's rate and delay hold for it too; the gate adds what only a server can do wrong.
    """

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"

    @property
    def credentials(self) -> dict[str, str]:
        """The keys, under the names that stores know."""
        return {"access_key_id": self.access_key, "secret_access_key": self.secret_key}

    @property
    def options(self) -> tuple[tuple[str, str], ...]:
        """What a store needs to know beside its URL and the keys."""
        return (("endpoint", self.endpoint), ("region", self.region))

    def client(self, *, attempts: int = 3, seconds: float = 5.0) -> Any:
        """A botocore client that waits so many seconds for an answer, in each attempt."""
        import botocore.config
        import botocore.session

        return botocore.session.Session().create_client(
            "s3",
            region_name=self.region,
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=botocore.config.Config(
                retries={"total_max_attempts": attempts},
                connect_timeout=min(seconds, 2.0),
                read_timeout=seconds,
                s3={"addressing_style": "path"},
            ),
        )

    def declared(self, bucket: str, **more: str) -> dict[str, Any]:
        """A store of a site file in this bucket; its credential's name is ``bucket``."""
        return {
            "url": f"s3://{bucket}/flow",
            "credentials": "bucket",
            "options": {**dict(self.options), "path_style": "true"},
            **more,
        }

    @property
    def rules(self) -> list[Rule]:
        """What the gate was told, with how often each rule was met."""
        facts = control.ask(s3.gate_socket(), {})
        return [Rule(**rule) for rule in facts["rules"]]

    @property
    def requests(self) -> dict[str, int]:
        """Requests that the gate saw since it was started, by method."""
        return dict(control.ask(s3.gate_socket(), {})["requests"])

    def fault(self, *rules: Rule) -> None:
        """Let these rules decide from the next request on, instead of all earlier ones."""
        _gate({"rules": [asdict(rule) for rule in rules]})

    def slow(self, rate: float) -> None:
        """Serve at most so many bytes per second, all connections and both ways together."""
        _gate({"rate": rate})

    def restore(self) -> None:
        """No rules, no limit."""
        _gate({"rules": [], "rate": 0.0})


def _gate(question: dict[str, object]) -> None:
    try:
        control.ask(s3.gate_socket(), question)
    except OSError as error:
        raise BedError("the gate before the S3 server is gone; Bed.repair() starts it") from error


def _both(name: str, value: float | Sequence[float]) -> Both:
    to, from_ = (value, value) if isinstance(value, int | float) else value
    most = 1.0 if name == "loss" else float("inf")
    if not (0 <= to <= most and 0 <= from_ <= most):
        raise ValueError(f"{name} cannot be {value!r}")
    return Both(float(to), float(from_))


def _call(*words: str) -> None:
    """Do it as bed-up does, in a process of its own with Debian's Python."""
    done = subprocess.run(
        [PYTHON, "-m", "dataflow.testing.bed", *words],
        check=False,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise BedError(f"bed {words[0]} failed:\n{done.stderr.strip()}")
