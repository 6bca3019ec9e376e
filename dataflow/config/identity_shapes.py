"""Shapes of those who say who somebody is, as a site file has them under ``identity:``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from dataflow.config.records import Issuer
from dataflow.config.shape import Seconds, Shape

_Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$")]
_Word = Annotated[str, StringConstraints(min_length=1, max_length=200)]


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("must be longer than nothing")
    return value


class IssuerShape(Shape):
    """One issuer of tokens."""

    issuer: _Url
    audience: _Word | None = None
    user: _Word = "sub"
    suffix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.@+-]*$", max_length=64)] = ""
    groups: str = ""
    roles: dict[Literal["reader", "user", "admin"], list[_Word]] = Field(default_factory=dict)
    longest: Annotated[Seconds, AfterValidator(_positive)] = 3600.0
    keys: _Url | None = None

    def record(self) -> Issuer:
        """The record.

        Raises
        ------
        ValueError
            If roles are given without the claim that names the groups, or the other way round.
        """
        if bool(self.groups) != bool(self.roles):
            raise ValueError("groups (a claim) and roles (role → groups) need each other")
        return Issuer(
            issuer=self.issuer,
            audience=self.audience or "",
            user=self.user,
            suffix=self.suffix,
            groups=self.groups,
            roles={role: tuple(names) for role, names in self.roles.items()},
            longest=self.longest,
            keys=self.keys or "",
        )
