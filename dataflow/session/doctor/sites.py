"""Sites: what is between us and another site's agent, step by step until one fails."""

from __future__ import annotations

import ipaddress
import socket
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from dataflow.client.connection import is_loopback
from dataflow.client.look import Ask, Look, NoAnswer, looking
from dataflow.client.look_there import There, look_there
from dataflow.client.pinned import fingerprint, pinned_tls, read_certificate
from dataflow.client.ssh import SshReach
from dataflow.config.records import PeerAddress, SshAccess
from dataflow.errors import ConfigError, DataflowError, SiteError
from dataflow.session.doctor import judge
from dataflow.session.doctor.checks import Notes, failed, from_error, in_thread, ok, warning
from dataflow.storage import credentials as secrets
from dataflow.versions import versions

#: Seconds for a question over HTTP; for all about one site; for a command behind SSH, where a
#: login and Python on a network file system take their time.
ANSWER_SECONDS, SITE_SECONDS, SSH_SECONDS = 4.0, 10.0, 15.0


async def examine_site(
    other: PeerAddress, notes: Notes, pair: tuple[Path, Path] | None = None
) -> None:
    """All checks of one other site, which is shown the certificate of ``pair`` if it wants one."""
    if other.ssh is not None:
        await _by_ssh(other, other.ssh, notes)
    else:
        await _by_http(other, pair, notes)


# --- HTTP -----------------------------------------------------------------------------------------


async def _by_http(other: PeerAddress, pair: tuple[Path, Path] | None, notes: Notes) -> None:
    parts = urlsplit(other.address)
    if parts.scheme == "unix":
        notes.begin("socket")
        path = Path(f"/{unquote(parts.path).lstrip('/')}")
        there = await in_thread(path.is_socket)
        advice = "start the agent that listens on it, or mend address:"
        if not notes.end(ok(str(path)) if there else failed(f"there is no socket {path}", advice)):
            return
    elif not await resolves(parts.hostname or "", parts.scheme, notes):
        return
    tls = None
    if other.certificate is not None:
        notes.begin("certificate")
        try:
            tls = pinned_tls(other.certificate, pair)
        except ConfigError as error:
            notes.end(from_error(error, "mend certificate:"))
            return
        shown = fingerprint(read_certificate(other.certificate))
        notes.end(ok(f"only {shown} is believed there"))
    async with looking(other.address, seconds=ANSWER_SECONDS, tls=tls) as ask:
        notes.begin("reach")
        try:
            look = await ask("/v1/health")
        except NoAnswer as error:
            pinned = tls is not None
            notes.end(judge.no_answer(error.step, error.reason, other.address, pinned=pinned))
            return
        if not notes.end(judge.health(look)):
            return
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            notes.add(
                "encryption",
                warning("the token and the data travel unencrypted", "use https:// or ssh://"),
            )
        await _with_token(other, ask, notes)


async def _with_token(other: PeerAddress, ask: Ask, notes: Notes) -> None:
    notes.begin("token")
    shown = other.credentials or ""
    try:
        named = secrets.resolve(shown) if shown else secrets.for_address(other.address.rstrip("/"))
    except ConfigError as error:
        notes.end(from_error(error, "mend the credentials file"))
        return
    label = f"credential {shown}" if shown else "the token of this address" if named else ""
    look = await _asked(ask, "/v1/site", notes, other.address, named.get("token"))
    if look is None or not notes.end(judge.token(look, shown=label)):
        return
    answer = look.document
    site = str(answer["site"].get("name"))
    notes.add("name", judge.name(site, other.site))
    theirs = answer.get("versions") or {}
    if theirs:
        notes.add("versions", judge.agreement(versions(), theirs, site))
    else:
        said = f"it tells its own only: {answer.get('version')}"
        notes.add(
            "versions", warning(said, "an older agent: bring it to the version that runs here")
        )
    notes.add("clock", judge.clock(look.ahead(answer.get("time"))))
    notes.begin("latency")
    look = await _asked(ask, "/v1/health", notes, other.address)
    if look is not None:
        notes.end(judge.latency(look.seconds))


async def _asked(
    ask: Ask, path: str, notes: Notes, address: str, token: str | None = None
) -> Look | None:
    try:
        return await ask(path, token=token)
    except NoAnswer as error:
        notes.end(judge.no_answer(error.step, error.reason, address))
        return None


async def resolves(host: str, scheme: str, notes: Notes) -> bool:
    """Check that a host has an address; one behind a proxy is resolved by that."""
    with suppress(ValueError):
        ipaddress.ip_address(host)
        return True  # it is one
    notes.begin("name lookup")
    proxies = getproxies()
    proxied = scheme in proxies or "all" in proxies
    if proxied and not is_loopback(host) and not proxy_bypass(host):
        return notes.end(ok(f"{host} is reached through a proxy"))
    try:
        found = await in_thread(lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except OSError as error:
        advice = "mend the address in the site file; or does the name need a VPN?"
        return notes.end(failed(f"{host}: {error.strerror or error}", advice))
    return notes.end(ok(f"{host} is {found[0][4][0]}"))


# --- SSH ------------------------------------------------------------------------------------------


async def _by_ssh(other: PeerAddress, access: SshAccess, notes: Notes) -> None:
    reach = SshReach(other.site or other.address, other.address, access)
    try:
        there = await login(reach, notes)
        if not there:
            return
        paths = [access.site_file, *([access.state] if access.state is not None else [])]
        found = await looked_there(reach, access.python, notes, *paths)
        if found is None or not site_file(found, other, access, notes):
            return
        fits = notes.add(
            "versions", judge.agreement(versions(), found.versions, found.site or reach.site)
        )
        notes.add("clock", judge.clock(found.ahead))
        notes.begin("latency")
        began = time.monotonic()
        await reach.run("true", seconds=ANSWER_SECONDS)
        notes.end(judge.latency(time.monotonic() - began))
        if fits:
            await _agent_there(reach, found, notes)
    finally:
        await reach.close()


async def login(reach: SshReach, notes: Notes) -> bool:
    """Check that a host lets us in."""
    notes.begin("login")
    try:
        await reach.login()
    except SiteError as error:
        return notes.end(judge.login(error))
    except DataflowError as error:
        return notes.end(from_error(error, "mend the SSH configuration"))
    return notes.end(ok(f"{reach.address} lets us in"))


async def looked_there(reach: SshReach, python: str, notes: Notes, *paths: str) -> There | None:
    """Check that Python and dataflow are on a host; what they say, if they do."""
    notes.begin("python")
    found = await look_there(reach, python, *paths, seconds=SSH_SECONDS)
    if found.complaint:
        advice = f"make an environment there with jupyter-dataflow in it; python: says {python}"
        notes.end(failed(f"no Python at {python}: {found.complaint}", advice))
        return None
    if found.missing:
        said = f"python {found.python} has no dataflow, or too old a one: {found.missing}"
        notes.end(failed(said, f"there: {python} -m pip install -U jupyter-dataflow"))
        return None
    notes.end(ok(f"{python} is {found.python}"))
    return found


def site_file(found: There, other: PeerAddress, access: SshAccess, notes: Notes) -> bool:
    """Check the site file on a login host."""
    notes.begin("site file")
    if found.wrong:
        advice = f"write one there, or mend it: site_file: says {access.site_file}"
        return notes.end(failed(found.wrong, advice))
    if found.site is None:
        advice = "add site: {name: ...} to it"
        return notes.end(failed(f"{access.site_file} has no site: of its own", advice))
    return notes.end(judge.name(found.site, other.site))


async def _agent_there(reach: SshReach, found: There, notes: Notes) -> None:
    """Ask the agent if it runs; none is started for this."""
    notes.begin("agent")
    if not found.runs:
        notes.end(ok("none runs now; it is started when it is needed"))
        return
    door = await reach.ready()
    async with looking(door.url, seconds=ANSWER_SECONDS) as ask:
        look = await _asked(ask, "/v1/site", notes, reach.address, door.token)
        if look is not None:
            notes.end(judge.token(look, shown="its own token"))
