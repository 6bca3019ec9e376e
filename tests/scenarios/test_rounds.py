"""X-12: rounds under policy, over a server and three clients that are sites of their own."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from dataflow.agreements import Agreement, Derived, Relation
from dataflow.errors import NotGranted
from dataflow.session.rounds import Round, Rounds
from dataflow.testing.federation import Federation, SiteSettings

SERVICES = Path(__file__).parent / "services"
sys.path.insert(0, str(SERVICES))

import training  # noqa: E402

CLIENTS = ("c0", "c1", "c2")
VALUES = {name: np.arange(10.0) + 10 * number for number, name in enumerate(CLIENTS)}
STEP = 0.5


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("rounds")
    environment = {"PYTHONPATH": str(SERVICES)}
    settings = {
        name: SiteSettings(memory="1 GB", environment=environment) for name in ("server", *CLIENTS)
    }
    users = {"anna": "user", "root": "admin"}
    with Federation(folder, settings, users=users, ready_within=90) as federation:
        file = federation.sites_file_of("root")
        with flow.connect(file, user="root", state=folder / "root") as root:
            files = {"settings": ("server", np.array([STEP])), "start": ("server", np.zeros(1))}
            files |= {name: (name, VALUES[name]) for name in CLIENTS}
            for name, (site, values) in files.items():
                path = federation.data(site) / f"{name}.npy"
                np.save(path, values)
                root.register(path.as_uri(), name=name, site=site)
            federation.wait_measured(root)
        yield federation


def granted(name: str, *, until: float | None = None, outlive: bool = True) -> Agreement:
    """What the owner of one dataset lets anna do: her jobs come to the data."""
    one = Relation(
        id="anna",
        users=("anna",),
        request_types=("learning",),
        datasets=(name,),
        archetypes=("computeToData",),
        valid_until=until,
        derived=Derived(outlive=outlive),
    )
    site = "server" if name == "settings" else name
    return Agreement(name="learning", site=site, covers=(name,), relations=(one,))


@pytest.fixture
def people(sites: Federation, tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    with ExitStack() as stack:
        known: dict[str, Any] = {}

        def of(user: str) -> Any:
            if user not in known:
                file = sites.sites_file_of(user)
                state = tmp_path / user
                known[user] = stack.enter_context(flow.connect(file, user=user, state=state))
            return known[user]

        yield of


@pytest.fixture
def agree(people: Callable[[str], Any]) -> Callable[..., None]:
    """Have owners agree to this, and wait until anna has heard of it."""

    def write(*agreements: Agreement) -> None:
        for one in agreements:
            people("root").agree(one)
        limit = time.monotonic() + 20
        for one in {one.site: one for one in agreements}.values():
            while [a.relations for a in people("anna").agreements(one.site)] != [one.relations]:
                assert time.monotonic() < limit, "the news of the agreement does not arrive"
                time.sleep(0.05)

    return write


@pytest.fixture
def learn(people: Callable[[str], Any], tmp_path: Path) -> Callable[..., Rounds]:
    """Rounds of this test's own: the first one takes a moment that no other test's takes."""

    def rounds(count: int, seconds: float, **how: Any) -> Rounds:
        anna = people("anna")

        def build(state: Any, data: Mapping[str, Any]) -> Any:
            updates = [training.train(state, one, seconds=seconds) for one in data.values()]
            return training.combine(anna["settings"], *updates)

        found: Rounds = anna.rounds(
            build, "start", CLIENTS, count, always=("settings",), request="learning", **how
        )
        return found

    return rounds


def state_after(rounds: list[tuple[str, ...]]) -> float:
    state = 0.0
    for clients in rounds:
        total = sum(VALUES[name].sum() + state for name in clients)
        state = total / sum(VALUES[name].size for name in clients) * STEP
    return state


ALL = (granted("settings"), *map(granted, CLIENTS))


def test_x12_a_client_that_goes_is_left_out(
    people: Callable[[str], Any], agree: Any, learn: Callable[..., Rounds], sites: Federation
) -> None:
    agree(*ALL)
    told: list[Round] = []

    def leave(one: Round) -> None:
        told.append(one)
        if one.number == 3:
            agree(granted("c1", until=time.time()))

    found = learn(6, 0.001, each=leave)
    assert found.status == "done", found
    assert found.stopped_before is None
    assert [one.clients for one in found.rounds] == [CLIENTS] * 4 + [("c0", "c2")] * 2
    assert [sorted(one.refused) for one in found.rounds] == [[]] * 4 + [["c1"]] * 2
    assert "anna" in found.rounds[4].refused["c1"]
    assert told == list(found.rounds)
    assert len({one.job for one in told}) == 6
    assert found.state is not None
    state = people("anna").open(found.state.id)
    assert float(state[0]) == pytest.approx(state_after([one.clients for one in found.rounds]))
    assert "6 of 6" in repr(found)
    assert "c0, c2" in found._repr_html_()


def test_x12_rounds_that_were_made_before_give_what_they_gave(
    people: Callable[[str], Any], agree: Any, learn: Callable[..., Rounds]
) -> None:
    agree(*ALL)
    first, again = learn(2, 0.004), learn(2, 0.004)
    assert first.status == again.status == "done", again
    assert first.state is not None
    assert again.state is not None
    assert again.state.key == first.state.key
    anna = people("anna")
    for one in again.rounds:
        job = anna.job(one.job)
        assert not job.ledger()
        assert [dataset.key for dataset in job.view().results.values()] == list(job.plan.outputs)


def test_x12_the_server_that_goes_ends_it(agree: Any, learn: Callable[..., Rounds]) -> None:
    agree(*ALL)

    def leave(one: Round) -> None:
        if one.number == 1:
            agree(granted("settings", until=time.time()))

    found = learn(5, 0.002, each=leave)
    assert found.status == "failed"
    assert found.stopped_before == 2
    assert len(found.rounds) == 2
    assert found.reason.startswith("settings: ")
    assert "stopped before round 2: settings: " in repr(found)


def test_x12_nobody_is_asked_again(
    people: Callable[[str], Any], agree: Any, learn: Callable[..., Rounds]
) -> None:
    """Asked before the first round alone, what has ended meets the sites: it goes on without it."""
    agree(*ALL)

    def leave(one: Round) -> None:
        if one.number == 0:  # the site knows it before anna does
            people("root").agree(granted("c2", until=time.time()))

    found = learn(3, 0.003, each=leave, check_every=0)
    assert found.status == "done"
    assert [one.clients for one in found.rounds] == [CLIENTS, ("c0", "c1"), ("c0", "c1")]


def test_x12_nobody_lets_it(agree: Any, learn: Callable[..., Rounds]) -> None:
    agree(granted("settings"), *(granted(name, until=1.0) for name in CLIENTS))
    found = learn(3, 0.004)
    assert (found.status, found.rounds, found.state) == ("failed", (), None)
    assert found.stopped_before == 0
    assert "nobody's data may be used: c0: " in found.reason


def test_x12_clients_come_back(agree: Any, learn: Callable[..., Rounds]) -> None:
    agree(*ALL, granted("c0", until=1.0))

    def come(one: Round) -> None:
        if one.number == 0:
            agree(granted("c0"))

    found = learn(2, 0.005, each=come)
    assert [one.clients for one in found.rounds] == [("c1", "c2"), CLIENTS]


def test_what_does_not_outlive_its_relation_ends_with_it(
    people: Callable[[str], Any], agree: Any, learn: Callable[..., Rounds]
) -> None:
    """The state has the client's values in it: no round is made of it, and nobody reads it."""
    agree(*ALL, granted("c1", outlive=False))

    def leave(one: Round) -> None:
        if one.number == 1:
            agree(granted("c1", until=time.time(), outlive=False))

    found = learn(4, 0.006, each=leave)
    assert found.status == "failed"
    assert len(found.rounds) == 2
    assert "c1" in found.reason
    assert found.state is not None
    with pytest.raises(NotGranted):
        people("anna").open(found.state.id, lazy=False)
    agree(granted("c1"))
    assert people("anna").open(found.state.id, lazy=False).size == 1


def test_whoever_takes_the_relation_out_takes_results_back(
    people: Callable[[str], Any], agree: Any, learn: Callable[..., Rounds]
) -> None:
    agree(*ALL)
    found = learn(1, 0.007)
    assert found.state is not None
    agree(granted("c1", until=time.time()))
    assert people("anna").open(found.state.id, lazy=False).size == 1
    agree(Agreement(name="learning", site="c1", covers=("c1",)))
    with pytest.raises(NotGranted):
        people("anna").open(found.state.id, lazy=False)


@pytest.mark.parametrize(
    ("count", "how"), [(0, {}), (2, {"check_every": -1}), (1, {"clients": ()})]
)
def test_rounds_that_mean_nothing(
    people: Callable[[str], Any], count: int, how: dict[str, Any]
) -> None:
    anna = people("anna")
    clients = how.pop("clients", CLIENTS)
    with pytest.raises(ValueError, match="there must be a round, a client"):
        anna.rounds(lambda state, data: state, "start", clients, count, **how)
