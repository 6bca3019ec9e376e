"""The shapes of agreements and archetypes in a site file."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from dataflow.agreements import ANY, Agreement, Archetype, Computes, Derived, Relation, wrong_in
from dataflow.config.shape import Name, Shape
from dataflow.documents import canonical_json


def _word(value: str) -> str:
    if not value or value != value.strip() or not value.isprintable():
        raise ValueError(f"{value!r} is no word that could select anything")
    return value


def _moment(value: Any) -> float:
    """Seconds since the epoch of a date or a time; without a zone it is UTC."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError(f"{value!r} is no date: write 2027-01-31 or 2027-01-31T12:00Z") from None
    if isinstance(found, datetime):
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    if isinstance(found, date):
        return datetime(found.year, found.month, found.day, tzinfo=UTC).timestamp()
    raise ValueError(f"{value!r} is no date: write 2027-01-31 or 2027-01-31T12:00Z")


Word = Annotated[str, AfterValidator(_word)]
Words = list[Word]
Moment = Annotated[float, BeforeValidator(_moment)]


class DerivedShape(Shape):
    """What may become of results."""

    keep: bool = Derived().keep
    copy_: bool = Field(default=Derived().copy, alias="copy")
    reuse: bool = Derived().reuse
    outlive: bool = Derived().outlive


class RelationShape(Shape):
    """What is granted to some people; what is not said is not granted."""

    id: Name
    users: Words = Field(default_factory=list)
    groups: Words = Field(default_factory=list)
    request_types: Words
    datasets: Words
    archetypes: Words
    compute_providers: Words = Field(default_factory=list)
    purposes: Words = Field(default_factory=lambda: [ANY])
    valid_from: Moment | None = None
    valid_until: Moment | None = None
    forced: dict[Word, Words] = Field(default_factory=dict)
    hidden: Words = Field(default_factory=list)
    row_floor: Annotated[int, Field(ge=0)] = 0
    anonymity: Annotated[int, Field(ge=0)] = 0
    among: Words = Field(default_factory=list)
    derived: DerivedShape = Field(default_factory=DerivedShape)

    @model_validator(mode="after")
    def _means_something(self) -> RelationShape:
        if reason := wrong_in(self.record()):
            raise ValueError(reason)
        return self

    def record(self) -> Relation:
        """The record."""
        return Relation(
            id=self.id,
            users=tuple(self.users),
            groups=tuple(self.groups),
            request_types=tuple(self.request_types),
            datasets=tuple(self.datasets),
            archetypes=tuple(self.archetypes),
            compute_providers=tuple(self.compute_providers),
            purposes=tuple(self.purposes),
            valid_from=self.valid_from,
            valid_until=self.valid_until,
            forced={name: tuple(services) for name, services in self.forced.items()},
            hidden=tuple(self.hidden),
            row_floor=self.row_floor,
            anonymity=self.anonymity,
            among=tuple(self.among),
            derived=Derived(
                keep=self.derived.keep,
                copy=self.derived.copy_,
                reuse=self.derived.reuse,
                outlive=self.derived.outlive,
            ),
        )


class AgreementShape(Shape):
    """What an owner of data at this site grants to whom."""

    name: Name
    owner: str = ""
    covers: Words = Field(default_factory=lambda: [ANY])
    relations: list[RelationShape] = Field(default_factory=list)
    archetypes: Words = Field(default_factory=lambda: [ANY])
    compute_providers: Words = Field(default_factory=lambda: [ANY])
    groups: dict[Word, Words] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names(self) -> AgreementShape:
        ids = [relation.id for relation in self.relations]
        twice = sorted({id for id in ids if ids.count(id) > 1})
        if twice:
            raise ValueError(f"several relations are called {', '.join(twice)}")
        named = {group for relation in self.relations for group in relation.groups}
        unknown = sorted(named - set(self.groups))
        if unknown:
            raise ValueError(f"no group is called {', '.join(unknown)}: list its users in groups:")
        return self

    def record(self, site: str) -> Agreement:
        """The record of a site; its seed changes whenever the text does."""
        return Agreement(
            name=self.name,
            site=site,
            owner=self.owner,
            covers=tuple(self.covers),
            relations=tuple(relation.record() for relation in self.relations),
            archetypes=tuple(self.archetypes),
            compute_providers=tuple(self.compute_providers),
            groups={name: tuple(users) for name, users in self.groups.items()},
            seed=hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest(),
        )


class ArchetypeShape(Shape):
    """A shape of collaboration beside those that are shipped."""

    name: Name
    computes: Computes
    recipient: Literal["requester"] = "requester"
    weight: int = 1000
    twice: bool = False

    def record(self) -> Archetype:
        """The record."""
        return Archetype(
            name=self.name,
            computes=self.computes,
            recipient=self.recipient,
            weight=self.weight,
            twice=self.twice,
        )
