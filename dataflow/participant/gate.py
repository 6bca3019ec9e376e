"""Gate: what this site says, for itself, to every order and every read.

What a coordinator planned or believed does not matter here. A site decides about its own data by its
own agreements, at this moment; about copies of what others own it asks their agreements as last
heard. What it cannot tell is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from dataflow.agreements import Agreement, Archetype, Request
from dataflow.catalog.entries import replica_id
from dataflow.catalog.records import Records
from dataflow.datasets import Dataset, Replica
from dataflow.errors import NotGranted, SiteRefused
from dataflow.execution.events import (
    CompareOrder,
    Errand,
    Order,
    ReleaseOrder,
    SegmentOrder,
    TransferOrder,
)
from dataflow.execution.invitation import NOTEBOOK, is_notebook
from dataflow.graph import hiding
from dataflow.graph.operation import Operation
from dataflow.participant import flooring, proving
from dataflow.participant.audit import Audit
from dataflow.participant.owners import not_as_notebook
from dataflow.policy.agreement import Asked, Denial, Grant, entered_at, outlives
from dataflow.policy.archetype import SHIPPED
from dataflow.policy.rights import (
    Right,
    Rows,
    Standing,
    follow,
    right_of,
    standing,
    together,
    under,
    words_of,
)
from dataflow.sites import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Who gets bytes that this site hands out.

    ``user`` for whom, ``sites`` all that see them on their way; none means the user's own hands.
    """

    user: str
    sites: tuple[str, ...] = ()
    request: Request = field(default_factory=Request)
    job: str = ""


class Gate:
    """The agreements of one site, applied.

    Parameters
    ----------
    site
        Whose gate it is.
    records
        The catalog: own agreements and datasets are this site's own records.
    audit
        Gets an entry for each question about data that an agreement, or a steward, minds.
    installed
        What a steward runs, by ``name@version``; a lab's list, if it has one, binds the names of
        forced services to their code.
    """

    def __init__(
        self,
        site: Site,
        records: Records,
        audit: Audit,
        clock: Callable[[], float],
        installed: Mapping[str, Operation],
    ) -> None:
        self._site, self._records, self._audit = site, records, audit
        self._clock, self._installed = clock, installed
        self._steward = site.trust == "steward"

    # --- orders ---------------------------------------------------------------------------------

    def order(self, order: Order) -> Order:
        """Let an order in; as it is to be kept, with what its results will be made of.

        Raises
        ------
        NotGranted
            If an owner does not grant it.
        SiteRefused
            If a steward has not installed just these operations.
        """
        minded = self.minds
        if isinstance(order, CompareOrder) and minded:
            self._second_run(order)
        if not isinstance(order, SegmentOrder):
            return order
        try:
            for key, replica in order.inputs.items():
                if minded:
                    self._must_be_ours(key, replica)
            unheard = [key for key in order.inputs if minded and not self._known(key)]
            order = replace(order, unheard=tuple(unheard))
            rows, made_of, entered = self._inputs(order, minded)
            rights = self._rights(order.user, order.request, rows) if minded else {}
            rows = {key: self._under(order, key, found, rights) for key, found in rows.items()}
            self._check_steps(order, rows, rights)
            kept = self._with_origins(order, rows, made_of, entered, rights)
        except (NotGranted, SiteRefused) as error:
            self._write(order.user, "segment", order.id, str(error), order.job, allowed=False)
            raise
        if rights or self._steward:
            clauses = {grant.clause for r in _flat(rights) for grant in r.grants[:1]}
            self._write(order.user, "segment", order.id, "; ".join(sorted(clauses)), order.job)
        return kept

    def still(self, order: Order) -> NotGranted | None:
        """Why an order that runs must end now: a relation that it rests on is gone.

        A milder change, another archetype say, lets it finish.
        """
        denial = self._gone(order)
        if denial is None:
            return None
        self._write(order.user, "revoked", order.id, denial.because, order.job, allowed=False)
        return NotGranted({self._site.name: denial.because})

    def look(self, order: SegmentOrder) -> None:
        """Let the user of an order see what it has put out so far.

        Raises
        ------
        NotGranted
            If its results wait for a second run, or an owner no longer grants it.
        """
        denial = self._gone(order)
        because = proving.WAITS if order.unproven else ""
        if denial is not None:
            because = denial.because
        if because:
            self._write(order.user, "read", order.id, because, order.job, allowed=False)
            raise NotGranted({self._site.name: because})

    def _gone(self, order: Order) -> Denial | None:
        """The first relation that an order rests on and that is gone."""
        if isinstance(order, ReleaseOrder | CompareOrder) or not self.minds:
            return None
        asked = Asked(user=order.user, type=order.request.type, purpose=order.request.purpose)
        if isinstance(order, SegmentOrder):
            keys = {key for known in order.origins.values() for key in known}
        else:
            rows, origins = _carried(order.key, self._known(order.key))
            keys = {*rows, *origins}
        for key in keys:
            denial = self._denied(key, asked)
            if denial is not None and self._rests_on(order, key):
                return denial
        return None

    def _rests_on(self, order: SegmentOrder | TransferOrder, key: str) -> bool:
        """Whether an order reads data themselves, or a result of them that ends with its relation."""
        read = order.inputs if isinstance(order, SegmentOrder) else (order.key,)
        results = 0
        for one in read:
            known = self._known_for(order, one)
            rows, origins = _carried(one, known)
            if key in rows or (key in origins and not self._outlives(key, known, order.user)):
                return True
            results += key in origins
        return not results  # by way of what, nobody can say any more

    def _outlives(self, key: str, known: Sequence[Dataset], user: str) -> bool:
        """Whether results of a dataset are a user's for longer than the relation holds.

        Where this site has a record of its own, what others say of the same does not count; where it has
        not, all must say so.
        """
        results = [result for result in known if result.lineage is not None]
        results = [result for result in results if result.site == self._site.name] or results
        return bool(results) and any(
            all(outlives(self._of(site), home, result, user) for result in results)
            for site, homes in self._homes(key).items()
            for home in homes
        )

    def clause(self, order: SegmentOrder, key: str) -> str:
        """By which relation an order has data of an owner; the site alone if there is none now."""
        asked = Asked(user=order.user, type=order.request.type, purpose=order.request.purpose)
        found = self._standing(key, replace(asked, time=self._clock()))
        return found.grants[0].clause if found is not None and found.grants else self._site.name

    def _check_steps(
        self, order: SegmentOrder, rows: Mapping[str, Rows], rights: Mapping[str, Sequence[Right]]
    ) -> None:
        for step in order.steps:
            self._must_be_installed(step.operation, rights)
        if not rights:
            return
        if order.request.type != NOTEBOOK and any(is_notebook(s.operation) for s in order.steps):
            raise NotGranted({self._site.name: not_as_notebook(order.request.type)})
        readings = follow(order.steps, rows, rights)
        for step in order.steps:
            for key, applied in readings[step.key].reads.items():
                owners, here = rights.get(key, ()), self._site.name
                said = [r.refuses(step, applied, here, again=True) for r in owners]
                if said and said[0] is not None and all(said):
                    raise NotGranted({self._site.name: said[0].because})
                floor = max((right.row_floor for right in rights.get(key, ())), default=0)
                known = self.rows_of(key) if floor else None
                if floor and (known is None or known < floor):
                    clause = rights[key][0].grants[0].clause
                    text = f"{clause}: fewer than {floor} rows are not computed with"
                    raise NotGranted({self._site.name: text})

    def rows_of(self, key: str) -> int | None:
        """Rows of a registered dataset by its owner's own record: what an order says proves nothing."""
        counts = [d.extent.rows for datasets in self._homes(key).values() for d in datasets]
        known = [count for count in counts if count is not None]
        return min(known) if known and len(known) == len(counts) else None

    def _must_be_installed(
        self, operation: Operation, rights: Mapping[str, Sequence[Right]]
    ) -> None:
        name = f"{operation.name}@{operation.version}"
        ours = self._installed.get(name) or hiding.SERVICES.get(name)
        if self._steward and ours is None:
            raise SiteRefused(
                self._site.name, f"a steward runs only what is installed here, and {name} is not"
            )
        forced = any(operation.name in right.forced for right in _flat(rights))
        if ours is None and not (forced and self._installed):
            return
        if ours != operation:
            raise SiteRefused(
                self._site.name, f"{name} is not the operation that is installed here by that name"
            )

    def _must_be_ours(self, key: str, replica: Replica) -> None:
        """An input must be a copy that this site has written down, under the key it says."""
        known: Replica | None = self._records.get("replica", replica_id(replica), self._site.name)
        if known is None or known.key != key or replica.key != key or known.url != replica.url:
            raise NotGranted({self._site.name: f"input {key[:12]} is no copy that is known here"})

    def _with_origins(
        self,
        order: SegmentOrder,
        rows: Mapping[str, Rows],
        made_of: Mapping[str, frozenset[str]],
        entered: Mapping[str, Mapping[str, float]],
        rights: Mapping[str, Sequence[Right]],
    ) -> SegmentOrder:
        readings = follow(order.steps, rows, rights)
        told = order.steps, rows, readings, rights
        floors = flooring.floors(*told)
        blind = flooring.uncounted(order.steps, floors, rights)
        if blind is not None:
            text = (
                f"nobody counts the rows that {blind.label!r} would get, and there is a row floor"
            )
            raise NotGranted({self._site.name: text})
        found: dict[str, frozenset[str]] = dict(made_of)
        since: dict[str, Mapping[str, float]] = dict(entered)
        for step in order.steps:
            found[step.key] = frozenset().union(*(found.get(k, frozenset()) for k in step.inputs))
            since[step.key] = _latest(since.get(k, {}) for k in step.inputs)
        return replace(
            order,
            origins={step.key: tuple(sorted(found[step.key])) for step in order.steps},
            entered={
                step.key: {k: at for k, at in since[step.key].items() if at < inf}
                for step in order.steps
            },
            rows={k: reading.carries for k, reading in readings.items() if reading.carries},
            services={
                k: words_of(reading.carries, rights)
                for k, reading in readings.items()
                if reading.carries
            },
            floors=floors,
            guarded=flooring.guarded(*told),
            temporary=tuple(
                step.key for step in order.steps if self._temporary(order, found[step.key])
            ),
            unproven=proving.unproven(
                order, found, self._homes, self._archetypes, self._waiting(order, rows)
            ),
        )

    def _waiting(self, order: SegmentOrder, rows: Mapping[str, Rows]) -> dict[str, str]:
        """Inputs that are given out to nobody now, and why; of rows their owners are asked."""
        me = self._site.name
        found = {
            key: proving.withheld(self._known_for(order, key), me, self._homes)
            for key in order.inputs
            if self.minds and not rows.get(key)
        }
        return {key: because for key, because in found.items() if because}

    def _second_run(self, order: CompareOrder) -> None:
        """Refuse to compare with the run of a site that the owners do not let run again."""
        request, site = order.request, order.copy.site
        asked = Asked(
            user=order.user, type=request.type, purpose=request.purpose, time=self._clock()
        )
        _, origins = _carried(order.key, self._known(order.key))
        because = proving.no_second(site, origins, lambda key: self._standing(key, asked))
        if because:
            self._write(order.user, "compare", order.id, because, order.job, allowed=False)
            raise NotGranted({self._site.name: because})

    def _temporary(self, order: SegmentOrder, origins: Iterable[str]) -> bool:
        """Whether an owner does not let a result of his data be kept after the job."""
        request = order.request
        asked = Asked(
            user=order.user, type=request.type, purpose=request.purpose, time=self._clock()
        )
        if not self.minds:
            return False
        standings = (self._standing(key, asked) for key in origins)
        return any(
            found is not None
            and found.grants
            and not any(grant.relation.derived.keep for grant in found.grants)
            for found in standings
        )

    def _inputs(
        self, order: SegmentOrder, minded: bool
    ) -> tuple[dict[str, Rows], dict[str, frozenset[str]], dict[str, dict[str, float]]]:
        """Rows that the inputs carry, and the registered data that they are made of, and since when."""
        rows: dict[str, Rows] = {}
        made_of: dict[str, frozenset[str]] = {}
        entered: dict[str, dict[str, float]] = {}
        for key in order.inputs:
            known = self._known_for(order, key) if minded else []
            if minded and not known and self._steward:
                raise NotGranted({self._site.name: f"nobody here knows what input {key[:12]} is"})
            carried, origins = _carried(key, known)
            made_of[key] = origins
            entered[key] = {
                one: max((entered_at(d, one) for d in known if d.lineage is not None), default=inf)
                for one in origins
            }
            if carried:
                rows[key] = carried
        return rows, made_of, entered

    def _under(
        self,
        order: SegmentOrder | None,
        key: str,
        rows: Rows,
        rights: Mapping[str, Sequence[Right]],
    ) -> Rows:
        """Rows of data as they count under these rights, whoever's had them made."""
        for dataset in self._known(key) if order is None else self._known_for(order, key):
            said = dataset.lineage.services if dataset.lineage is not None else {}
            rows = under(rows, said, rights)
        return rows

    # --- reads ----------------------------------------------------------------------------------

    def read(self, replica: Replica, reader: Reader, *, again: bool = False) -> None:
        """Let somebody have the bytes of a copy at this site.

        Parameters
        ----------
        again
            He was let in before and is still reading: nothing is written down unless he has to stop.

        Raises
        ------
        NotGranted
            If an owner does not grant it.
        """
        if not self.minds:
            return
        rows, origins = _carried(replica.key, self._known(replica.key))
        if not rows and not origins:
            if not self._steward:
                return
            self._refuse(reader, replica, f"{self._site.name}: nobody here knows what this is")
        minded = False
        rights = self._rights(reader.user, reader.request, {replica.key: rows})
        rows = self._under(None, replica.key, rows, rights)
        for right in _flat(rights):
            minded = True
            for site in reader.sites or ("",):
                denial = right.goes_to(site, rows[right.key])
                if denial is not None:
                    self._refuse(reader, replica, denial.because)
        if not rows:
            asked = Asked(user=reader.user, type=None, purpose=None, time=self._clock())
            minded |= self._check_result(replica, reader, origins, asked)
        if minded and not again:
            self._write(reader.user, "read", replica.key, "", reader.job, sites=reader.sites)

    def served(self, job: str, key: str, nbytes: int, to: str) -> None:
        """Write down bytes that were handed out."""
        if self.minds:
            self._audit.write(what="served", object=key, job=job, nbytes=nbytes, to=to)

    def _check_result(
        self, replica: Replica, reader: Reader, origins: Iterable[str], asked: Asked
    ) -> bool:
        """Results go to whoever may still ask for them; or to all, if the maker's relation says so."""
        minded = False
        known = self._known(replica.key)
        because = proving.withheld(known, self._site.name, self._homes)
        for key in origins:
            found = self._standing(key, asked)
            if found is None:
                continue
            minded = True
            grants = found.grants
            if because and not proving.compares(reader.sites, found, known):
                self._refuse(reader, replica, f"{self._site.name}: {because}")
            if self._outlives(key, known, reader.user):
                continue
            if found.denial is not None:
                # What all may have is still for somebody: who is nobody is refused.
                grants = self._reusing(replica.key, key) if reader.user else ()
                if not grants:
                    self._refuse(reader, replica, found.denial.because)
            if reader.sites and not any(grant.relation.derived.copy for grant in grants):
                text = f"{grants[0].clause}: results are not copied to other sites"
                self._refuse(reader, replica, text)
        return minded

    def _reusing(self, result: str, key: str) -> tuple[Grant, ...]:
        """What lets others have what those made who asked for a result."""
        found: list[Grant] = []
        for dataset in self._known(result):
            asked = Asked(user=dataset.owner, type=None, purpose=None, time=self._clock())
            made = self._standing(key, asked)
            if made is not None:
                found += [grant for grant in made.grants if grant.relation.derived.reuse]
        return tuple(found)

    def _refuse(self, reader: Reader, replica: Replica, because: str) -> None:
        who = reader.user
        self._write(
            who, "read", replica.key, because, reader.job, allowed=False, sites=reader.sites
        )
        raise NotGranted({self._site.name: because})

    # --- what is known --------------------------------------------------------------------------

    @property
    def minds(self) -> bool:
        """Whether anything has to be asked at all."""
        return self._steward or bool(self._records.agreements()) or bool(self._stewards())

    def _stewards(self) -> frozenset[str]:
        """Sites that refuse what no agreement of theirs is about, as far as we have heard."""
        sites = self._records.topology().sites
        heard = {site.name for site in sites if site.trust == "steward"}
        return frozenset(heard | {self._site.name} if self._steward else heard - {self._site.name})

    def _known(self, key: str) -> list[Dataset]:
        return self._records.snapshot().with_key(key)

    def _known_for(self, order: Order, key: str) -> list[Dataset]:
        """The same of what an order reads.

        Of what it had heard nothing of when it let the order in, a lab takes the order's word until it has.
        """
        known = self._known(key)
        if known or self._steward or not isinstance(order, SegmentOrder):
            return known
        return [order.datasets[key]] if key in order.unheard and key in order.datasets else []

    def _denied(self, key: str, asked: Asked) -> Denial | None:
        found = self._standing(key, replace(asked, time=self._clock()))
        return None if found is None else found.denial

    def _standing(self, key: str, asked: Asked, preferred: Collection[str] = ()) -> Standing | None:
        """How a dataset stands to what is asked: by our own agreements, else by those of all its owners."""
        several: list[Standing] = []
        for site, datasets in self._homes(key).items():
            found = standing(self._of(site), datasets, asked, steward=site in self._stewards())
            if found is not None and site == self._site.name:
                return found
            several += [] if found is None else [found]
        return together(several, self._archetypes, preferred)

    def _rights(
        self, user: str, request: Request, rows: Mapping[str, Rows]
    ) -> dict[str, tuple[Right, ...]]:
        asked = Asked(user=user, type=request.type, purpose=request.purpose, time=self._clock())
        rights: dict[str, tuple[Right, ...]] = {}
        for key in {key for carried in rows.values() for key in carried}:
            found = self._standing(key, asked, request.archetypes)
            if found is not None:
                site = found.dataset.site
                archetype = request.archetypes.get(site, "")
                rights[key] = (right_of(found, archetype, self._archetypes(site), asked),)
        return rights

    def _homes(self, key: str) -> dict[str, list[Dataset]]:
        """Sites at which data were registered, ours first, with their records of them."""
        registered = [dataset for dataset in self._known(key) if dataset.lineage is None]
        homes: dict[str, list[Dataset]] = {}
        for dataset in sorted(registered, key=lambda d: (d.site != self._site.name, d.site)):
            homes.setdefault(dataset.site, []).append(dataset)
        return homes

    def _of(self, site: str) -> list[Agreement]:
        return self._records.agreements(site)

    def _archetypes(self, site: str) -> Mapping[str, Archetype]:
        own = self._records.snapshot().archetypes.get(site, ())
        return {**SHIPPED, **{archetype.name: archetype for archetype in own}}

    def _write(
        self,
        user: str,
        what: str,
        object: str,
        clause: str,
        job: str,
        *,
        allowed: bool = True,
        sites: Sequence[str] = (),
    ) -> None:
        self._audit.write(
            user=user,
            what=what,
            object=object,
            allowed=allowed,
            clause=clause,
            job=job,
            to=", ".join(sites),
        )


def reader_of(errand: Errand, *sites: str) -> Reader:
    """Whoever an errand is for, by way of these sites."""
    seen = tuple(dict.fromkeys(site for site in (*sites, errand.to) if site))
    return Reader(user=errand.user, sites=seen, request=errand.request, job=errand.job)


def _carried(key: str, known: Sequence[Dataset]) -> tuple[Rows, frozenset[str]]:
    """Rows that data carry, and the registered data that they are made of."""
    rows: dict[str, int] = {}
    origins: set[str] = set()
    for dataset in known:
        if dataset.lineage is None:
            # Whoever writes down another's result as data of his own becomes one more owner, not the only one.
            rows[key] = 0
            origins.add(key)
            continue
        origins.update(dataset.lineage.origins)
        for source, applied in dataset.lineage.rows.items():
            rows[source] = min(rows.get(source, applied), applied)
    return rows, frozenset(origins)


def _latest(several: Iterable[Mapping[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for one in several:
        for key, moment in one.items():
            found[key] = max(found.get(key, moment), moment)
    return found


def _flat(rights: Mapping[str, Sequence[Right]]) -> list[Right]:
    return [right for found in rights.values() for right in found]
