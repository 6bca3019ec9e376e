"""What a site file says, as frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dataflow.agreements import Agreement, Archetype
from dataflow.sites import Link, Site
from dataflow.stores import Store

#: In the state directory: a pair that the agent has made.
CERTIFICATE_FILE, KEY_FILE = "certificate.pem", "key.pem"

BackendKind = Literal["local", "ssh", "sge", "kubernetes", "jobqueue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where this site's agent answers: a Unix socket, or a host and a port (0: any free one).

    With ``certificate`` and ``key`` it speaks TLS; with ``own`` it makes these two by itself, in the
    state directory. ``public`` is the address to tell others, where it is not the one to listen on:
    of a proxy or a tunnel in front of the agent.
    """

    host: str = "127.0.0.1"
    port: int = 0
    socket: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    own: bool = False
    public: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Who signs tokens that this site's agent believes, and how it reads them.

    Attributes
    ----------
    issuer
        As it calls itself (the claim ``iss``), and below which it describes itself.
    audience
        For whom its tokens have to be; empty for the site's name.
    user
        Claim that has the name of the user, to which ``suffix`` is added, so that two issuers
        cannot speak of the same.
    groups
        Claim that lists groups, with dots where it is inside another (``realm_access.roles``).
    roles
        Role → groups of which one is enough. Without any, everybody is a user.
    longest
        Seconds for which a token may be good.
    keys
        URL of its keys; empty to ask the issuer where they are.
    """

    issuer: str
    audience: str = ""
    user: str = "sub"
    suffix: str = ""
    groups: str = ""
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    longest: float = 3600.0
    keys: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SshAccess:
    """What it takes to start, or find, a site's agent on its login host.

    ``site_file``, ``python`` and ``state`` are paths there, from the home directory unless they
    begin with ``/``; ``state`` is by default what the site file says. ``config`` and
    ``known_hosts`` are files here, by default those of the account.

    With ``bootstrap`` the environment of ``python`` is made if it is not there: ``uv`` takes what is
    needed from an index or from the directory ``wheels`` there, ``copy`` from here. ``extras`` are
    those of our own distribution that it gets.
    """

    site_file: str = "dataflow/site.yaml"
    python: str = "dataflow/env/bin/python"
    state: str | None = None
    config: Path | None = None
    known_hosts: Path | None = None
    bootstrap: Literal["uv", "copy"] | None = None
    wheels: str | None = None
    extras: tuple[str, ...] = ("service",)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAddress:
    """An agent to join the federation by, and the *name* of the token to show it.

    ``site`` is its name where the file gives one; one address is enough to learn the others.
    ``ssh`` is there if the address begins with ``ssh://``. ``only`` this address leads there from
    here, whatever the agent says of itself. Whoever does not have the key of ``certificate`` is not
    this agent.
    """

    address: str
    credentials: str | None = None
    site: str | None = None
    ssh: SshAccess | None = None
    only: bool = False
    certificate: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """Data to register when the site starts; what is registered already stays as it is."""

    url: str
    name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    owner: str = ""
    variable: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """How this site gets its workers: how many, threads of each, bytes of memory of each.

    ``settings`` is the record of the kind's own section in the site file; ``None`` for ``local``.
    """

    kind: BackendKind = "local"
    workers: int = 1
    threads: int = 1
    memory: int = 2_000_000_000
    settings: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """A site file: who takes part, as far as its author knows.

    Attributes
    ----------
    sites
        This process's own site first, if it has one, then the others in the order of the file.
    stores, links
        Declared ones; a link between two sites in both directions is two. A store of another site
        is one that we open ourselves.
    me
        Name of the site that this process serves, ``None`` for a visitor.
    listen
        Where its agent answers; ``None`` if the file leaves that open.
    peers
        Agents to join by: every other site with an address, then the bare addresses.
    state
        Directory for the catalog, the journals and the temporary files of this site.
    datasets
        To register at the start.
    agreements, archetypes
        What the owners of data here grant, and archetypes beside those that are shipped.
    operations
        What a steward runs for others, as ``module:name``.
    loaded_at
        Share of its workers' CPU or memory from which on this site counts as loaded; ``None`` to
        tell nobody.
    issuers
        Whose tokens its agent believes, beside those of its own file.
    backend
        Workers of this site; the numbers are those of its `Site` record.
    away_after, lost_after
        Seconds of silence until a site is shown as away, until its work is given to others.
    file
        Where all this was read, empty if not from a file.
    """

    sites: tuple[Site, ...] = ()
    stores: tuple[Store, ...] = ()
    links: tuple[Link, ...] = ()
    me: str | None = None
    listen: Listen | None = None
    peers: tuple[PeerAddress, ...] = ()
    state: Path
    datasets: tuple[Registration, ...] = ()
    agreements: tuple[Agreement, ...] = ()
    archetypes: tuple[Archetype, ...] = ()
    operations: tuple[str, ...] = ()
    loaded_at: float | None = None
    issuers: tuple[Issuer, ...] = ()
    backend: Backend = field(default_factory=Backend)
    away_after: float = 5.0
    lost_after: float = 8.0
    file: str = ""

    @property
    def site(self) -> Site | None:
        """The record of this process's own site."""
        return next((site for site in self.sites if site.name == self.me), None)

    @property
    def pair(self) -> tuple[Path, Path] | None:
        """Files of the certificate and the key of this site's agent; ``None`` without TLS."""
        listen = self.listen
        if listen is not None and listen.own:
            return self.state / CERTIFICATE_FILE, self.state / KEY_FILE
        if listen is None or listen.certificate is None or listen.key is None:
            return None
        return listen.certificate, listen.key

    @property
    def certificates(self) -> Mapping[str, Path]:
        """Sites that are known by their certificate, and the file of each."""
        return {p.site: p.certificate for p in self.peers if p.site and p.certificate is not None}

    @property
    def views(self) -> tuple[Store, ...]:
        """Stores of other sites that this process opens itself."""
        return tuple(store for store in self.stores if store.site != self.me)
