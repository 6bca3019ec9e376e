"""What sites tell one another, and by which id: the kinds of catalog records.

=============== ======================= ======================================================
kind            record                  id
=============== ======================= ======================================================
``site``        `Site`                  its name
``store``       `Store`                 its name; ``site/name`` of another site that is opened here
``dataset``     `Dataset`               its id
``replica``     `Replica`               digest of site, store, url and variable
``link``        `Link`                  ``source>target``
``job``         `JobSummary`            its id
``measurement`` any JSON object         free
``peer``        `Peer`                  name of the site that answers there
``tags``        `TagSet`                ``dataset key/user``: two users never share a record
``agreement``   `Agreement`             its name
``archetype``   `Archetype`             its name
``operation``   `Operation`             name@version, of what is installed at a site
=============== ======================= ======================================================

Every record belongs to the site that wrote it; what it says about another site is hearsay and
loses against that site's own word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dataflow.agreements import Agreement, Archetype
from dataflow.datasets import Dataset, Replica
from dataflow.graph.keys import digest
from dataflow.graph.operation import Operation
from dataflow.sites import Link, Site
from dataflow.stores import Store

Kind = Literal[
    "site",
    "store",
    "dataset",
    "replica",
    "link",
    "job",
    "measurement",
    "peer",
    "tags",
    "agreement",
    "archetype",
    "operation",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRow:
    """One version of one record, as it travels between sites.

    Attributes
    ----------
    site, seq
        Who wrote it, and its place in that site's log; the log keeps only the last version of
        each record, so that places in between may be empty for ever.
    kind, id
        Which record.
    body
        JSON text, empty if ``deleted``.
    after
        Place of the row before this one when the log was read: a receiver that holds everything
        up to ``after`` misses nothing between it and ``seq``.
    """

    site: str
    seq: int
    kind: str
    id: str
    body: str = ""
    deleted: bool = False
    after: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSummary:
    """What every site may know of a job; its journal stays with the coordinator.

    ``status`` is a `JobStatus`, ``error`` a document of `dataflow.errors`, ``results`` the keys
    of the outputs, ``created`` and ``updated`` are seconds since the epoch.
    """

    id: str
    status: str
    user: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    coordinator: str = ""
    created: float = 0.0
    updated: float = 0.0
    error: Mapping[str, Any] | None = None
    results: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Where a site's agent answers, by its own word.

    ``address`` is ``None`` for a participant that reads but cannot be read; ``credentials`` is
    the name of the token to show there.
    """

    site: str
    address: str | None = None
    credentials: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TagSet:
    """The tags one user gave to the data with this key, wherever its copies are."""

    key: str
    user: str
    tags: Mapping[str, str]
    updated: float = 0.0


#: Kind → type of its record; ``None`` is any JSON object.
TYPES: Mapping[str, type[Any] | None] = {
    "site": Site,
    "store": Store,
    "dataset": Dataset,
    "replica": Replica,
    "link": Link,
    "job": JobSummary,
    "measurement": None,
    "peer": Peer,
    "tags": TagSet,
    "agreement": Agreement,
    "archetype": Archetype,
    "operation": Operation,
}


def replica_id(replica: Replica) -> str:
    """Id of a replica's record: the same copy, registered again, is the same record."""
    place = [replica.site, replica.store, replica.url, replica.variable]
    return digest(place)[:32]


def link_id(link: Link) -> str:
    """Id of a link's record at the site that declared or measured it."""
    return f"{link.source}>{link.target}"


def view_id(store: Store) -> str:
    """Id of the record of another site's store, at a site that opens it itself."""
    return f"{store.site}/{store.name}"


def tags_id(key: str, user: str) -> str:
    """Id of the tags that ``user`` gave to the data with ``key``."""
    return f"{key}/{user}"


def entry(record: Any) -> tuple[Kind, str, Any]:
    """Kind, id and the record itself: what ``Records.put`` takes.

    Examples
    --------
    >>> entry(Site(name="uva"))[:2]
    ('site', 'uva')
    """
    match record:
        case Site():
            return "site", record.name, record
        case Store():
            return "store", record.name, record
        case Dataset():
            return "dataset", record.id, record
        case Replica():
            return "replica", replica_id(record), record
        case Link():
            return "link", link_id(record), record
        case JobSummary():
            return "job", record.id, record
        case Peer():
            return "peer", record.site, record
        case TagSet():
            return "tags", tags_id(record.key, record.user), record
        case Agreement():
            return "agreement", record.name, record
        case Archetype():
            return "archetype", record.name, record
        case Operation():
            return "operation", f"{record.name}@{record.version}", record
    raise TypeError(f"a {type(record).__name__} has no id of its own: use put(kind, id, record)")
