"""The shapes that YAML must have: pydantic models of the site file, strict at the door."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from dataflow.config.agreement_shapes import AgreementShape, ArchetypeShape
from dataflow.config.backend_shapes import JobQueueShape, SgeShape, SshHostsShape
from dataflow.config.identity_shapes import IssuerShape
from dataflow.config.kubernetes_shape import KubernetesShape
from dataflow.config.records import Backend, BackendKind, Listen, SshAccess
from dataflow.config.shape import Bytes, Name, Rate, Seconds, Shape
from dataflow.sites import Site, Trust
from dataflow.stores import DATABASES, Purpose

_SCHEMES = ("file", "s3", "sftp", "http", "https", *DATABASES)
_ONLY_READ = ("sftp://", "http://", "https://", *(f"{kind}://" for kind in DATABASES))
_AGENT_SCHEMES = ("http", "https", "ssh", "unix")
#: Longest path of a Unix socket on Linux.
LONGEST_SOCKET = 107


def _title(value: str) -> str:
    if not value or value != value.strip() or not value.isprintable():
        raise ValueError(f"{value!r} is no name for a dataset")
    return value


def _no_secret(value: str) -> str:
    try:
        parts = urlsplit(value)
        secret = parts.password is not None or ("@" in parts.netloc and parts.scheme == "s3")
    except ValueError as error:
        raise ValueError(f"{value!r} is no URL: {error}") from None
    if secret:
        raise ValueError("a secret must not stand in this file: name a credential instead")
    return value


def _address(value: str) -> str:
    _no_secret(value)
    parts = urlsplit(value)
    if parts.scheme not in _AGENT_SCHEMES or not (parts.netloc or parts.path):
        raise ValueError(
            f"{value!r} is no address of an agent: write https://host:port, "
            "http://127.0.0.1:port, unix:///path or ssh://user@host"
        )
    return value.rstrip("/") if parts.scheme in ("http", "https") else value


def _url(value: str) -> str:
    _no_secret(value)
    scheme, mark, rest = value.partition("://")
    if mark and scheme not in _SCHEMES:
        raise ValueError(f"{scheme!r} is no kind of store: known are {', '.join(_SCHEMES)}")
    if not value or (mark and not rest):
        raise ValueError(f"{value!r} is no URL and no path")
    return value


def _options(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if re.search(r"secret|passw|token|access_key|^key$", name, re.IGNORECASE):
            raise ValueError(f"{name!r}: a secret must not stand in this file: name a credential")
    return value


def _reference(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
        raise ValueError(f"{value!r} names no operation: write package.module:name")
    return value


def absolute_url(url: str, directory: Path) -> str:
    """A URL as it is; a path, from ``directory`` or from the home, as ``file:///…``."""
    if "://" in url:
        return url.rstrip("/") if url.split("://", 1)[1].strip("/") else url
    return resolved(url.removeprefix("file:"), directory).as_uri()


def resolved(path: str, directory: Path) -> Path:
    """A path from a directory, without ``..``, links left as they are."""
    return Path(os.path.normpath(directory / Path(path).expanduser()))


Title = Annotated[str, AfterValidator(_title)]
Address = Annotated[str, AfterValidator(_address)]
Url = Annotated[str, AfterValidator(_url)]
Options = Annotated[dict[str, str], AfterValidator(_options)]


#: Bytes that a price in a site file is for.
_PRICED_BYTES = 1e9


class _Facts(Shape):
    name: Name
    workers: Annotated[int, Field(ge=0)] | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    memory: Bytes | None = None
    speed: Annotated[float, Field(gt=0)] = 1.0
    trust: Trust = "lab"
    watts: Annotated[float, Field(ge=0)] = 0.0
    egress: Annotated[float, Field(ge=0)] = 0.0
    egress_to: dict[Name, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)

    def record(
        self,
        *,
        fallback: BackendShape | None = None,
        address: str | None = None,
        credentials: str | None = None,
    ) -> Site:
        """The site; numbers from here, else from ``fallback``, else the defaults."""
        numbers: dict[str, Any] = {}
        for name in ("workers", "threads", "memory"):
            own = getattr(self, name)
            value = getattr(fallback, name, None) if own is None else own
            if value is not None:
                numbers[name] = value
        return Site(
            name=self.name,
            address=address,
            credentials=credentials,
            speed=self.speed,
            trust=self.trust,
            watts=self.watts,
            egress=self.egress / _PRICED_BYTES,
            egress_to=tuple(sorted((to, p / _PRICED_BYTES) for to, p in self.egress_to.items())),
            **numbers,
        )


class OwnSiteShape(_Facts):
    """The site that this process serves.

    ``operations`` are those that it runs for anybody if it is a steward, as ``module:name``.
    ``loaded_at`` is the share of its workers' CPU or memory from which on others are preferred to
    compute with its data.
    """

    loaded_at: Annotated[float, Field(gt=0, le=1)] | None = None
    operations: list[Annotated[str, AfterValidator(_reference)]] = Field(default_factory=list)


class SshShape(Shape):
    """How a login host is reached, beside what the user's own SSH configuration says of it."""

    site_file: str = SshAccess().site_file
    python: str = SshAccess().python
    state: str | None = None
    config: str | None = None
    known_hosts: str | None = None
    bootstrap: Literal["uv", "copy"] | None = None
    wheels: str | None = None
    extras: list[Name] | None = None

    @model_validator(mode="after")
    def _wheels_are_for_uv(self) -> SshShape:
        if self.wheels is not None and self.bootstrap != "uv":
            raise ValueError("wheels: is for bootstrap: uv")
        return self

    def record(self, directory: Path) -> SshAccess:
        """The record; paths on this machine begin at ``directory``."""
        return SshAccess(
            site_file=self.site_file,
            python=self.python,
            state=self.state,
            config=resolved(self.config, directory) if self.config else None,
            known_hosts=resolved(self.known_hosts, directory) if self.known_hosts else None,
            bootstrap=self.bootstrap,
            wheels=self.wheels,
            extras=SshAccess().extras if self.extras is None else tuple(self.extras),
        )


class SiteShape(_Facts):
    """Another site; what it says of itself replaces everything here but how to reach it.

    One without an address has stores only.
    """

    address: Address | None = None
    credentials: Name | None = None
    certificate: str | None = None
    ssh: SshShape | None = None

    @model_validator(mode="after")
    def _address_fits(self) -> SiteShape:
        if self.address is None and self.workers != 0:
            raise ValueError("'address' is missing; only a site of stores has none: workers: 0")
        if self.ssh is not None and not (self.address or "").startswith("ssh:"):
            raise ValueError("ssh: is for an address that begins with ssh://")
        if self.address is None and self.credentials is not None:
            raise ValueError("credentials: are for an address; give them to the store")
        if self.certificate is not None and not (self.address or "").startswith("https:"):
            raise ValueError("certificate: is for an address that begins with https://")
        return self


class StoreShape(Shape):
    """A place with bytes."""

    name: Name
    url: Url
    site: Name | None = None
    purpose: Purpose | None = None
    credentials: Name | None = None
    options: Options = Field(default_factory=dict)
    room: Bytes | None = None

    @model_validator(mode="after")
    def _results_where_one_can_write(self) -> StoreShape:
        if self.purpose == "results" and self.only_read:
            raise ValueError(
                f"{self.url.partition(':')[0]} is only read, so purpose: results cannot be; results "
                "go to file or s3"
            )
        if self.room is not None and (self.purpose == "data" or self.only_read):
            raise ValueError("room: is for results and copies, which this store does not take")
        return self

    @property
    def only_read(self) -> bool:
        """Whether nothing can be written there, by the kind of its URL."""
        return self.url.startswith(_ONLY_READ)


class LinkShape(Shape):
    """A declared road: ``between`` two sites both ways, or from ``source`` to ``target``."""

    between: Annotated[list[Name], Field(min_length=2, max_length=2)] | None = None
    source: Name | None = None
    target: Name | None = None
    bandwidth: Rate
    latency: Seconds

    @model_validator(mode="after")
    def _two_ends(self) -> LinkShape:
        one_way = self.source is not None and self.target is not None
        half = (self.source is None) != (self.target is None)
        if half or one_way == (self.between is not None):
            raise ValueError("say between: [one, other], or source: and target:")
        names = [name for _, name in self.ends()]
        if names[0] == names[1]:
            raise ValueError(f"a link needs two different sites, not {names[0]!r} twice")
        return self

    def ends(self) -> list[tuple[tuple[str | int, ...], str]]:
        """Where each end stands in this entry, and its name."""
        if self.between is not None:
            return [(("between", i), name) for i, name in enumerate(self.between)]
        return [(("source",), self.source or ""), (("target",), self.target or "")]

    def pairs(self) -> list[tuple[str, str]]:
        """Source and target of each direction."""
        (_, one), (_, other) = self.ends()
        return [(one, other), (other, one)] if self.between is not None else [(one, other)]


class DatasetShape(Shape):
    """Data to register at the start."""

    url: Url
    name: Title | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    owner: str = ""
    variable: str | None = None


class BackendShape(Shape):
    """How workers are obtained; what only one kind has stands in the section of its name."""

    kind: BackendKind = Backend().kind
    workers: Annotated[int, Field(ge=0)] | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    memory: Bytes | None = None
    sge: SgeShape | None = None
    ssh: SshHostsShape | None = None
    jobqueue: JobQueueShape | None = None
    kubernetes: KubernetesShape | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_one_kind(cls, value: Any) -> Any:
        """The kind is that of the section, where only one of them is given."""
        if not isinstance(value, dict):
            return value
        there = [kind for kind in get_args(BackendKind) if value.get(kind) is not None]
        if len(there) > 1:
            raise ValueError(f"a site has workers of one kind, not of {' and '.join(there)}")
        kind = value.get("kind", there[0] if there else cls.model_fields["kind"].default)
        if there and kind in get_args(BackendKind) and kind != there[0]:
            raise ValueError(f"kind is {kind!r}, so a section {there[0]!r} must not stand here")
        if kind in ("ssh", "jobqueue", "kubernetes") and not there:
            raise ValueError(f"kind is {kind!r}, so a section {kind!r} must stand here")
        return {**value, "kind": kind}

    def settings(self) -> Any:
        """The record of the kind's own section; ``None`` for a kind that has none."""
        section = getattr(self, self.kind, None)
        return None if section is None else section.record()


class TimeoutsShape(Shape):
    """How long silence may last."""

    away_after: Seconds = 5.0
    lost_after: Seconds = 8.0

    @model_validator(mode="after")
    def _not_nothing(self) -> TimeoutsShape:
        if self.away_after <= 0 or self.lost_after <= 0:
            raise ValueError("must be longer than nothing")
        return self


class PeerShape(Shape):
    """An agent whose site's name is not known here."""

    address: Address
    credentials: Name | None = None


#: In place of a file: the agent makes its certificate itself.
OWN = "own"


class ListenShape(Shape):
    """Where the agent answers."""

    address: str
    certificate: str | None = None
    key: str | None = None
    public: Address | None = None

    def record(self, directory: Path) -> Listen:
        """The record; paths begin at ``directory``.

        Raises
        ------
        ValueError
            If the address is none.
        """
        own = self.certificate == OWN
        if own and self.key is not None:
            raise ValueError(f"certificate: {OWN} has a key of its own; leave key: out")
        if not own and (self.certificate is None) != (self.key is None):
            raise ValueError("TLS needs both a certificate and its key")
        if self.address.startswith("unix:"):
            told = re.sub(r"^unix:(//(?=/))?", "", self.address)
            path = resolved(told, directory)
            if not told or len(str(path).encode()) > LONGEST_SOCKET:
                raise ValueError(
                    f"the path of a Unix socket has 1 to {LONGEST_SOCKET} bytes, not "
                    f"{len(str(path).encode())}: {path}"
                )
            return Listen(socket=path, public=self.public)
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:]+)\]|([^:\s/]+)):([0-9]{1,5})", self.address)
        if match is None or int(match[3]) > 65535:
            raise ValueError(f"{self.address!r} is neither host:port nor unix:path")
        return Listen(
            host=match[1] or match[2],
            port=int(match[3]),
            certificate=(
                resolved(self.certificate, directory) if self.certificate and not own else None
            ),
            own=own,
            key=resolved(self.key, directory) if self.key else None,
            public=self.public,
        )


def _as_address(value: Any) -> Any:
    return {"address": value} if isinstance(value, str) else value


class SiteFile(Shape):
    """The whole file."""

    site: OwnSiteShape | None = None
    listen: Annotated[ListenShape | None, BeforeValidator(_as_address)] = None
    state: str | None = None
    stores: list[StoreShape] = Field(default_factory=list)
    sites: list[SiteShape] = Field(default_factory=list)
    peers: list[Annotated[PeerShape, BeforeValidator(_as_address)]] = Field(default_factory=list)
    links: list[LinkShape] = Field(default_factory=list)
    datasets: list[DatasetShape] = Field(default_factory=list)
    agreements: list[AgreementShape] = Field(default_factory=list)
    archetypes: list[ArchetypeShape] = Field(default_factory=list)
    identity: list[IssuerShape] = Field(default_factory=list)
    backend: BackendShape | None = None
    timeouts: TimeoutsShape = Field(default_factory=TimeoutsShape)


_SECTIONS: dict[str, type[Shape]] = {
    "site": OwnSiteShape,
    "listen": ListenShape,
    "stores": StoreShape,
    "sites": SiteShape,
    "peers": PeerShape,
    "links": LinkShape,
    "datasets": DatasetShape,
    "agreements": AgreementShape,
    "archetypes": ArchetypeShape,
    "identity": IssuerShape,
    "backend": BackendShape,
    "timeouts": TimeoutsShape,
}


def keys_at(path: Sequence[str | int]) -> list[str]:
    """The keys that a mapping at this path may have."""
    words = [part for part in path if isinstance(part, str)]
    model: type[BaseModel] = _SECTIONS.get(words[0], SiteFile) if words else SiteFile
    for word in words[1:]:
        field = model.model_fields.get(word)
        kinds = get_args(field.annotation) if field else ()
        model = next((k for k in kinds if isinstance(k, type) and issubclass(k, Shape)), model)
    return list(model.model_fields)
