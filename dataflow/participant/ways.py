"""Ways: how this participant reaches the agents of other sites, and which token it shows there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from math import inf
from time import monotonic
from urllib.parse import urlsplit

import structlog

from dataflow.client import AgentClient
from dataflow.client.pinned import pinned_tls, shown
from dataflow.client.reaches import reaching
from dataflow.client.ssh import SshReach
from dataflow.config import Federation
from dataflow.errors import ConfigError, SiteUnreachable
from dataflow.patience import Patience
from dataflow.sites import Site, Topology
from dataflow.storage import credentials as secrets

log = structlog.get_logger(__name__)


class Ways:
    """Clients of other agents, one per address; for one event loop.

    A token is shown only at an address for which this participant's own site file, its own
    credentials file or its administrator names it. What other sites say may bring us to an
    address, never make us show a token there. Nor to an address at which somebody else answers for a site
    that is known by its certificate.

    Parameters
    ----------
    federation
        Whose peers have addresses and names of credentials.
    caller
        Who we are, for the others' ledgers.
    topology
        The world as it is known now.
    silent
        Seconds since a site answered us last, whatever it was asked.
    reaches
        Ways through login hosts that were begun before; see :func:`~dataflow.client.reaches.reaching`.

    Raises
    ------
    ConfigError
        If a certificate that the site file names cannot be read.
    """

    def __init__(
        self,
        federation: Federation,
        caller: str,
        topology: Callable[[], Topology],
        silent: Callable[[str], float] = lambda site: inf,
        reaches: Mapping[str, SshReach] | None = None,
    ) -> None:
        self._caller, self._topology, self._silent = caller, topology, silent
        self._named = {peer.address.rstrip("/"): peer.credentials for peer in federation.peers}
        self._by_site = {peer.site: peer.address for peer in federation.peers if peer.site}
        self._ssh = dict(reaching(federation) if reaches is None else reaches)
        pinned = {p.address.rstrip("/"): p.certificate for p in federation.peers if p.certificate}
        self._tls = {at: pinned_tls(file, shown(federation)) for at, file in pinned.items()}
        self._only = {p.site for p in federation.peers if p.only or p.certificate is not None}
        self._clients: dict[tuple[str, str], AgentClient] = {}
        self._patience: dict[str, Patience] = {}

    def check(self) -> None:
        """Resolve every credential that the site file names.

        Raises
        ------
        ConfigError
            If one is not there, before anything is asked of anybody.
        """
        for name in self._named.values():
            secrets.resolve(name)

    def allow(self, address: str, credentials: str | None) -> None:
        """Show this token at this address from now on; an administrator's word.

        Without a name nothing changes: what is shown there already goes on being shown.
        """
        if credentials is None:
            return
        secrets.resolve(credentials)
        self._named[address.rstrip("/")] = credentials
        for place in [place for place in self._clients if place[0] == address.rstrip("/")]:
            del self._clients[place]

    def at(self, address: str, credentials: str | None = None) -> AgentClient:
        """The client for an address; ``credentials`` as others suggest it is not used."""
        del credentials
        return self._client(address.rstrip("/"), "")

    def to(self, site: str) -> AgentClient:
        """The client for a site's agent.

        Raises
        ------
        SiteUnreachable
            If nobody has told us where it answers.
        """
        record = self._topology().site_by_name.get(site)
        named = self._by_site.get(site)
        # What such an agent says of itself, a socket or a port on its own host, leads nowhere here.
        only = named if named is not None and (site in self._only or self.by_ssh(site)) else None
        address = only or (record.address if record else None) or named
        if not address:
            raise SiteUnreachable(site, "it is not known where its agent answers")
        try:
            return self._client(address.rstrip("/"), site)
        except ConfigError as error:
            raise SiteUnreachable(site, str(error)) from error

    def _client(self, address: str, site: str) -> AgentClient:
        client = self._clients.get((address, site))
        if client is None:
            record = Site(name=site or address, address=address)
            reach = self._ssh.get(address)
            token = self._token(address) if reach is None else None
            patience = self._patience.setdefault(address, Patience())
            client = AgentClient(
                record,
                token,
                caller=self._caller,
                reach=reach,
                tls=self._tls.get(address),
                patience=patience,
                there=lambda: patience.is_there(monotonic(), silent=self._silent(site)),
            )
            self._clients[address, site] = client
        return client

    def slowness(self, site: str) -> float:
        """Seconds that an answer of a site may take beyond what is usual on a fast road."""
        try:
            patience = self._patience.get(self.to(site).address.rstrip("/"))
        except SiteUnreachable:
            return 0.0
        return patience.more if patience is not None else 0.0

    def beginning(self, site: str) -> float:
        """Seconds for which a site's login host has been looking for its agent, or starting it.

        It is not silent meanwhile. 0 where the agent answers, and without SSH.
        """
        reach = self._ssh.get(self._by_site.get(site, "").rstrip("/"))
        return reach.beginning if reach is not None else 0.0

    async def close(self) -> None:
        """Give up all connections."""
        for client in self._clients.values():
            await client.close()
        self._clients.clear()
        await asyncio.gather(*(reach.close() for reach in self._ssh.values()))

    async def open(self) -> None:
        """Connect to all sites behind SSH, at the same time; say of which it failed, and why."""
        found = await asyncio.gather(
            *(reach.ready() for reach in self._ssh.values()), return_exceptions=True
        )
        for reach, answer in zip(self._ssh.values(), found, strict=True):
            if isinstance(answer, Exception):
                log.warning("site_not_reached", site=reach.site, reason=str(answer))

    def opened(self) -> list[str]:
        """Sites behind SSH to whose agent the way stands."""
        found = []
        for site, address in self._by_site.items():
            reach = self._ssh.get(address.rstrip("/"))
            if reach is not None and reach.door is not None:
                found.append(site)
        return found

    def by_ssh(self, site: str) -> bool:
        """Whether this participant reaches a site through its login host."""
        named = self._by_site.get(site)
        return named is not None and named.rstrip("/") in self._ssh

    async def dashboard(self, site: str) -> str | None:
        """URL of the page of a site's Dask scheduler: over our connection if it is behind SSH.

        Raises
        ------
        SiteUnreachable, SiteRefused
            If its agent does not answer.
        """
        found = (await self.to(site).hello()).get("dashboard")
        if found is None:
            return None
        reach = self._ssh.get((self._by_site.get(site) or "").rstrip("/"))
        parts = urlsplit(str(found))
        if reach is None or not parts.hostname or not parts.port:
            return str(found)
        port = await reach.forward(parts.hostname, parts.port)
        return parts._replace(netloc=f"127.0.0.1:{port}").geturl()

    def _token(self, address: str) -> str | None:
        if address in self._named:
            name = self._named[address]
            found = secrets.resolve(name)
        else:
            name, found = address, secrets.for_address(address)
        if not found:
            return None
        if "token" not in found:
            raise ConfigError(f"the credential {name!r} has no field 'token'")
        return found["token"]
