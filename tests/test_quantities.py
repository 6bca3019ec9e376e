"""Sizes, rates and durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow._quantities import (
    format_bytes,
    format_rate,
    format_seconds,
    parse_bytes,
    parse_rate,
    parse_seconds,
)
from dataflow.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("12 GB", 12_000_000_000),
        ("12GB", 12_000_000_000),
        ("1.5 kB", 1500),
        ("64 MiB", 64 * 2**20),
        ("1_000 B", 1000),
        ("2e3 MB", 2_000_000_000),
        ("0", 0),
        (0, 0),
    ],
)
def test_bytes(text: str | int, nbytes: int) -> None:
    assert parse_bytes(text) == nbytes


@pytest.mark.parametrize(
    ("text", "rate"),
    [("50 Mbit/s", 6.25e6), ("1.2 GB/s", 1.2e9), ("8 bit/s", 1.0), ("1 gbit/s", 1.25e8)],
)
def test_rates(text: str, rate: float) -> None:
    assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10 ms", 0.01), ("2 h", 7200), ("30s", 30), ("3 µs", 3e-6), ("1 d", 86400)],
)
def test_seconds(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["12", 12, "12 G", "GB", "", "-3 GB", "12 Gb", "12 gb", "12 GB/s", None, True]
)
def test_bytes_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="memory"):
        parse_bytes(text, "memory")


def test_missing_unit_says_what_would_be_right() -> None:
    with pytest.raises(ConfigError, match=r"bandwidth: '50' has no unit; .*'50 Mbit/s'"):
        parse_rate("50", "bandwidth")


def test_bits_are_never_taken_for_bytes() -> None:
    for text in ("50 Mb/s", "50 mb/s", "50 Mbps"):
        with pytest.raises(ConfigError, match="none of"):
            parse_rate(text)


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (8, "8 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1234, "1.2 kB"),
        (999_999, "1 MB"),
        (12_345_678, "12 MB"),
        (200_000_000, "200 MB"),
        (10**18, "1000 PB"),
        (-1500, "-1.5 kB"),
    ],
)
def test_format_bytes(nbytes: int, text: str) -> None:
    assert format_bytes(nbytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (3e-6, "3 µs"),
        (0.012, "12 ms"),
        (0.8, "0.8 s"),
        (59.96, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (90_000, "1 d 1 h"),
        (float("inf"), "unknown"),
    ],
)
def test_format_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_format_rate() -> None:
    assert format_rate(6.25e6) == "6.2 MB/s"
    assert format_rate(float("inf")) == "∞"


@given(st.integers(0, 10**17))
def test_what_is_written_can_be_read(nbytes: int) -> None:
    assert parse_bytes(format_bytes(nbytes)) == pytest.approx(nbytes, rel=0.05)


@given(st.floats(1e-6, 1e6))
def test_seconds_written_are_close(seconds: float) -> None:
    parts = format_seconds(seconds).split()
    read = sum(
        parse_seconds(f"{number} {unit}")
        for number, unit in zip(parts[::2], parts[1::2], strict=True)
    )
    assert read == pytest.approx(seconds, rel=0.06)


def test_small_units_are_exact() -> None:
    assert parse_seconds("235 ms") == 0.235
    assert parse_seconds("7 us") == 7e-6
