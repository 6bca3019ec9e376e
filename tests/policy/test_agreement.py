"""Agreements: every part of a request is checked, in one relation, with its clause."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.agreements import ANY, Agreement
from dataflow.policy.agreement import Asked, as_seen_by, governing, grants, selects
from dataflow.policy.archetype import SHIPPED
from tests.policy.examples import ANNA, BOTH, agreement, relation, wages

ASKED = Asked(user=ANNA, type="sqlDataRequest", purpose="study", time=1000.0)


def denied(about: Agreement, dataset: Any = None, **asked: Any) -> tuple[str, str]:
    found, denial = grants([about], dataset or wages("vu"), replace(ASKED, **asked))
    assert not found
    assert denial is not None
    return denial.rule, denial.because


def test_the_shipped_agreements_grant() -> None:
    for site in ("vu", "uva"):
        found, denial = grants([agreement(site, relation())], wages(site), ASKED)
        assert denial is None
        (one,) = found
        assert one.archetypes(SHIPPED) == set(BOTH)
        assert one.providers(["surf", "otherCompany", "elsewhere"]) == ["surf"]
        assert one.clause == f"{site}: agreement 'wages', relation 'GUID'"


def test_each_part_is_checked_and_named() -> None:
    about = agreement("vu", relation(purposes=("study",), valid_from=500.0, valid_until=2000.0))
    here = "vu: agreement 'wages', relation 'GUID': "
    assert denied(about, user="mallory") == (
        "user",
        "vu: agreement 'wages' has no relation for user 'mallory'",
    )
    assert denied(about, user="")[0] == "user"
    assert denied(about, type="federated") == (
        "request type",
        here + "request type 'federated' is not among sqlDataRequest, genericRequest",
    )
    assert denied(about, wages("vu", "salaries")) == (
        "dataset",
        here + "'salaries' is not among wageGap",
    )
    assert denied(about, purpose="marketing")[0] == "purpose"
    assert denied(about, time=499.0) == ("time", here + "not valid yet")
    assert denied(about, time=2000.0) == ("time", here + "no longer valid")
    assert grants([about], wages("vu"), replace(ASKED, time=1999.9))[0]


def test_rug_has_no_relations() -> None:
    rule, because = denied(agreement("rug"), wages("rug"))
    assert (rule, because) == ("user", f"rug: agreement 'wages' has no relation for user {ANNA!r}")


def test_no_agreement_is_its_own_reason() -> None:
    _, denial = grants([], wages("vu"), ASKED)
    assert denial is not None
    assert denial.because == "vu: no agreement is about 'wageGap'"


def test_two_halves_are_no_whole() -> None:
    halves = [relation(id="a", request_types=()), relation(id="b", datasets=("other",))]
    assert denied(agreement("vu", *halves))[0] == "dataset"


def test_an_archetype_needs_relation_and_agreement() -> None:
    only = agreement("uva", relation(), archetypes=("dataThroughTtp",))
    (one,), _ = grants([only], wages("uva"), ASKED)
    assert one.archetypes(SHIPPED) == {"dataThroughTtp"}
    none = agreement("uva", relation(), compute_providers=("otherCompany",))
    (one,), _ = grants([none], wages("uva"), ASKED)
    assert not one.allows_provider("surf")


def test_groups_and_everybody() -> None:
    group = agreement("vu", relation(users=(), groups=("hr",)), groups={"hr": (ANNA, "bob")})
    assert grants([group], wages("vu"), replace(ASKED, user="bob"))[0]
    assert denied(group, user="eve")[0] == "user"
    assert denied(agreement("vu", relation(users=(), groups=("hr",))))[0] == "user"
    assert grants([agreement("vu", relation(users=(ANY,)))], wages("vu"), ASKED)[0]
    assert denied(agreement("vu", relation(users=(ANY,))), user="")[0] == "user"


def test_data_are_selected_by_name_id_key_and_the_owners_tags() -> None:
    dataset = wages("vu", tags={"topic": "wages", "year": "2020"})
    for word in ("wageGap", "vu-wageGap", "key-vu-wageGap", "tag:topic", "tag:year=2020", ANY):
        assert selects([word], dataset)
    for word in ("wagegap", "tag:year=2019", "tag:other", "tag:", "topic", ""):
        assert not selects([word], dataset)


def test_an_agreement_is_about_its_owners_data_at_its_site() -> None:
    about = agreement("vu", relation(), owner="hr", covers=("tag:topic=wages",))
    tags = {"topic": "wages"}
    assert governing([about], wages("vu", owner="hr", tags=tags)) == [about]
    assert not governing([about], wages("uva", owner="hr", tags=tags))
    assert not governing([about], wages("vu", owner="it", tags=tags))
    assert not governing([about], wages("vu", owner="hr"))


def test_what_a_user_sees_of_an_agreement() -> None:
    about = agreement(
        "vu",
        relation(id="mine", users=(ANNA, "bob")),
        relation(id="theirs", users=("bob",)),
        relation(id="ours", users=(), groups=("hr",)),
        relation(id="all", users=(ANY, "bob")),
        groups={"hr": (ANNA, "bob")},
        seed="abc",
    )
    seen = as_seen_by(about, ANNA)
    assert [(r.id, r.users, r.groups) for r in seen.relations] == [
        ("mine", (ANNA,), ()),
        ("ours", (ANNA,), ()),
        ("all", (ANY,), ()),
    ]
    assert "bob" not in repr(seen)
    assert grants([seen], wages("vu"), ASKED)[0][0].relation.id == "mine"


@given(st.sets(st.sampled_from(["user", "type", "dataset", "purpose", "time"])))
def test_nothing_but_the_whole_is_granted(wrong: set[str]) -> None:
    about = agreement("vu", relation(purposes=("study",), valid_until=2000.0))
    asked = replace(
        ASKED,
        user="eve" if "user" in wrong else ANNA,
        type="other" if "type" in wrong else "sqlDataRequest",
        purpose="fun" if "purpose" in wrong else "study",
        time=3000.0 if "time" in wrong else 0.0,
    )
    dataset = wages("vu", "secret" if "dataset" in wrong else "wageGap")
    found, denial = grants([about], dataset, asked)
    assert bool(found) == (not wrong)
    assert (denial is None) == (not wrong)


def test_forced_services_by_request_type() -> None:
    forced = {"sqlDataRequest": ("sql-anonymize",), ANY: ("log",)}
    (one,), _ = grants([agreement("uva", relation(forced=forced))], wages("uva"), ASKED)
    assert one.forced("sqlDataRequest") == ("log", "sql-anonymize")
    assert one.forced("genericRequest") == ("log",)


def test_records_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        relation().users = ("eve",)  # type: ignore[misc]
