"""What requests carry and small answers look like; unknown fields are refused at every depth.

Records come in as themselves. The models here are only the envelopes around them: a model that
forbids extra fields hands that rule on to the plain dataclasses inside it.
"""

from __future__ import annotations

import base64
import binascii
import warnings
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from dataflow.agreements import Agreement, Relation
from dataflow.catalog.entries import RecordRow
from dataflow.execution.events import (
    CompareOrder,
    JobCreated,
    ReleaseOrder,
    SegmentOrder,
    TransferOrder,
)
from dataflow.sites import Site
from dataflow.stores import Store


def _from_base64(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("needs base64 text")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("this is not base64") from None


Payload = Annotated[
    bytes,
    BeforeValidator(_from_base64),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256, hexadecimal")]
Name = Annotated[str, Field(min_length=1, max_length=200)]


# FastAPI names the field of a body by an alias that pydantic then has no use for, and hides the
# warning while it makes its own part; ours is made later.
warnings.filterwarnings("ignore", "The 'alias' attribute with value 'body'")


class Body(BaseModel):
    """Root of all envelopes; made ready for use by the first request that needs it."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Health(Body):
    """The agent is alive."""

    status: str = "ok"


class SiteAnswer(Body):
    """The site: its record, its stores, and the version of the program that serves it.

    ``versions`` are those of Python and of the packages that must agree between sites; ``time`` is
    the site's clock, in seconds since the epoch.
    """

    site: Site
    stores: tuple[Store, ...]
    version: str
    versions: dict[str, str] = Field(default_factory=dict)
    time: float | None = None
    dashboard: str | None = None


class Page(Body):
    """Some rows of a site's log: what one answer to a pull holds.

    ``epoch`` names the life of the log, empty if nothing is known of the site.
    """

    site: str
    epoch: str
    rows: tuple[RecordRow, ...] = ()


class Hint(Body):
    """A site has written up to this sequence number of this epoch, and answers there."""

    site: Name
    sequence: int = Field(ge=0, le=2**53)
    epoch: Annotated[str, Field(max_length=200)] = ""
    address: Annotated[str, Field(max_length=2000)] | None = None


class Join(Body):
    """The address of one agent of a federation, and the *name* of the token to show it."""

    address: Annotated[str, Field(min_length=1, max_length=2000)]
    credentials: str | None = None


class Registration(Body):
    """Data that lies in a store of this site and becomes a dataset."""

    url: Annotated[str, Field(min_length=1, max_length=4000)]
    name: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    variable: str | None = None
    owner: str = ""
    replica_of: str | None = None


class AgreementBody(Body):
    """An agreement of this site."""

    agreement: Agreement


class NegotiationBody(Body):
    """The beginning of a negotiation; with ``user``, an administrator's offer to this user."""

    agreement: Name
    terms: Relation
    user: Annotated[str, Field(max_length=200)] = ""


class TermsBody(Body):
    """What a move proposes, if it proposes anything."""

    terms: Relation | None = None


class Submission(Body):
    """A job for this site to coordinate, with the code that its plan names."""

    created: JobCreated
    payloads: dict[Digest, Payload] = Field(default_factory=dict)


class Submitted(Body):
    """The id of a job that was taken in."""

    job: str


class Asking(Body):
    """In whose name; counts only from agents and administrators."""

    by: str = ""


class NewOrder(Body):
    """An order for this site."""

    order: Annotated[
        SegmentOrder | TransferOrder | ReleaseOrder | CompareOrder, Field(discriminator="type")
    ]


class CannotBring(Body):
    """The error document of a site from which something could not be read."""

    error: dict[str, Any]


class Codes(Body):
    """Digests of codes."""

    codes: tuple[Digest, ...] = Field(max_length=10_000)
