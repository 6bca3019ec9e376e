"""What all shapes have in common: strictness, names, and quantities with their units."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

from dataflow._quantities import parse_bytes, parse_rate, parse_seconds
from dataflow.errors import ConfigError

_NUMBER = re.compile(r"\s*[+-]?[0-9][0-9_.]*(?:[eE][+-]?[0-9]+)?\s*\Z")


def _quantity(parse: Callable[[str], float], unit: str) -> Callable[[Any], Any]:
    def checked(value: Any) -> Any:
        text = str(value).strip()
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"must be text such as '4 {unit}', not {value!r}")
        if text.startswith("-"):
            raise ValueError(f"must not be negative: {text!r}")
        if _NUMBER.match(text) and float(text.replace("_", "")) != 0:
            raise ValueError(f"{text!r} has no unit: write '{text} {unit}'")
        try:
            return parse(text)
        except ConfigError as error:
            raise ValueError(error.message.partition(": ")[2] or error.message) from None

    return checked


def _schema(*examples: str) -> WithJsonSchema:
    pattern = r"^\s*[0-9][0-9_.]*\s*[A-Za-zµ/]+\s*$"
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": list(examples)})


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("must be more than 0")
    return value


def _name(value: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", value):
        raise ValueError(f"{value!r} is no name: letters, digits, '-', '_' and '.' only")
    return value


Bytes = Annotated[
    int,
    BeforeValidator(_quantity(parse_bytes, "GB")),
    AfterValidator(_positive),
    _schema("4 GB", "512 MiB"),
]
Rate = Annotated[
    float,
    BeforeValidator(_quantity(parse_rate, "Mbit/s")),
    AfterValidator(_positive),
    _schema("50 Mbit/s", "1.2 GB/s"),
]
Seconds = Annotated[float, BeforeValidator(_quantity(parse_seconds, "s")), _schema("10 ms", "5 s")]
Name = Annotated[str, AfterValidator(_name)]


class Shape(BaseModel):
    """A mapping in a file: unknown keys and near misses are refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, defer_build=True)
