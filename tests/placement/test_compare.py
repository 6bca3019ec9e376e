"""Two plans beside each other."""

from __future__ import annotations

from hypothesis import given

from dataflow.placement.make import make_plan
from dataflow.testing.strategies import World, worlds
from tests.placement.test_explain import A, B, plan, total


def test_what_is_otherwise() -> None:
    free = plan(total(A, B))
    there = plan(total(A, B), result_at="p0")
    found = there.diff(free)
    assert not found.steps
    assert [(m.label, m.before) for m in found.transfers] == [("total", "")]
    assert found.nbytes == there.nbytes - free.nbytes == 8
    assert "8 B more moved" in repr(found)
    assert "<table" in found._repr_html_()
    back = there.compare(free)
    assert back.nbytes == -8
    assert "less moved" in repr(back)


def test_nothing_is_otherwise() -> None:
    same = plan(total(A, B)).diff(plan(total(A, B)))
    assert not same
    assert same.alike
    assert repr(same).startswith("the same steps at the same sites")


@given(worlds())
def test_pinning_shows_in_the_difference(world: World) -> None:
    def made(pinned: dict[str, str]) -> object:
        return make_plan(
            world.graph,
            topology=world.topology,
            replicas=world.replicas,
            verdicts=world.verdicts,
            measurements=world.measurements,
            pinned=pinned,
        )

    before = made({})
    sites = {a.key: a.site for a in before.assignments if a.reused is None}  # type: ignore[attr-defined]
    found = made(sites).diff(before)  # type: ignore[attr-defined]
    assert not found.steps or found.seconds <= 1e-9 or found.nbytes <= 0
    assert found.seconds == made(sites).seconds - before.seconds  # type: ignore[attr-defined]
