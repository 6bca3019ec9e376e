"""Session: the synchronous face of a participant, for one user."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataflow import _html
from dataflow.agreements import Agreement, Request
from dataflow.catalog.listing import Listing
from dataflow.datasets import Dataset, Replica
from dataflow.errors import (
    ConfigError,
    ScopeError,
)
from dataflow.execution.events import Errand, JobCreated
from dataflow.execution.replies import WINDOW_SECONDS
from dataflow.graph.graph import Graph, of_dataset
from dataflow.participant.loading import loads_of
from dataflow.participant.owners import Asking
from dataflow.placement.plan import Keep, Plan
from dataflow.policy.archetype import Load, Wish
from dataflow.policy.offers import Offer
from dataflow.policy.scope import Scope
from dataflow.policy.table import Verdicts
from dataflow.session import (
    again,
    arguments,
    attaching,
    naming,
    reading,
    registering,
    rounds,
    trying,
    verifying,
)
from dataflow.session.connected import Connected
from dataflow.session.jobs import Job
from dataflow.session.listings import Jobs, Ledger
from dataflow.session.negotiating import Negotiations
from dataflow.session.submitting import submit
from dataflow.session.verifying import Verified
from dataflow.sites import Site, Topology, map_of

if TYPE_CHECKING:
    from dataflow.placement.aim import Objective
    from dataflow.placement.solve import Rule

Planned = Graph | Sequence[Graph]


class Session(Connected):
    """A federation, as one user sees it from one notebook.

    Made by :func:`dataflow.connect`, which closes ``reaching`` if it cannot be made;
    ``session["name"]`` is a dataset to build graphs on.
    """

    # --- what there is ---------------------------------------------------------------------------

    def topology(self) -> Topology:
        """Sites, stores and links as known now; ``away`` are the sites that do not answer."""
        self._must_be_open()
        return self._participant.topology()

    def sites(self) -> list[Site]:
        """All sites."""
        return list(self.topology().sites)

    def loads(self) -> Mapping[str, Load]:
        """How busy the workers of each site are, of those that tell (``loaded_at`` in a site file)."""
        self._must_be_open()
        return loads_of(self._participant.records.written("measurement"))

    def datasets(self, *, job: str | None = None, **asked: Any) -> Listing:
        """Datasets anywhere in the federation.

        Parameters
        ----------
        job
            Only what this job made.
        **asked
            ``tags``, ``owner``, ``name``, ``kind``, ``shape``, ``dims``, ``dtype``, ``site``,
            ``text``; see :func:`dataflow.catalog.search.matches`.
        """
        snapshot = self._snapshot()
        found: Iterable[Dataset] = snapshot.search(**asked)
        if job is not None:
            found = [d for d in found if d.lineage is not None and d.lineage.job == job]
        return Listing(found, snapshot)

    def agreements(self, site: str | None = None) -> list[Agreement]:
        """What owners grant, at one site or at all, as far as you may know of it."""
        self._must_be_open()
        return self._participant.records.agreements(site)

    def agree(self, agreement: Agreement) -> None:
        """Put an agreement of a site in the place of the one of its name; for its administrators.

        It holds at once: requests follow it from now on, and what rests on a relation that is gone
        ends at every site.

        Raises
        ------
        PolicyError
            If you are no administrator there.
        """
        participant = self._participant
        if agreement.site == participant.federation.me:
            participant.agree(agreement, self.user)
        else:
            self._run(participant.ways.to(agreement.site).agree(agreement))

    @property
    def negotiations(self) -> Negotiations:
        """Negotiations with owners: ask for what they do not grant yet, and answer as one."""
        self._must_be_open()
        return Negotiations(self)

    def offers(self, **asked: Any) -> list[Offer]:
        """What owners let you do with which data: one for each relation that is for you.

        Hidden columns are not in it. Data of sites without any agreement are not offered by
        anybody, and at a lab free.

        Parameters
        ----------
        **asked
            As for :meth:`datasets`.
        """
        return trying.offered(self._snapshot(), user=self.user, **asked)

    def verdicts(self, graph: Planned, **asked: Any) -> Verdicts:
        """Which steps may run where, and who says no; plans nothing, and asks nobody.

        Parameters
        ----------
        **asked
            ``request``, ``purpose``, ``archetype`` and ``scope``, as for :meth:`plan`.
        """
        whole = arguments.one_graph(graph)
        return trying.verdicts(whole, self._snapshot(), user=self.user, **asked)

    def __getitem__(self, name: str) -> Graph:
        """A dataset to build on, by name, ``site/name``, id or key.

        Raises
        ------
        UnknownDataset, AmbiguousDataset
            With what to do about it.
        """
        return of_dataset(self._snapshot().resolve(name))

    def __contains__(self, name: object) -> bool:
        return name in self._snapshot()

    def _ipython_key_completions_(self) -> list[str]:
        self._must_be_open()
        return self._participant.snapshot().names()  # whoever types waits for no news

    def open(self, name: str, *, lazy: bool = True) -> Any:
        """Read a dataset into this process; what is touched travels."""
        snapshot = self._snapshot()
        dataset = snapshot.resolve(name)
        return self._read(dataset, snapshot.replicas_of(dataset), lazy=lazy)

    def dashboard(self, site: str | None = None) -> str | None:
        """URL of the page of a site's Dask scheduler; ``None`` as long as it has no workers.

        Of a site behind SSH: a port here that leads there over the one connection, until the session
        is closed. Of another site: its own word, which may lead nowhere from here.

        Raises
        ------
        SiteUnreachable, SiteRefused
            If its agent does not answer.
        """
        if site is None or site == self._participant.name:
            return self._participant.dashboard()
        return self._run(self._participant.ways.dashboard(site))

    # --- datasets --------------------------------------------------------------------------------

    def register(
        self,
        url: str | Path,
        *,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        variable: str | None = None,
        site: str | None = None,
        replica_of: str | None = None,
    ) -> Dataset:
        """Make a dataset of data that stays where it is; only its header is read.

        Parameters
        ----------
        url
            A path, ``file:///…`` or ``s3://bucket/…``, as the site sees it.
        name
            Unique at its site; default the file's name without its ending.
        variable
            One array of a file that holds several.
        site
            Where it lies; default this machine.
        replica_of
            A dataset of which this is another copy.

        Raises
        ------
        UnreadableDataset
            If nothing is there that can be read.
        CatalogError
            If the name is taken by other data.
        """
        asked: dict[str, Any] = {
            "name": name,
            "tags": arguments.words(tags, "tags"),
            "variable": variable,
            "owner": self.user,
            "replica_of": replica_of,
        }
        return self._run(registering.register(self._participant, site, url, asked))

    def register_all(
        self,
        listing: str | Path | Mapping[str, Any],
        *,
        site: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> list[Dataset]:
        """Register what a listing names: STAC items (``.json``) or an intake catalog (``.yaml``).

        The whole listing is read before the first is registered; one that cannot be read ends it,
        and what was registered before stays. Once more is harmless.

        Parameters
        ----------
        listing
            A file of this machine, or what was read of one.
        site, tags
            As for :meth:`register`; the tags are added to those of the listing.

        Raises
        ------
        CatalogError
            If it is no listing.
        UnreadableDataset
            If something that it names cannot be read at the site.
        """
        return naming.register_all(self, listing, site=site, tags=arguments.words(tags, "tags"))

    def _read(
        self,
        dataset: Dataset,
        copies: Sequence[Replica],
        *,
        job: str = "",
        request: Request | None = None,
        lazy: bool = True,
    ) -> Any:
        errand = Errand(job=job, user=self.user, request=request or Request())
        found = reading.read(self._participant, self._loop, dataset, copies, errand, lazy=lazy)
        return reading.signed(found, dataset)

    def verify(
        self, what: str | Dataset, *, site: str | None = None, recompute: bool = False
    ) -> Verified:
        """Whether every byte of a result is what its writer noted; says which chunk is not.

        One copy is read whole: from a store that this session opens, or over a link.

        Parameters
        ----------
        what
            Name, ``site/name``, id, key or record.
        site
            Whose copy; default the nearest.
        recompute
            Also do the same work at a site that has none of it, which keeps what it makes, and
            compare both; of Zarr groups without the words about who made them, when and where.

        Raises
        ------
        UnknownDataset
            If there is no copy (there).
        PlacementError
            If nothing made it, or no other site can do the work.
        """
        return verifying.verified(self, what, site=site, recompute=recompute)

    # --- plans -----------------------------------------------------------------------------------

    def plan(
        self,
        graph: Planned,
        *,
        scope: Scope | str | Mapping[str, str] | None = None,
        pinned: Mapping[str, str] | None = None,
        without: Mapping[str, str] | Sequence[str] | None = None,
        result_at: str | None = None,
        keep: Keep | None = None,
        rule: Rule = "cheapest",
        request: str = "",
        purpose: str = "",
        archetype: str = "",
        aggregate: bool | None = None,
        mixed: bool = False,
        strict: bool = False,
        partial: bool = False,
        objective: Objective = "balanced",
        deadline: float | str | None = None,
        budget: float | None = None,
        quantile: float | None = None,
    ) -> Plan:
        """Where each step of a graph would run, what would move, and what it would cost.

        Runs nothing of it. Promises of linearity that the plan relies upon are tried on a small
        sample of random values in this process first.

        Parameters
        ----------
        graph
            One graph, or several to be planned together.
        scope
            The user's word about where: a text such as ``"{parity: uva || amc}"`` or a mapping of
            labels, operations or roles to places; see :mod:`dataflow.policy.scope`. It holds for
            all that a step is split into.
        pinned
            Label of a step → site where this step runs as long as that is there. Of a step that is
            split only the last part is meant: where the parts are put together.
        without
            Sites that must not be used (with a reason each, if a mapping).
        result_at
            Site at which the results must end; default where they are computed. ``"here"`` is this
            session's own site.
        keep
            ``"all"`` stores every step, not only results.
        rule
            Where the parts of split steps are put together: ``cheapest``, ``largest-input``,
            ``largest-intermediate`` or ``random``.
        request, purpose
            What kind of request this is, and for what: owners grant by both.
        archetype
            This one and no other, of those that the owners allow.
        aggregate
            Whether one answer over the data of several owners is wanted; default as the graph has it.
        mixed
            Owners may be served under different archetypes.
        strict
            Refuse the whole if an owner refuses a part. Otherwise results that somebody refuses are
            left out, and ``plan.missing`` says why.
        partial
            If a site is lost during the run, results that need it may be left out as well.
        objective
            What is to be least: ``"time"``, ``"bytes"``, ``"money"``, ``"energy"``; several in the
            order in which they count; a mapping of them to weights (per second, byte, unit of
            money, joule); or ``"balanced"``: seconds, and 10 ms for every MB over a link.
        deadline, budget
            Seconds (or a text: ``"10 min"``) that the run may take by prediction, and money that
            its transfers may cost.
        quantile
            Plan by what is not exceeded with this probability, by earlier runs: 0.9 for who would
            rather be sure than quick on average. The plan's figures are those then.

        Raises
        ------
        ScopeError
            If the scope cannot be read or honoured; with the position.
        NotGranted
            If owners do not grant it, with the clauses of their agreements.
        PlacementError
            If no plan is possible, and why.
        NotLinear
            If a promise is not kept.
        """
        whole = arguments.one_graph(graph)
        self._must_be_open()
        self._hear_of_results()
        plan = self._plan(
            whole,
            scope=scope,
            pinned=arguments.words(pinned, "pinned"),
            excluded=arguments.reasons(without),
            result_at=self._place(self._settings.result_at if result_at is None else result_at),
            keep=keep or self._settings.keep,
            rule=rule,
            partial=partial,
            objective=objective,
            deadline=arguments.deadline(deadline),
            budget=budget,
            quantile=quantile,
            asking=Asking(
                user=self.user,
                type=request,
                purpose=purpose,
                wish=Wish(archetype=archetype, aggregate=aggregate, mixed=mixed),
                strict=strict,
            ),
        )
        self._functions.update(whole.functions)
        return replace(plan, notes=(*plan.notes, *self._promises.notes_on(plan)))

    def plan_again(self, plan: Plan, *, pinned: Mapping[str, str]) -> Plan:
        """The same work planned once more as it was asked for, with steps pinned to sites.

        Parameters
        ----------
        pinned
            Label or key of a step → its site; what the old plan had pinned stays.

        Raises
        ------
        PlacementError, NotGranted
            As :meth:`plan`.
        """
        self._must_be_open()
        self._hear_of_results()
        words = arguments.words(pinned, "pinned")
        new = self._once_back(lambda: again.plan_again(self._participant, plan, self.user, words))
        return replace(new, notes=(*new.notes, *self._promises.notes_on(new)))

    def _plan(self, graph: Graph, **asked: Any) -> Plan:
        return self._once_back(lambda: self._participant.plan(graph, **asked))

    def _once_back(self, plan: Callable[[], Plan]) -> Plan:
        sync = self._participant.sync
        return again.plan_once_back(
            plan, sync.away, lambda sites: self._run(sync.ask_again(sites, again.BACK_SECONDS))
        )

    def _place(self, result_at: str) -> str:
        if result_at != "here":
            return result_at
        here = self._participant.federation.me
        if here is None:
            raise ConfigError("result_at='here': this session has no site of its own")
        return here

    # --- copies ----------------------------------------------------------------------------------

    def replicate(
        self,
        dataset: str | Dataset,
        scope: Scope | str,
        *,
        window: float = WINDOW_SECONDS,
        **how: Any,
    ) -> Job:
        """Copy a dataset to where the scope says; returns at once.

        A job as any other: planned, priced (``job.plan``), in the ledger. It stays open for a site
        that is away, which gets its copy as soon as it is back; ``job.replies()`` tells who has
        answered.

        Parameters
        ----------
        dataset
            Name, ``site/name``, id, key or record.
        scope
            ``"s1 & s2"`` for a copy at each, ``"s1 || s2"`` for one at the first that answers,
            ``"{around: s1, 50 ms}"`` for one that is near.
        window
            Seconds after which a site that said nothing is answered for with ``timeout``.
        **how
            As for :meth:`submit`.

        Raises
        ------
        ScopeError
            If the scope cannot be read or honoured.
        PlacementError
            If no copy can be read now.
        """
        graph = of_dataset(self._record(dataset))
        asked = {"asking": Asking(user=self.user), "told": {"window": arguments.seconds(window)}}
        plan = self._plan(graph, scope=scope, **asked)
        if not plan.copies:
            raise ScopeError(f"{scope!s} does not say where {graph.label(graph.key)!r} shall be")
        return self.submit(plan, **how)

    def move(
        self, dataset: str | Dataset, to: str, *, source: str | None = None, **how: Any
    ) -> Job:
        """Copy a dataset to a site, compare the copies, and give up the one at ``source``.

        All or nothing: if the copy does not arrive, or differs, the source stays as it was, and
        nothing is left at the target.

        Parameters
        ----------
        source
            Whose copy is given up; needed if there are several.
        **how
            As for :meth:`submit`.

        Raises
        ------
        PlacementError
            If it is not clear what is to be moved, or that cannot be given up.
        """
        asking = Asking(user=self.user)
        known = self._record(dataset)
        plan = self._once_back(
            lambda: self._participant.plan_move(known, to, source, asking=asking)
        )
        return self.submit(plan, **how)

    def _record(self, dataset: str | Dataset) -> Dataset:
        snapshot = self._snapshot()
        return dataset if isinstance(dataset, Dataset) else snapshot.resolve(dataset)

    # --- jobs ------------------------------------------------------------------------------------

    def submit(
        self,
        plan: Plan | Planned,
        *,
        tags: Mapping[str, str] | None = None,
        retries: int | None = None,
        time_limit: float | None = None,
        coordinator: str | None = None,
        attach: bool | None = None,
    ) -> Job:
        """Run a plan (or plan a graph, and run that); returns at once.

        The job is kept by the first site of the site file that answers, and goes on without this
        process; only where there is no such site, or the plan uses this process's own site, is it
        kept here, and goes on at the next ``connect`` if it was not done.

        Parameters
        ----------
        tags
            To find job and results by.
        retries
            Attempts after the first for what is nobody's code's fault; default 1.
        time_limit
            Seconds after which the job is ended.
        coordinator
            Site that keeps the job, instead.
        attach
            Whether a job of yours that is making the same results under the same tags is given
            instead, and that is said; default in notebooks, where a cell is run again.

        Raises
        ------
        SiteUnreachable
            If no site that could keep the job answers.
        """
        planned = plan if isinstance(plan, Plan) else self.plan(plan)
        words = {**self.job_tags, **arguments.words(tags, "tags")}
        if attaching.in_notebook() if attach is None else attach:
            known = attaching.running(self.jobs(), planned, self.user, words)
            if known is not None:
                print(attaching.attached_to(known))
                return Job(self, known.id, known=known)
        settings = self._settings
        created = JobCreated(
            job=secrets.token_hex(8),
            plan=planned,
            user=self.user,
            tags=words,
            retries=settings.retries if retries is None else retries,
            time_limit=settings.time_limit if time_limit is None else time_limit,
            time=time.time(),
        )
        payloads = self._payloads.of(planned)
        self._run(submit(self._participant, created, payloads, coordinator))
        return Job(self, created.job, created)

    def rounds(
        self,
        build: rounds.Build,
        start: Graph | str,
        clients: Sequence[str],
        count: int,
        *,
        always: Sequence[str] = (),
        check_every: int = 1,
        each: Callable[[rounds.Round], None] | None = None,
        tags: Mapping[str, str] | None = None,
        **asked: Any,
    ) -> rounds.Rounds:
        """Change a state round after round by data of several owners, as federated learning does.

        Each round is a job of its own, planned anew; its result is the state of the next. Owners are
        asked as it goes: whose data may not be used is left out of the round, and used again when he
        lets it. Waits until all rounds are made.

        Parameters
        ----------
        build
            Gets the state so far and the data of those who take part, by name; gives the graph whose one
            result is the new state.
        start
            The state before the first round.
        clients
            Names of datasets of which some may be left out.
        always
            Names of datasets without which there is no round, such as those of whoever combines.
        check_every
            Owners are asked before each round (1), each second (2) …; 0: before the first alone. Their
            sites refuse what has ended all the same: a round that meets that is made without them.
        each
            Is told of each round as it ends.
        **asked
            What else :meth:`plan` takes, such as ``request`` and ``scope``.

        Returns
        -------
        Rounds
            ``failed`` with the reason, if data that are always needed, or those of everybody, may not be used, or
            if a job fails.

        Notes
        -----
        The state carries what owners gave in earlier rounds. Where one of them goes, it may be used
        further if his relation has ended (``valid_until``) and said ``derived: {outlive: true}``.
        """
        return rounds.run(
            self,
            build,
            start,
            clients,
            count,
            always=always,
            check_every=check_every,
            each=each,
            tags=arguments.words(tags, "tags"),
            asked=asked,
        )

    def job(self, id: str) -> Job:
        """A job of any site, by id.

        Raises
        ------
        UnknownJob
            If nobody has heard of it.
        """
        return Job(self, id, known=self._run(self._participant.job(id)))

    def jobs(self, *, tags: Mapping[str, str] | None = None, status: str | None = None) -> Jobs:
        """Jobs of the federation, newest first."""
        wanted = (tags or {}).items()
        return Jobs(
            view
            for view in self._run(self._participant.jobs())
            if all(view.tags.get(name) == value for name, value in wanted)
            and (status is None or view.status == status)
        )

    def ledger(self, job: str | None = None) -> Ledger:
        """What crossed links for a job; without one, what this site handed out."""
        return Ledger(self._run(self._participant.ledger(job)))

    def __repr__(self) -> str:
        if self.closed:
            return "<Session closed>"
        topology = self.topology()
        here = len(topology.sites) - len(topology.away & set(topology.site_by_name))
        return f"<Session of {self.user}: {here} of {len(topology.sites)} sites answer>"

    def _repr_html_(self) -> str:
        if self.closed:
            return _html.block(repr(self).strip("<>")).text
        head = _html.Markup(f"<p>{_html.escape(repr(self).strip('<>'))}</p>")
        return _html.block(head, *map_of(self.topology())).text
