"""What answers mean, without anybody being asked."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow.client.look import Look
from dataflow.errors import SiteRefused
from dataflow.session.doctor import judge
from dataflow.session.doctor.checks import Check, document, failed, ok, without

HERE = {"python": "3.13.1", "jupyter-dataflow": "1.0", "numpy": "2.0"}


def look(status: int = 200, document: Any = None, date: float | None = None) -> Look:
    return Look(
        status=status, document=document, date=date, sent=100.0, received=100.5, seconds=0.5
    )


@pytest.mark.parametrize(
    ("ahead", "signed", "status"),
    [
        ((-0.5, 0.5), False, "ok"),
        ((-1.9, -1.0), False, "ok"),
        ((1.0, 30.0), False, "ok"),  # an answer that took long proves nothing
        ((2.5, 3.0), False, "warning"),
        ((-9.0, -8.0), False, "warning"),
        ((-2000.0, -1999.0), False, "warning"),
        ((-2000.0, -1999.0), True, "failed"),
        (None, False, "warning"),
    ],
)
def test_clocks(ahead: tuple[float, float] | None, signed: bool, status: str) -> None:
    assert judge.clock(ahead, signed=signed).status == status


def test_which_clock_is_ahead() -> None:
    assert "ahead of ours" in judge.clock((60.0, 61.0)).said
    assert "behind ours" in judge.clock((-61.0, -60.0)).said


def test_a_header_is_taken_for_no_finer_than_it_is() -> None:
    least, most = look(date=100.0).ahead() or (0.0, 0.0)
    assert least <= 0.0 <= most
    assert look(date=100.0).ahead(103.0) == (2.5, 3.0), "a site's own word is finer"
    assert look().ahead() is None


def test_free_space() -> None:
    assert judge.space(2 * 10**9).status == "ok"
    assert judge.space(10**8).status == "warning"


def test_versions() -> None:
    assert judge.agreement(HERE, dict(HERE), "uva").status == "ok"
    other = judge.agreement(HERE, {**HERE, "numpy": "1.26"}, "uva")
    assert other.status == "warning"
    assert other.said.splitlines()[-1].split() == ["numpy", "2.0", "1.26"]
    wrong = judge.agreement(HERE, {**HERE, "python": "3.11.2"}, "uva")
    assert wrong.status == "failed"
    assert "other versions of python" in wrong.said


@pytest.mark.parametrize(
    ("status", "shown", "words"),
    [
        (401, "", "401: a token is needed, and none is known"),
        (401, "credential uva", "401: credential uva is not accepted (who is that)"),
        (403, "credential uva", "403: credential uva is known there but may not look"),
        (404, "credential uva", "does not know this question"),
        (500, "credential uva", "HTTP 500"),
    ],
)
def test_a_token_that_does_not_do(status: int, shown: str, words: str) -> None:
    finding = judge.token(look(status, {"kind": "x", "args": ["who is that"]}), shown=shown)
    assert finding.status == "failed"
    assert words in finding.said
    assert finding.advice


def test_what_answers() -> None:
    assert judge.health(look(200, {"status": "ok"})).status == "ok"
    assert "proxy" in judge.health(look(502)).said
    assert "no agent" in judge.health(look(200, "<html>")).said


def test_the_name_of_a_site() -> None:
    assert judge.name("uva", None).status == judge.name("uva", "uva").status == "ok"
    assert judge.name("uva", "amc").status == "failed"


def test_memory_and_threads() -> None:
    assert judge.memory(2, 10**9, 4 * 10**9).status == "ok"
    assert judge.memory(0, 10**9, 4 * 10**9).status == "ok"
    assert judge.memory(5, 10**9, 4 * 10**9).status == "warning"
    assert judge.threads(2, 2, 4).status == "ok"
    assert judge.threads(9, 1, 4).status == "warning"


def test_a_login_says_its_advice_once() -> None:
    error = SiteRefused("hpc", "'login' does not let us in (no key); try ssh login")
    finding = judge.login(error)
    assert finding.said == "'login' does not let us in (no key)"
    assert finding.advice


def test_words_of_an_s3_service() -> None:
    text = "Client error with status 403: <Error><Code>RequestTimeTooSkewed</Code></Error>"
    assert "clock" in judge.store_error(text)
    assert "bucket" in judge.store_error("NoSuchBucket: x")
    assert "credentials:" in judge.store_error("what is that")


def test_secrets_are_taken_out() -> None:
    checks = [Check(area="a", what="w", **failed("say abc-123", "not abc-123")._asdict())]
    (clean,) = without(checks, ["abc-123", "", "abc"])
    assert (clean.said, clean.advice) == ("say ***", "not ***")


def test_one_document() -> None:
    good = Check(area="a", what="w", **ok("fine")._asdict())
    bad = Check(area="a", what="w", **failed("bad", "mend it")._asdict())
    assert document([good])["ok"] is True
    both = document([good, bad])
    assert both["ok"] is False
    assert [check["status"] for check in both["checks"]] == ["ok", "failed"]
