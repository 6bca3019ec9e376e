"""Bytes, seconds and rates as people write and read them; inside, all are plain numbers.

Decimal units, as networks and disks are sold: 1 kB is 1000 bytes. Binary ones (``KiB`` …) are read
too, never written.
"""

from __future__ import annotations

import math
import re

from dataflow.errors import ConfigError

_BYTES: dict[str, float] = {
    "B": 1,
    "kB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "TB": 1e12,
    "PB": 1e15,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "PiB": 2**50,
}
_BITS: dict[str, float] = {
    "bit": 1 / 8,
    "kbit": 1e3 / 8,
    "Mbit": 1e6 / 8,
    "Gbit": 1e9 / 8,
    "Tbit": 1e12 / 8,
}
_SECONDS: dict[str, float] = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1,
    "min": 60,
    "h": 3600,
    "d": 86400,
}
_RATES: dict[str, float] = {f"{unit}/s": size for unit, size in {**_BYTES, **_BITS}.items()}
_NUMBER = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+)\s*(\S*)\s*\Z")
_WRITTEN = ("B", "kB", "MB", "GB", "TB", "PB")


def parse_bytes(text: str | int, what: str = "size") -> int:
    """Bytes of ``"12 GB"`` or ``"64MiB"``.

    Parameters
    ----------
    text
        A number and a unit. ``0`` needs none.
    what
        The setting's name, for the message.

    Raises
    ------
    ConfigError
        If the unit is missing or unknown; nothing is guessed.

    Examples
    --------
    >>> parse_bytes("12 GB")
    12000000000
    """
    return round(_parse(text, what, _BYTES, "12 GB"))


def parse_rate(text: str | int, what: str = "rate") -> float:
    """Bytes per second of ``"50 Mbit/s"`` or ``"1.2 GB/s"``.

    Raises
    ------
    ConfigError
        If the unit is missing or unknown. ``Mb/s`` is refused, since it is used for both.

    Examples
    --------
    >>> parse_rate("50 Mbit/s")
    6250000.0
    """
    return _parse(text, what, _RATES, "50 Mbit/s")


def parse_seconds(text: str | int, what: str = "duration") -> float:
    """Seconds of ``"10 ms"``, ``"30 s"`` or ``"2 h"``.

    Raises
    ------
    ConfigError
        If the unit is missing or unknown.

    Examples
    --------
    >>> parse_seconds("10 ms")
    0.01
    """
    return _parse(text, what, _SECONDS, "10 ms")


def _parse(text: object, what: str, units: dict[str, float], example: str) -> float:
    if not isinstance(text, str):
        if text == 0 and not isinstance(text, bool):
            return 0.0
        raise ConfigError(f"{what}: {text!r} has no unit; write a text such as {example!r}")
    match = _NUMBER.match(text)
    if match is None:
        raise ConfigError(f"{what}: {text!r} is not a number with a unit, such as {example!r}")
    number, unit = float(match[1].replace("_", "")), match[2]
    if not unit:
        if number == 0:
            return 0.0
        raise ConfigError(f"{what}: {text!r} has no unit; write it as in {example!r}")
    size = units.get(unit, _by_case(unit, units))
    if size is None:
        raise ConfigError(f"{what}: {unit!r} in {text!r} is none of {', '.join(units)}")
    # 235 ms are 235 / 1000 s: 0.001 is no exact number, and 235 of it are not 0.235.
    found = number * size if size >= 1 else number / round(1 / size)
    if not math.isfinite(found):
        raise ConfigError(f"{what}: {text!r} is too large")
    return found


def _by_case(unit: str, units: dict[str, float]) -> float | None:
    """The unit whatever its case, but never a bit for a byte: ``Mb`` stays unknown."""
    stem = unit.removesuffix("/s")
    if stem.endswith("b"):
        return None
    found = {size for name, size in units.items() if name.lower() == unit.lower()}
    return found.pop() if len(found) == 1 else None


def format_bytes(nbytes: float) -> str:
    """``1234567`` as ``"1.2 MB"``: two digits, or three where the first is followed by two.

    Examples
    --------
    >>> format_bytes(0), format_bytes(1_234_567), format_bytes(200_000_000)
    ('0 B', '1.2 MB', '200 MB')
    """
    sign, size = ("-", -nbytes) if nbytes < 0 else ("", nbytes)
    power = 0
    while power < len(_WRITTEN) - 1 and _rounded(size) >= 1000:
        size /= 1000
        power += 1
    return f"{sign}{_digits(size if power else round(size))} {_WRITTEN[power]}"


def format_rate(rate: float) -> str:
    """Bytes per second as ``"6.2 MB/s"``; an endless rate as ``"∞"``."""
    return "∞" if math.isinf(rate) else f"{format_bytes(rate)}/s"


def format_seconds(seconds: float) -> str:
    """Seconds as ``"12 ms"``, ``"0.8 s"``, ``"3 min 20 s"`` or ``"2 h 5 min"``.

    Examples
    --------
    >>> format_seconds(0.012), format_seconds(0.8), format_seconds(200)
    ('12 ms', '0.8 s', '3 min 20 s')
    """
    if seconds < 0:
        return f"-{format_seconds(-seconds)}"
    if math.isinf(seconds) or math.isnan(seconds):
        return "unknown"
    if seconds == 0:
        return "0 s"
    for limit, unit, size in ((999.5e-6, "µs", 1e-6), (0.0995, "ms", 1e-3), (59.95, "s", 1.0)):
        if seconds < limit:
            return f"{_digits(seconds / size)} {unit}"
    whole = round(seconds)
    if whole < 3600:
        return _two(whole // 60, "min", whole % 60, "s")
    minutes = round(seconds / 60)
    if minutes < 1440:
        return _two(minutes // 60, "h", minutes % 60, "min")
    hours = round(seconds / 3600)
    return _two(hours // 24, "d", hours % 24, "h")


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large} {large_unit}" + (f" {small} {small_unit}" if small else "")


def _rounded(value: float) -> float:
    return round(value, 1) if value < 9.95 else round(value)


def _digits(value: float) -> str:
    """Two digits below ten (one of a large fraction is enough), none after the point above."""
    if value >= 9.95:
        return f"{value:.0f}"
    text = f"{value:.1f}" if value >= 0.995 else f"{value:.2g}"
    return text.removesuffix(".0")
