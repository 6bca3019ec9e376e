"""Agreement, Relation, Archetype, Request: what owners grant, and what is asked of them.

Plain frozen facts; :mod:`dataflow.policy` decides with them. An agreement is a record of the site
that has the data: nobody else writes it, and that site reads no other when it decides about its own
data.

Words that select (users, request types, data …) are compared letter by letter; ``"*"`` is everything.
A list that is empty grants nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from dataflow import _html

#: In a list of words: whatever there is.
ANY = "*"
#: Label of operations whose results still carry rows of their inputs: queries, anonymisation.
DATA_PROVIDER = "dataProvider"
#: Label of operations that compute something new of the rows: aggregates, algorithms, charts.
COMPUTE_PROVIDER = "computeProvider"

Computes = Literal["provider", "other", "requester"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Archetype:
    """A named shape of collaboration.

    Attributes
    ----------
    computes
        Who computes with the rows: ``provider`` the site that has them, ``other`` a third party
        that the agreement names, ``requester`` whoever asks, wherever he likes.
    recipient
        Who receives the results.
    weight
        Lower is preferred, where nothing else decides.
    twice
        The whole graph is run once more, at a second permitted site, and the digests are compared.
    """

    name: str
    computes: Computes
    recipient: Literal["requester"] = "requester"
    weight: int = 1000
    twice: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """What may become of results: kept after the job, copied to other sites, reused by others.

    ``outlive``: whoever asked for them may go on using them when the relation has ended, by its
    ``valid_until``. Whoever takes the relation out of the agreement takes that back as well.
    """

    keep: bool = True
    copy: bool = True
    reuse: bool = False
    outlive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """What one agreement grants to some people; it holds as a whole or not at all.

    Attributes
    ----------
    id
        Unique in its agreement; explanations name it.
    users, groups
        Whom; groups are lists of users in the agreement.
    request_types, purposes
        For what.
    datasets
        On what: name, id or key of a dataset, ``tag:name`` or ``tag:name=value`` of its owner's
        tags.
    archetypes, compute_providers
        How, and by which third parties.
    valid_from, valid_until
        Seconds since the epoch; until is the first moment at which it no longer holds.
    forced
        Request type (or ``"*"``) → services that must come first, asked for or not.
    hidden
        Columns that nobody else sees.
    row_floor
        Fewer rows than this are not computed with; 0 is no floor.
    anonymity, among
        Rows whose values in the columns ``among`` fewer than ``anonymity`` rows have (the k of
        k-anonymity) are left out before anybody else sees them; nor are fewer rows computed with.
        It needs ``among``, unless it is 0 or 1, which leave out nothing.
    origin
        ``file`` is replaced when the site file changes, ``agreed`` is kept then.
    """

    id: str
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    request_types: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    archetypes: tuple[str, ...] = ()
    compute_providers: tuple[str, ...] = ()
    purposes: tuple[str, ...] = (ANY,)
    valid_from: float | None = None
    valid_until: float | None = None
    forced: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    row_floor: int = 0
    anonymity: int = 0
    among: tuple[str, ...] = ()
    derived: Derived = field(default_factory=Derived)
    origin: Literal["file", "agreed"] = "file"


def wrong_in(relation: Relation) -> str:
    """Why a relation means nothing, wherever it was written; empty if nothing is wrong with it."""
    if not relation.users and not relation.groups:
        return "for whom? give users: or groups:"
    words = (word for name in _WORDS for word in getattr(relation, name))
    forced = (word for name, services in relation.forced.items() for word in (name, *services))
    for word in (*words, *forced):
        if not word or word != word.strip() or not word.isprintable():
            return f"{word!r} is no word that could select anything"
    for name in ("row_floor", "anonymity"):
        if getattr(relation, name) < 0:
            return f"{name}: {getattr(relation, name)} is less than 0"
    if (relation.anonymity > 1) != bool(relation.among):
        return "anonymity: and among: go together: how many rows have to be alike, in which columns"
    if relation.derived.outlive and not (relation.derived.keep and relation.derived.copy):
        return "derived: results that may not be kept or copied cannot outlive the relation"
    if both := sorted(set(relation.among) & set(relation.hidden)):
        return f"among: nobody sees {both[0]!r}, so that it singles nobody out"
    return ""


#: The lists of words of a relation.
_WORDS = (
    "users",
    "groups",
    "request_types",
    "datasets",
    "archetypes",
    "compute_providers",
    "purposes",
    "hidden",
    "among",
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Agreement:
    """What an owner of data at one site grants to whom.

    Attributes
    ----------
    name
        Unique at its site.
    site
        The site whose data it is about, and whose record it is.
    owner
        Whose data; empty for all data of the site.
    covers
        Which of these data it is about, in the words of :attr:`Relation.datasets`. What it is about
        and no relation grants is refused.
    archetypes, compute_providers
        The most that any relation can grant.
    groups
        Name → users.
    seed
        Digest of the text in the site file that this began as; empty if it came otherwise.
    """

    name: str
    site: str
    owner: str = ""
    covers: tuple[str, ...] = (ANY,)
    relations: tuple[Relation, ...] = ()
    archetypes: tuple[str, ...] = (ANY,)
    compute_providers: tuple[str, ...] = (ANY,)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seed: str = ""

    def __repr__(self) -> str:
        whose = self.owner or "everybody there"
        granted = len(self.relations)
        relations = f"{granted} relation{'' if granted == 1 else 's'}"
        return f"<Agreement {self.name!r} of {self.site} for data of {whose}, {relations}>"

    def _repr_html_(self) -> str:
        head = repr(self).strip("<>")
        facts = [
            ("about", ", ".join(self.covers)),
            ("at most", ", ".join(self.archetypes)),
            ("third parties at most", ", ".join(self.compute_providers)),
            *((f"group {name}", ", ".join(users)) for name, users in sorted(self.groups.items())),
        ]
        parts = [
            _html.disclosure(relation.id, _html.facts(_clauses(relation)))
            for relation in self.relations
        ]
        nothing = [] if parts else ["It grants nothing: the data are closed."]
        title = _html.Markup(f"<p>{_html.escape(head)}</p>")
        return _html.block(title, _html.facts(facts), *parts, *nothing).text


def _clauses(relation: Relation) -> list[tuple[str, str]]:
    """A relation in words; what it does not say is left out."""

    def day(moment: float | None) -> str:
        return "" if moment is None else f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"

    forced = (f"{kind}: {', '.join(names)}" for kind, names in sorted(relation.forced.items()))
    derived = relation.derived
    refused = [
        word
        for word, allowed in (
            ("kept", derived.keep),
            ("copied", derived.copy),
            ("reused by others", derived.reuse),
            ("used when this has ended", derived.outlive),
        )
        if not allowed
    ]
    return [
        ("users", ", ".join(relation.users)),
        ("groups", ", ".join(relation.groups)),
        ("requests", ", ".join(relation.request_types)),
        ("purposes", ", ".join(relation.purposes)),
        ("datasets", ", ".join(relation.datasets)),
        ("archetypes", ", ".join(relation.archetypes)),
        ("third parties", ", ".join(relation.compute_providers)),
        ("from", day(relation.valid_from)),
        ("until", day(relation.valid_until)),
        ("forced", "; ".join(forced)),
        ("hidden columns", ", ".join(relation.hidden)),
        ("at least", f"{relation.row_floor} rows" if relation.row_floor else ""),
        ("alike", _alike(relation)),
        ("results may not be", ", ".join(refused)),
    ]


def _alike(relation: Relation) -> str:
    if relation.anonymity <= 1:
        return ""
    return f"{relation.anonymity} rows in {', '.join(relation.among)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """How a plan's user asks owners for their data; it travels with every order and every read.

    Attributes
    ----------
    type, purpose
        What kind of request this is, and for what.
    archetypes
        Site that has data → the archetype under which they are used.
    """

    type: str = ""
    purpose: str = ""
    archetypes: Mapping[str, str] = field(default_factory=dict)
