"""Roads: what a participant without a site has measured, kept for its next session."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dataflow.documents import from_json, to_json
from dataflow.sites import Link

#: In the directory of a participant's state.
ROADS_FILE = "roads.json"


#: What was measured so long (s) before something else is forgotten.
FORGOTTEN_SECONDS = 7 * 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Road:
    """A measured link, the site at its other end, and its address then: names come back."""

    site: str
    address: str | None
    link: Link


@dataclass(frozen=True)
class _Kept:
    roads: tuple[Road, ...] = ()


class Roads:
    """Measured links in a file.

    A notebook is opened several times a day and must not pay each time for what it measured in
    the morning. A file that cannot be read or written costs a measurement, never an error.

    Parameters
    ----------
    file
        Where they are kept; it need not exist.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def of(self, site: str, address: str | None) -> list[Link]:
        """What was measured last of the roads from and to a site at this address."""
        return [road.link for road in self._kept() if (road.site, road.address) == (site, address)]

    def keep(self, site: str, address: str | None, links: Sequence[Link]) -> None:
        """Hold what was just measured instead of what was known of this site."""
        if not links:
            return
        now = max(link.measured_at or 0.0 for link in links)
        others = [
            road
            for road in self._kept()
            if (road.site, road.address) != (site, address)
            and now - (road.link.measured_at or 0.0) <= FORGOTTEN_SECONDS
        ]
        found = [Road(site=site, address=address, link=link) for link in links]
        fresh = self._file.with_name(f"{self._file.name}.{secrets.token_hex(4)}")
        with suppress(OSError):
            try:
                fresh.write_text(to_json(_Kept((*others, *found))))
                fresh.replace(self._file)
            finally:
                fresh.unlink(missing_ok=True)

    def _kept(self) -> tuple[Road, ...]:
        try:
            return from_json(_Kept, self._file.read_bytes()).roads
        except (OSError, ValueError):  # pydantic's refusal is one of the latter
            return ()
