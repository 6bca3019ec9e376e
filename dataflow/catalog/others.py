"""What one participant remembers of each other while it runs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from dataflow.catalog.entries import Peer

#: Where an agent answers, and the name of the credential to show there.
Address = tuple[str, str | None]


@dataclass(slots=True)
class Other:
    """What `Sync` knows of another site, apart from its records.

    Attributes
    ----------
    given
        Addresses from our own site file.
    hinted
        An address that somebody told us, until one is reached.
    reached
        Where the site answered last.
    heard_at, viewed_at
        When it answered last, and when it last said what it knows.
    failures
        Looks for news that failed since the last one that did not; ``tried`` after the first.
    wake
        Set when it is worth trying at once.
    task, look
        What follows its log, and what is looking at it besides, if anything is.
    """

    site: str
    given: list[Address] = field(default_factory=list)
    hinted: str | None = None
    reached: Address | None = None
    heard_at: float | None = None
    viewed_at: float = float("-inf")
    failures: int = 0
    tried: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    look: asyncio.Task[None] | None = None

    def addresses(self, own_word: Peer | None) -> list[Address]:
        """Where to try, in this order: the newest word first, the site's own record last."""
        credentials = own_word.credentials if own_word else None
        if self.given and credentials is None:
            credentials = self.given[0][1]
        places: list[Address] = [(self.hinted, credentials)] if self.hinted else []
        places += [self.reached] if self.reached else []
        places += self.given
        places += [(own_word.address, credentials)] if own_word and own_word.address else []
        return list(dict.fromkeys(places))
