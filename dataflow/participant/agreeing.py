"""Agreeing: the agreements of a site as records that only the site writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dataflow.agreements import Agreement, Archetype, wrong_in
from dataflow.catalog.records import Records
from dataflow.errors import ConfigError, PolicyError
from dataflow.graph.operation import Operation
from dataflow.participant.audit import Audit


def seed(
    records: Records, agreements: Sequence[Agreement], archetypes: Sequence[Archetype]
) -> None:
    """Take over what the site file says, where its text has changed since the last time.

    What was changed through the API stays changed as long as the file says the same, or a restart
    would bring back what was withdrawn. Relations that were agreed stay in any case.
    """
    known = {agreement.name: agreement for agreement in records.agreements(records.site)}
    for agreement in agreements:
        before = known.get(agreement.name)
        if before is not None and before.seed == agreement.seed:
            continue
        agreed = before.relations if before is not None else ()
        kept = tuple(relation for relation in agreed if relation.origin == "agreed")
        records.add(replace(agreement, relations=(*agreement.relations, *kept)))
    records.add(*archetypes)


def offer(records: Records, installed: Mapping[str, Operation]) -> None:
    """Tell the others of the operations that are installed here, and of no others."""
    for writer, known in records.written("operation"):
        if writer == records.site and f"{known.name}@{known.version}" not in installed:
            records.remove(known)
    records.add(*installed.values())


def put(records: Records, audit: Audit, agreement: Agreement, by: str) -> None:
    """Write an agreement; an administrator's word.

    Raises
    ------
    PolicyError
        If it is another site's, or has two relations of one name.
    ConfigError
        If one of its relations means nothing.
    """
    if agreement.site != records.site:
        raise PolicyError(
            f"agreement {agreement.name!r} is about data of {agreement.site!r}, and this is "
            f"{records.site!r}: every site writes its own"
        )
    ids = [relation.id for relation in agreement.relations]
    if len(set(ids)) != len(ids):
        raise PolicyError(f"agreement {agreement.name!r} has two relations of one id")
    before: Agreement | None = records.get("agreement", agreement.name, records.site)
    known = before.relations if before is not None else ()
    for relation in agreement.relations:
        # What is in force already does not keep others from being written.
        if relation not in known and (reason := wrong_in(relation)):
            raise ConfigError(
                f"agreement {agreement.name!r}, relation {relation.id!r}: {reason}\n"
                "What you can do: correct it; nothing was written"
            )
    audit.write(user=by, what="agreement", object=agreement.name, allowed=True)
    records.add(replace(agreement, seed=before.seed if before is not None else agreement.seed))


def withdraw(records: Records, audit: Audit, name: str, by: str) -> None:
    """Take all relations of an agreement back.

    The agreement itself stays and grants nothing: without one, a lab's data would be free.

    Raises
    ------
    PolicyError
        If there is none of this name.
    """
    before: Agreement | None = records.get("agreement", name, records.site)
    if before is None:
        raise PolicyError(f"{records.site!r} has no agreement {name!r}")
    audit.write(user=by, what="agreement withdrawn", object=name, allowed=True)
    records.add(replace(before, relations=()))
