"""Negotiating: the negotiations of one site, kept, and what comes of them."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from dataflow._sqlite import Opening
from dataflow.agreements import Agreement, Relation
from dataflow.catalog.records import Records
from dataflow.documents import from_json, to_json
from dataflow.errors import ConfigError, PolicyError, UnknownNegotiation
from dataflow.participant.audit import Audit
from dataflow.policy.negotiation import SIDES, Move, Negotiation, Side, begin, moved

FILE = "negotiations.db"
#: Negotiations of one user that have not ended.
MOST_OPEN = 100
#: Negotiations of one user that have ended; older ones are forgotten when another begins.
MOST_ENDED = 100
#: So many are listed, open ones first.
MOST_LISTED = 1000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS negotiation (
    id TEXT PRIMARY KEY, user TEXT NOT NULL, ended INTEGER NOT NULL, body TEXT NOT NULL,
    time REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS negotiation_ended ON negotiation (ended, time);
CREATE INDEX IF NOT EXISTS negotiation_of ON negotiation (user, ended, time);
"""


@dataclass(frozen=True, slots=True)
class Party:
    """Somebody at the table; administrators speak for the site."""

    user: str
    admin: bool = False


class Negotiations:
    """What users and the owners of a site's data have put to one another.

    Parameters
    ----------
    path
        File of their own: proposals are nobody else's business and no records of the catalog.
    records, audit
        Of the site.
    agree
        Writes an agreement, in the name of somebody.
    clock
        Seconds since the epoch.
    """

    def __init__(
        self,
        path: Path,
        records: Records,
        audit: Audit,
        agree: Callable[[Agreement, str], None],
        clock: Callable[[], float],
    ) -> None:
        self._file = Opening(path, lambda db: db.executescript(_SCHEMA))
        self._records, self._audit = records, audit
        self._agree, self._clock = agree, clock

    def begin(self, agreement: str, terms: Relation, by: Party, user: str = "") -> Negotiation:
        """Ask for a relation, or, as an administrator, offer one to ``user``.

        Raises
        ------
        PolicyError
            If there is no such agreement, too much is open, or somebody offers who may not.
        ConfigError
            If the terms grant or mean nothing, or are too long.
        """
        side: Side = "provider" if user else "consumer"
        if side == "provider" and not by.admin:
            raise PolicyError("relations are offered by administrators of the site")
        self._agreement(agreement)
        made = begin(
            id=secrets.token_hex(8),
            site=self._records.site,
            agreement=agreement,
            user=user or by.user,
            terms=terms,
            side=side,
            by=by.user,
            at=self._clock(),
        )
        with self._file.writing() as db:
            query = "SELECT count(*) FROM negotiation WHERE user = ? AND ended = 0"
            if db.execute(query, [made.user]).fetchone()[0] >= MOST_OPEN:
                raise PolicyError(f"{MOST_OPEN} negotiations of {made.user!r} are open; end some")
            db.execute(
                "DELETE FROM negotiation WHERE id IN (SELECT id FROM negotiation "
                "WHERE user = ? AND ended = 1 ORDER BY time DESC LIMIT -1 OFFSET ?)",
                [made.user, MOST_ENDED],
            )
            self._write(db, made)
        self._note(made, by)
        return made

    def move(self, id: str, move: Move, by: Party, terms: Relation | None = None) -> Negotiation:
        """The next move; the last one writes the relation into the agreement.

        Raises
        ------
        UnknownNegotiation, OutOfOrder
            If there is none, or it does not allow this now.
        PolicyError
            If this is somebody else's, or the agreement is not there any more.
        ConfigError
            If there is no such move, or its terms are not good.
        """
        if move not in SIDES:
            raise ConfigError(f"there is no move {move!r}; moves are {', '.join(SIDES)}")
        with self._file.writing() as db:
            known = self._read(db, id, by)
            side = _side(known, move, by)
            made = moved(known, move, side=side, by=by.user, at=self._clock(), terms=terms)
            if made.state == "finalized":
                self._grant(made, by)
            self._write(db, made)
        self._note(made, by)
        return made

    def get(self, id: str, by: Party) -> Negotiation:
        """One of them.

        Raises
        ------
        UnknownNegotiation, PolicyError
            If there is none, or it is somebody else's.
        """
        with self._file.reading() as db:
            return self._read(db, id, by)

    def all(self, by: Party) -> list[Negotiation]:
        """Those of somebody, open ones and what moved last first; an administrator's are all.

        There are at most ``MOST_LISTED``.
        """
        where, of = ("", []) if by.admin else ("WHERE user = ? ", [by.user])
        query = f"SELECT body FROM negotiation {where}ORDER BY ended, time DESC, id LIMIT ?"
        with self._file.reading() as db:
            found = db.execute(query, [*of, MOST_LISTED]).fetchall()
        return [from_json(Negotiation, body) for (body,) in found]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _grant(self, made: Negotiation, by: Party) -> None:
        # The relation first: whoever is told that it is final can rely on it, and to write it
        # once more, after a crash between the two, changes nothing.
        before = self._agreement(made.agreement)
        others = tuple(one for one in before.relations if one.id != made.id)
        self._agree(replace(before, relations=(*others, made.terms)), by.user)

    def _agreement(self, name: str) -> Agreement:
        found: Agreement | None = self._records.get("agreement", name, self._records.site)
        if found is None:
            raise PolicyError(f"{self._records.site!r} has no agreement {name!r}")
        return found

    def _read(self, db: sqlite3.Connection, id: str, by: Party) -> Negotiation:
        found = db.execute("SELECT body FROM negotiation WHERE id = ?", [id]).fetchone()
        if found is None:
            raise UnknownNegotiation(id)
        known = from_json(Negotiation, found[0])
        if not by.admin and by.user != known.user:
            raise PolicyError(f"negotiation {id!r} is between others")
        return known

    def _write(self, db: sqlite3.Connection, made: Negotiation) -> None:
        db.execute(
            "INSERT INTO negotiation VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE "
            "SET ended = excluded.ended, body = excluded.body, time = excluded.time",
            [made.id, made.user, made.ended, to_json(made), made.steps[-1].at],
        )

    def _note(self, made: Negotiation, by: Party) -> None:
        self._audit.write(
            user=by.user,
            what=f"negotiation: {made.steps[-1].move}",
            object=made.id,
            allowed=True,
            clause=f"agreement {made.agreement!r}, for {made.user}",
        )


def _side(known: Negotiation, move: Move, by: Party) -> Side:
    """For which side somebody moves: an administrator who asks for himself is on both."""
    mine: Side = "consumer" if by.user == known.user else "provider"
    return "provider" if by.admin and mine not in SIDES[move] else mine
