"""The site file: who takes part, in one YAML format for notebooks and for agents.

A scientist's ``sites.yaml``, complete::

    site: {name: laptop, workers: 2, memory: 4 GB}
    stores:
      - {name: results, url: ./results}
    sites:
      - {name: uva, address: "https://uva.example.org:8787", credentials: uva}
      - {name: amc, address: "https://amc.example.org:8787", credentials: amc}
    links:
      - {between: [uva, amc], bandwidth: 50 Mbit/s, latency: 10 ms}

An agent's ``site.yaml`` is the same with more of its own::

    site: {name: uva, workers: 8, threads: 2, memory: 16 GB, trust: steward}
    listen: 127.0.0.1:8787                  # or unix:./agent.sock
    state: ./state
    stores:
      - {name: data, url: ./data, purpose: data}
      - name: results
        url: s3://uva-results
        credentials: uva-minio              # a name; secrets never stand in this file
        options: {endpoint: "http://127.0.0.1:9000", path_style: true}
    datasets:
      - {url: ./data/run1.h5, name: run1, tags: {system: adk}, owner: anna}
    agreements:                             # what owners of data here grant; see "Agreements"
      - name: runs
        relations:
          - {id: anna, users: [anna], request_types: ["*"], datasets: [run1],
             archetypes: [computeToData]}
    peers: ["https://amc.example.org:8787"]
    timeouts: {away_after: 5 s, lost_after: 8 s}

What holds:

- ``site`` is the site that this process serves; without it the process is a visitor.
- ``sites`` are others. One is enough: the rest of the federation is learned from it.
- ``peers`` are agents whose site's name is not known here: an address, or
  ``{address: …, credentials: …}``.
- A site with an address ``ssh://user@host`` needs nothing but that account: its agent is started
  there when it is first needed. ``ssh: {site_file: …, python: …}`` says with what, as paths there.
- A site without an address is its stores, a bucket for instance: ``{name: cloud, workers: 0}``, and
  a store with ``site: cloud``. Whoever has such a store in its own file, with credentials of its
  own, reads and writes there itself.
- A store with the ``site`` of another that has an agent says that we open that store ourselves.
- ``links`` are declared roads, ``between`` two sites in both directions or ``source`` to
  ``target`` in one. Measurements replace them.
- Stores are ``file`` (or a path) and ``s3``; ``sftp://host/path`` and ``https://…`` are only read, so
  their purpose is ``data``, which one may leave out.
- ``room: 500 GB`` of a store says how much results and copies may take there in all; plans keep to it, as far
  as the catalog knows what is there.
- A store without ``site`` is one of our own. Relative paths begin at the file's directory.
- ``listen`` may be ``{address: 127.0.0.1:8787, public: "https://uva.example.org"}``: what others
  are told is the public address, of a proxy or tunnel in front of the agent.
- ``backend`` says how workers are obtained: ``{kind: local}``; numbers of workers stand there
  or in ``site``.
- ``watts`` of a site is the power of one worker at work, ``egress`` the price of a GB that leaves it, and
  ``egress_to: {uva: 0}`` another price for what goes to one site; in any unit of money, the same at all
  sites. Plans add them up, and can be made for them.
- ``loaded_at: 0.8`` of ``site`` tells the others when that share of its workers' CPU or memory is in use, and then
  a third party is preferred to compute with its data, where agreements leave the choice.
- ``identity`` lists whose signed tokens the agent believes: ``{issuer: "https://sso.example.org/realms/lab",
  audience: dataflow, user: preferred_username, groups: realm_access.roles, roles: {user: [staff]}}``.
- ``agreements`` says what owners of data at this site grant to whom, ``archetypes`` adds shapes
  of collaboration to those that are shipped, and ``site: {operations: ["package.module:name"]}``
  is all that a steward runs for others.
- Sizes, rates and durations have units.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dataflow.config import shapes
from dataflow.config.marked import Marked, did_you_mean, read_marked
from dataflow.config.records import (
    Backend,
    Federation,
    Issuer,
    Listen,
    PeerAddress,
    Registration,
    SshAccess,
)
from dataflow.config.settings import state_directory
from dataflow.errors import ConfigError
from dataflow.sites import Link, Site
from dataflow.stores import Store


def read_site_file(path: str | os.PathLike[str]) -> Federation:
    """Read and check a site file.

    Raises
    ------
    ConfigError
        With file, dotted path and line of what is wrong; further errors follow in its text.
    """
    file = Path(path).expanduser()
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError("there is no such file", str(file)) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError("not readable as YAML: not UTF-8 text", str(file), "", line) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", str(file)) from None
    return parse_site_file(text, file=str(file), directory=file.absolute().parent)


def parse_site_file(
    text: str, *, file: str = "<text>", directory: str | os.PathLike[str] = "."
) -> Federation:
    """Check the text of a site file; relative paths begin at ``directory``.

    Raises
    ------
    ConfigError
        As :func:`read_site_file`.

    Examples
    --------
    >>> parse_site_file("site: {name: laptop, memory: 4 GB}").sites[0].memory
    4000000000
    """
    marked = read_marked(text, file, words=("tags", "options"))
    if not isinstance(marked.value or {}, dict):
        raise ConfigError("must be a mapping: site, sites, stores, links …", file, "", 1)
    try:
        document = shapes.SiteFile.model_validate(marked.value or {})
    except ValidationError as error:
        for detail in error.errors():
            _complain(marked, detail)
        document = None
    if document is not None:
        _cross_check(marked, document)
    else:
        _check_names(marked)
    marked.check()
    assert document is not None, "a document that was refused has complaints"
    federation = _records(marked, document, Path(directory).absolute(), file)
    marked.check()
    return federation


def load_schema() -> dict[str, Any]:
    """JSON schema of the site file, for editors that check and complete while one types."""
    schema = shapes.SiteFile.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


# --- complaints ------------------------------------------------------------------------------


def _complain(marked: Marked, detail: Any) -> None:
    path, value = detail["loc"], detail["input"]
    match detail["type"]:
        case "extra_forbidden":
            known = shapes.keys_at(path[:-1])
            hint = did_you_mean(str(path[-1]), known) or f"; known are {', '.join(known)}"
            message = f"unknown key {path[-1]!r}{hint}"
        case "missing":
            message = f"{path[-1]!r} is missing"
        case "string_type":
            message = f"must be text, not {value!r}"
            if isinstance(value, bool | int | float):
                message += "; put it in quotes"
        case "int_type" | "int_from_float" | "int_parsing":
            message = f"must be a whole number, not {value!r}"
        case "float_type":
            message = f"must be a number, not {value!r}"
        case "list_type":
            message = "must be a list, each entry after a dash"
        case "dict_type" | "model_type" | "model_attributes_type":
            message = f"must be a mapping, not {value!r}"
        case "literal_error":
            message = f"must be {detail['ctx']['expected']}, not {value!r}"
        case "greater_than" | "greater_than_equal":
            least = detail["ctx"].get("gt", detail["ctx"].get("ge"))
            more = "more than" if detail["type"] == "greater_than" else "at least"
            message = f"must be {more} {least:g}, not {value!r}"
        case "value_error":
            message = str(detail["ctx"]["error"])
        case _:
            message = f"{detail['msg']}, not {value!r}"
    marked.complain(path, message)


_NAMED = (
    ("sites", "site"),
    ("datasets", "dataset"),
    ("stores", "store"),
    ("agreements", "agreement"),
    ("archetypes", "archetype"),
)


def _check_names(marked: Marked) -> None:
    """Complain of names that stand twice, also in a document that has other errors."""
    value: Mapping[str, Any] = marked.value or {}
    own = value.get("site")
    me = own.get("name") if isinstance(own, dict) else None
    first: dict[tuple[str, str | None, str], int] = {}
    if isinstance(me, str):
        first["site", None, me] = marked.line(("site", "name"))
    for section, noun in _NAMED:
        entries = value.get(section)
        for i, entry in enumerate(entries if isinstance(entries, list) else ()):
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                continue
            home = str(entry.get("site", me)) if noun == "store" else None
            name, path = (noun, home, entry["name"]), (section, i, "name")
            if name in first:
                text = f"another {noun} is called {entry['name']!r}, first in line {first[name]}"
                marked.complain(path, text)
            else:
                first[name] = marked.line(path)


def _cross_check(marked: Marked, document: shapes.SiteFile) -> None:
    _check_names(marked)
    me = document.site.name if document.site else None
    names = [site.name for site in (*([document.site] if document.site else ()), *document.sites)]
    for i, store in enumerate(document.stores):
        if store.site is None and me is None:
            marked.complain(("stores", i), "whose is it? give it a site, or the file a site:")
        elif store.site is not None and store.site not in names:
            hint = did_you_mean(store.site, names)
            marked.complain(("stores", i, "site"), f"no site is called {store.site!r}{hint}")
    with_stores = {store.site for store in document.stores}
    for i, site in enumerate(document.sites):
        if site.address is None and site.name not in with_stores:
            message = "it has no address, so it is its stores: give one of them this site"
            marked.complain(("sites", i), message)
    pairs: Counter[tuple[str, str]] = Counter()
    for i, link in enumerate(document.links):
        for key, name in link.ends():
            if name not in names:
                hint = did_you_mean(name, names)
                marked.complain(("links", i, *key), f"no site is called {name!r}{hint}")
        for pair in link.pairs():
            pairs[pair] += 1
            if pairs[pair] == 2:
                marked.complain(("links", i), f"the link {pair[0]} → {pair[1]} stands there twice")
    for section in ("listen", "datasets", "agreements", "archetypes"):
        if me is None and getattr(document, section):
            marked.complain((section,), "is for a site that is served: say which in site:")
    timeouts = document.timeouts
    if timeouts.lost_after < timeouts.away_after:
        marked.complain(("timeouts",), "lost_after must not be shorter than away_after")
    if document.site is not None and document.backend is not None:
        for name in ("workers", "threads", "memory"):
            if getattr(document.site, name) is not None and getattr(document.backend, name):
                marked.complain(("backend", name), f"is said twice: here and in site.{name}")


# --- records ---------------------------------------------------------------------------------


def _records(marked: Marked, document: shapes.SiteFile, directory: Path, file: str) -> Federation:
    own, backend = document.site, document.backend
    me = own.name if own else None
    sites: list[Site] = []
    if own is not None:
        settings = backend.settings() if backend else None
        lives = getattr(settings, "walltime", None) or 0.0
        sites.append(replace(own.record(fallback=backend), walltime=lives))
    sites += [
        replace(
            site.record(address=site.address, credentials=site.credentials),
            stores_only=site.address is None,
        )
        for site in document.sites
    ]
    peers = [
        PeerAddress(
            address=site.address,
            credentials=site.credentials,
            site=site.name,
            ssh=_ssh(site, directory),
            certificate=(
                shapes.resolved(site.certificate, directory) if site.certificate else None
            ),
        )
        for site in document.sites
        if site.address is not None
    ]
    peers += [
        PeerAddress(address=other.address, credentials=other.credentials)
        for other in document.peers
    ]
    mine = sites[0] if own is not None else Site(name="")
    state = shapes.resolved(document.state, directory) if document.state else None
    return Federation(
        sites=tuple(sites),
        stores=tuple(_store(store, me, directory) for store in document.stores),
        links=tuple(
            Link(source=source, target=target, bandwidth=link.bandwidth, latency=link.latency)
            for link in document.links
            for source, target in link.pairs()
        ),
        me=me,
        listen=_listen(marked, document, directory),
        peers=tuple(peers),
        state=state or (state_directory() / me if me else state_directory()),
        datasets=tuple(_registration(entry, directory) for entry in document.datasets),
        agreements=tuple(entry.record(me or "") for entry in document.agreements),
        archetypes=tuple(entry.record() for entry in document.archetypes),
        operations=tuple(own.operations) if own else (),
        loaded_at=own.loaded_at if own else None,
        issuers=_issuers(marked, document),
        backend=Backend(
            kind=backend.kind if backend else "local",
            settings=backend.settings() if backend else None,
            workers=mine.workers,
            threads=mine.threads,
            memory=mine.memory,
        ),
        away_after=document.timeouts.away_after,
        lost_after=document.timeouts.lost_after,
        file=file,
    )


def _store(store: shapes.StoreShape, me: str | None, directory: Path) -> Store:
    return Store(
        name=store.name,
        site=store.site or me or "",
        url=shapes.absolute_url(store.url, directory),
        purpose=store.purpose or ("data" if store.only_read else "results"),
        credentials=store.credentials,
        options=tuple(sorted(store.options.items())),
        room=store.room or 0,
    )


def _registration(entry: shapes.DatasetShape, directory: Path) -> Registration:
    return Registration(
        url=shapes.absolute_url(entry.url, directory),
        name=entry.name,
        tags=dict(entry.tags),
        owner=entry.owner,
        variable=entry.variable,
    )


def _ssh(site: shapes.SiteShape, directory: Path) -> SshAccess | None:
    if not (site.address or "").startswith("ssh:"):
        return None
    return (site.ssh or shapes.SshShape()).record(directory)


def _issuers(marked: Marked, document: shapes.SiteFile) -> tuple[Issuer, ...]:
    found: dict[str, Issuer] = {}
    for number, entry in enumerate(document.identity):
        try:
            issuer = entry.record()
        except ValueError as error:
            marked.complain(("identity", number), str(error))
            continue
        if issuer.issuer in found:
            marked.complain(("identity", number), f"{issuer.issuer} stands there twice")
        if len(document.identity) > 1 and any(i.suffix == issuer.suffix for i in found.values()):
            marked.complain(("identity", number), "two issuers may name the same user; say suffix:")
        found[issuer.issuer] = issuer
    return tuple(found.values())


def _listen(marked: Marked, document: shapes.SiteFile, directory: Path) -> Listen | None:
    if document.listen is None:
        return None
    try:
        return document.listen.record(directory)
    except ValueError as error:
        marked.complain(("listen",), str(error))
        return None
